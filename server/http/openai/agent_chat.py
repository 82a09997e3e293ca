"""A chat with an agent, in a session of its own or in one that exists, with files or without.

A form, which can bring files, and the JSON of the older LLM API say the same, so both are answered here.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint
from flask_openapi3.models import MediaType
from pydantic import ValidationError

from server.errors import HearthError, InvalidRequestError
from server.files.describe import describe
from server.files.incoming import Incoming
from server.host import Host
from server.http.auth import caller
from server.http.body import read_json, refuse
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.multipart import is_form, read_form
from server.http.openai.agent_schemas import CHAT_FORM, AgentChatRequest
from server.http.openai.chat import ChatSerializer, completion_of
from server.http.openai.chat_schemas import ChatRequest
from server.http.openai.run_answers import answer_to, events_to
from server.http.openai.run_factory import OWN, agent_run
from server.http.request_parser import FORM
from server.runs import Run

DEFAULT_AGENT = "auto"
FORM_FIELDS = tuple(AgentChatRequest.model_fields)


@dataclass(frozen=True)
class _Chat:
    """A chat whose run has started. `has_new_files`: whether its session was made for it, to hold its files."""

    run: Run
    body: ChatRequest
    has_new_files: bool


def accept_forms(routes: APIBlueprint, host: Host, transfers: ConcurrencyLimit) -> None:
    """Answer requests to all of `routes` here if their body is a form, which may bring files."""

    def answer() -> dict[str, Any] | Response | None:
        if not is_form(request):
            return None
        # The limit is for reading the files; the answer may take longer.
        with transfers.acquire(), host.session_files.incoming() as upload:
            form = read_form(request, host.settings, upload, FORM_FIELDS)
            chat = _start(host, _request_of(form.fields), upload)
        return _answer(host, chat)

    routes.before_request(answer)
    for path in routes.paths.values():
        path.post.requestBody.content[FORM] = MediaType.model_validate(CHAT_FORM[FORM])


def answer_json(host: Host, asked: AgentChatRequest) -> dict[str, Any] | Response:
    """The answer to a request in JSON. Raises what `Questions.start` raises, and the run's error."""
    return _answer(host, _start(host, asked, None))


def _request_of(fields: dict[str, str]) -> AgentChatRequest:
    """The request that a form makes. Raises `MalformedRequestError`, `InvalidRequestError`."""
    if "messages" not in fields:
        raise InvalidRequestError('The form needs the field messages: JSON like [{"role": "user", "content": "Hi"}].')
    # In a form, an empty field is one that was not filled in.
    given: dict[str, Any] = {name: text for name, text in fields.items() if text}
    try:
        return AgentChatRequest.model_validate({**given, "messages": read_json(fields["messages"].encode())})
    except ValidationError as error:
        refuse(error)


def _start(host: Host, asked: AgentChatRequest, upload: Incoming | None) -> _Chat:
    agent, model = _agent_and_model(asked)
    body = ChatRequest(
        model=f"{OWN}/{agent}",
        messages=asked.messages,
        stream=asked.stream,
        x_workspace=asked.x_workspace,
        x_session_id=asked.session_id,
    )
    session = asked.session_id or secrets.token_hex(8)
    # A form was not read before, and a new session has no owner yet.
    host.permissions.check_session(caller(), asked.x_workspace, session, writes=True, makes=True)
    host.workspaces.get(asked.x_workspace)
    run = agent_run(host, body, completion_of(host, body, session))
    run.session_id = session
    has_new_files = False
    if upload is not None and upload.files:
        saved = host.session_files.add(run.workspace, run.session_id, upload)
        run.question = f"{run.question}\n\n{describe(saved)}"
        has_new_files = asked.session_id is None
    chat = _Chat(run, body, has_new_files)
    try:
        host.questions.start(run, model=model)
    except HearthError:
        _forget_new_files(host, chat)
        raise
    return chat


def _answer(host: Host, chat: _Chat) -> dict[str, Any] | Response:
    serializer = ChatSerializer(chat.run, chat.body)
    try:
        if chat.body.stream:
            return events_to(chat.run, serializer.chunks)
        return serializer.answer(answer_to(chat.run))
    except HearthError:
        _forget_new_files(host, chat)
        raise


def _forget_new_files(host: Host, chat: _Chat) -> None:
    """Remove the files of a session that the client will never know the name of."""
    if chat.has_new_files and chat.run.session_id is not None:
        host.session_files.delete_all(chat.run.workspace, chat.run.session_id)


def _agent_and_model(asked: AgentChatRequest) -> tuple[str, str | None]:
    """The agent's name, and the resident model's; None: the default one."""
    named = asked.model or OWN
    if asked.agent_type is None and named.startswith(f"{OWN}/"):
        return named.removeprefix(f"{OWN}/"), None
    return asked.agent_type or DEFAULT_AGENT, None if named == OWN else named
