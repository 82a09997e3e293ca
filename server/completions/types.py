"""The request types: the next message of a conversation, with tools that it may call, or the continuation of a
text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from server.completions.logprobs import Logprobs
    from server.images.image_part import ImagePart

Prompts = tuple[str | tuple[int, ...], ...]
"""Texts to continue, each as text or as tokens."""


@dataclass(frozen=True)
class Tool:
    """A function that the client executes. `parameters`: the JSON schema of its arguments. `strict`: refuse a schema
    that a grammar can't express in full."""

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False


@dataclass(frozen=True)
class Call:
    """A call of a tool. `arguments`: a JSON object, as text; cut off if the text was."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """A message of a conversation. `calls`: of an assistant; the arguments may be incomplete, as after a limit.
    `call_id`: the call whose result a tool message has. `thought`: what the assistant wrote for itself."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[Call, ...] = ()
    call_id: str | None = None
    thought: str = ""


@dataclass(frozen=True)
class Json:
    """An answer must be JSON that fits `schema`. For `strict` see `Tool`."""

    schema: dict[str, Any]
    strict: bool = False


@dataclass(frozen=True)
class Regex:
    """An answer must match a regular expression, of Rust's regex crate, as a whole."""

    pattern: str


@dataclass(frozen=True)
class Choices:
    """An answer must be one of these texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """An answer must follow a grammar in llguidance's dialect of Lark, from its rule `start` on."""

    lark: str


Answer = Json | Regex | Choices | Grammar
"""The required form of an answer."""


@dataclass(frozen=True)
class Conversation:
    """The messages so far, and what the next message may be: an answer, or tool calls."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    callable: tuple[Tool, ...] = ()
    """The tools that the next message may call."""
    must_call: bool = False
    several_calls: bool = True
    answer: Answer | None = None
    """None: any text."""
    truncates: bool = False
    """Whether the oldest exchanges are left out if they don't fit into the model's window."""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the model's chat template gets besides messages and tools."""


@dataclass(frozen=True)
class Completion:
    """`count` alternatives for the next message of a conversation, or for the continuation of each text.

    `max_tokens`: of each. `stop`: stop sequences; an answer ends before the first one. `sampling`: parameters of
    `engine.sequence.Sampling`; missing ones come from the model's generation config. With a seed the texts are
    repeatable. `images`: the pictures whose marks are in the messages. `logprobs`: gets the log-probabilities; None:
    nobody wants them. `echo`: each text begins with its prompt. `answer`: the required form of the continuation of a
    text; that of a message is in its conversation.
    """

    source: "Conversation | Prompts"
    max_tokens: int
    count: int = 1
    stop: tuple[str, ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict)
    images: "tuple[ImagePart, ...]" = ()
    logprobs: "Logprobs | None" = None
    echo: bool = False
    answer: Answer | None = None


def with_texts(completion: Completion, change: Callable[[str], str]) -> Completion:
    """The same, with the messages' contents changed."""
    if not completion.images or isinstance(completion.source, tuple):
        return completion
    messages = tuple(replace(one, content=change(one.content)) for one in completion.source.messages)
    return replace(completion, source=replace(completion.source, messages=messages))
