"""`/api`: the paths of the older LLM API, for clients that were written for it. Each is another name for a route."""

from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.host import Host
from server.http.access import access
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.file_schemas import FilesSaved, form_of
from server.http.files import save
from server.http.openai.agent_chat import accept_forms, answer_json
from server.http.openai.agent_schemas import AgentChatRequest, ApiMessage
from server.http.openai.message_schemas import ChatMessage
from server.http.openai.schemas import OpenAIAnswer
from server.http.openai.serializers import REFUSED
from server.http.schemas import ErrorAnswer, WorkspaceQuery
from server.http.session_schemas import SessionsListed, SessionsQuery
from server.http.sessions import sessions_listed


def blueprint(host: Host, transfers: ConcurrencyLimit) -> APIBlueprint:
    """The routes whose bodies are JSON or a form of files, over `host`."""
    routes = APIBlueprint("older_api", __name__)

    @routes.post(
        "/api/chat",
        summary="The older LLM API: the answer to a message, in a session; as /v1/chat/completions answers",
        responses={200: OpenAIAnswer, **REFUSED},
    )
    @access("ask", "session")
    def chat(body: ApiMessage) -> dict[str, Any] | Response:
        message = ChatMessage.model_validate({"role": "user", "content": body.message})
        choice = body.model_dump(exclude={"message"})
        return answer_json(host, AgentChatRequest(messages=[message], **choice))

    @routes.post(
        "/api/upload",
        summary="The older LLM API: upload files into a session, or a new one",
        responses={201: FilesSaved, **dict.fromkeys((400, 404, 413, 415, 422, 429, 503, 507), ErrorAnswer)},
        openapi_extensions={
            "requestBody": {"required": True, "content": form_of({"session_id": {"type": "string"}}, ["files"])}
        },
    )
    @access("ask", "session")
    def upload(query: WorkspaceQuery) -> tuple[dict[str, Any], int]:
        return save(host, transfers, query.workspace, None), 201

    @routes.get("/api/conversations", summary="The older LLM API: list sessions", responses={200: SessionsListed})
    @access("read", "caller")
    def conversations(query: SessionsQuery) -> dict[str, Any]:
        return sessions_listed(host, query)

    return routes


def chat_blueprint(host: Host, transfers: ConcurrencyLimit) -> APIBlueprint:
    """The route whose body is JSON or a form, over `host`."""
    routes = APIBlueprint("older_chat", __name__)

    @routes.post(
        "/api/chat/completions",
        summary="The older LLM API: the next message of a conversation, by an agent, in a session",
        responses={200: OpenAIAnswer, **REFUSED},
    )
    @access("ask", "session", takes_form=True)
    def chat_completions(body: AgentChatRequest) -> dict[str, Any] | Response:
        return answer_json(host, body)

    accept_forms(routes, host, transfers)
    return routes
