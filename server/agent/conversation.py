"""The interface between agents and a model, resident or remote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from server.sdk import UnreadableReplyError

from . import prompts

__all__ = ["Act", "Bounds", "Choice", "Conversation", "Quote", "Statement", "UnreadableReplyError", "shortened"]


@dataclass(frozen=True)
class Bounds:
    """The maximum tokens of each part of a message."""

    thought: int
    input: int
    answer: int


@dataclass(frozen=True)
class Act:
    """A thought, and then either a tool call with its input (JSON text) or an answer.

    If no call was allowed, `tool` may be the tool that the model wanted; then `input` is None.
    """

    thought: str
    tool: str | None = None
    input: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Choice:
    """The option that the model chose, and its probability at temperature 1; None if the model does not report it."""

    option: str
    probability: float | None


@dataclass(frozen=True)
class Quote:
    """Words of a passage, as the model writes them. `passage`: its number."""

    passage: int
    text: str


@dataclass(frozen=True)
class Statement:
    """A sentence, and what it rests on."""

    text: str
    quotes: tuple[Quote, ...]


class Conversation(Protocol):
    """A conversation with a model. Each method appends to it.

    The methods raise what the model raises: the run was cancelled, memory ran out, the model can't be reached.
    """

    @property
    def window(self) -> int:
        """The context length of the model, in tokens."""

    @property
    def length(self) -> int:
        """The tokens of the conversation so far."""

    def add(self, text: str) -> None:
        """Append `text` of a tool or a person for the model to read."""

    def repeat(self, lead: str, act: Act, written: str, tools: Mapping[str, Mapping[str, Any]]) -> None:
        """Append what `act` has appended in an earlier run, without the model: `written`, which it wrote then; if
        that is empty, the call that `act` is, after `lead`."""

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of `text`, at most so many tokens long."""

    def write(self, lead: str, max_tokens: int) -> str:
        """Free text after `lead`."""

    def write_code(self, max_tokens: int) -> str:
        """Python code, without the marks around it."""

    def write_json(self, schema: Mapping[str, Any], max_tokens: int) -> Any:
        """A value that fits a JSON schema. Raises `UnreadableReplyError` if it is incomplete or can't be parsed."""

    def choose(self, options: Sequence[str]) -> Choice:
        """One of `options`."""

    def write_statements(self, passages: Mapping[int, str], most: int, max_tokens: int) -> list[Statement]:
        """At most `most` sentences with quotes of `passages`, which are texts on one line, by number; none: the model
        says that they have no answer. A resident model can only quote words of a passage, with its number; what a
        remote one writes has to be checked. Raises `UnreadableReplyError`."""

    def act(self, lead: str, tools: Mapping[str, Mapping[str, Any]], may_call: bool, bounds: Bounds) -> Act:
        """A step after `lead`. `tools`: the JSON schemas of the arguments, by name. Without `may_call` the model may
        still name a tool, but it writes no input."""


def shortened(conversation: Conversation, text: str, tokens: int) -> str:
    """`text`, truncated to so many tokens, with the number of characters that are left out."""
    shown = conversation.cut(text, tokens)
    return text if shown == text else shown + prompts.CUT.format(characters=len(text) - len(shown))
