"""What a request for a chat with an agent has: as a form, or as JSON of the older LLM API."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from server.http.file_schemas import form_of
from server.http.openai.message_schemas import ChatMessage
from server.http.openai.schemas import Anything, ModelName
from server.http.run_schemas import LONGEST_QUESTION
from server.http.schemas import Name, SessionId, StrictRequest


class AgentChoice(StrictRequest):
    """Who answers, and in which session."""

    agent_type: Literal["auto", "react", "plan_execute", "chat", "coder", "documents"] | None = Field(
        None, description="the agent; `chat` is the model alone; default: what `model` names, or `auto`"
    )
    session_id: SessionId | None = Field(None, description="default: a new session, named in the answer")
    model: ModelName | None = Field(
        None, description="a resident model for the agent; or, without agent_type, an agent, like `hearth/react`"
    )
    # A form has text only.
    stream: bool | None = Field(False, strict=False)
    x_workspace: Name = Field("main", description="whose agents and tools answer, and whose session it is")
    user: Anything = None
    user_id: Anything = None


class AgentChatRequest(AgentChoice):
    """The messages of a chat. If the session exists, it knows the earlier ones: then send the new message alone."""

    messages: list[ChatMessage] = Field(min_length=1)


class ApiMessage(AgentChoice):
    """One message of a user."""

    message: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUESTION)]


CHAT_FORM = form_of(
    {
        name: {"type": "string", "description": field.description or ""}
        for name, field in AgentChatRequest.model_fields.items()
    },
    ["messages"],
)
