"""What agents do with a model, whatever model it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from server.sdk import UnreadableReplyError

from . import prompts

__all__ = ["Act", "Bounds", "Choice", "Conversation", "UnreadableReplyError", "shortened"]


@dataclass(frozen=True)
class Bounds:
    """The maximum tokens of each part of a message."""

    thought: int
    input: int
    answer: int


@dataclass(frozen=True)
class Act:
    """A thought, and then either the call of a tool with its input, JSON as it was written, or an answer.

    Where no call was allowed, `tool` may be what the model wanted; then `input` is None.
    """

    thought: str
    tool: str | None = None
    input: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Choice:
    """What the model chose, and the probability with which it would choose it at temperature 1; None where the model
    does not tell."""

    option: str
    probability: float | None


class Conversation(Protocol):
    """One conversation with a model. Its methods write on at its end, and what they write stays in it.

    They raise what the model raises: the run is cancelled, its memory is gone, it can't be reached.
    """

    @property
    def window(self) -> int:
        """Tokens that the model reads and writes at most."""

    @property
    def length(self) -> int:
        """Tokens so far."""

    def add(self, text: str) -> None:
        """Let the model read `text`, which comes from a tool or a person."""

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of `text`, at most so many tokens long."""

    def write(self, lead: str, max_tokens: int) -> str:
        """Free text after `lead`."""

    def write_json(self, schema: Mapping[str, Any], max_tokens: int) -> Any:
        """A value that fits a JSON schema. Raises `UnreadableReplyError` where it did not come to its end."""

    def choose(self, options: Sequence[str]) -> Choice:
        """One of `options`."""

    def act(self, lead: str, tools: Mapping[str, Mapping[str, Any]], may_call: bool, bounds: Bounds) -> Act:
        """A step after `lead`. `tools` are the JSON schemas of the arguments, by name. Without `may_call` the model
        still says which tool it wants, and its input is not written."""


def shortened(conversation: Conversation, text: str, tokens: int) -> str:
    """`text`, or so many tokens of its beginning, and how much more there was."""
    shown = conversation.cut(text, tokens)
    return text if shown == text else shown + prompts.CUT.format(characters=len(text) - len(shown))
