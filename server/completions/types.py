"""What is asked for: a turn of a conversation, with tools that it may call, or the end of a text."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Tool:
    """A function that whoever asks will call. `parameters`: the JSON schema of its arguments. `strict`: it has to be
    kept in all its parts, and not as far as a grammar can say."""

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False


@dataclass(frozen=True)
class Call:
    """A call of a tool. `arguments`: a JSON object, as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """What has been said. `calls`: of an assistant; `call_id`: which of them the result of a tool belongs to."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[Call, ...] = ()
    call_id: str | None = None


@dataclass(frozen=True)
class Json:
    """What an answer has to be: JSON that fits `schema`; see `Tool` for `strict`."""

    schema: dict[str, Any]
    strict: bool = False


@dataclass(frozen=True)
class Conversation:
    """The messages so far, and what the next turn may be: an answer, or calls of tools."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    callable: tuple[Tool, ...] = ()
    """Those of the tools that this turn may call."""
    must_call: bool = False
    several_calls: bool = True
    answer: Json | None = None
    """What an answer has to be; None: any text."""


@dataclass(frozen=True)
class Completion:
    """`count` turns of a conversation, or of each of some texts as many ways to go on.

    `max_tokens`: of each. `stop`: texts at which an answer ends, without them. `sampling`: `temperature`, `top_p` and
    `seed`; what it leaves out is as the model's makers have it. With a seed the texts are the same each time.
    """

    source: Conversation | tuple[str, ...]
    max_tokens: int
    count: int = 1
    stop: tuple[str, ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict)
