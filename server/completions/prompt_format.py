"""How a model is asked for a text, and how it writes what it is asked for."""

from dataclasses import dataclass
from typing import Protocol

from server.completions.grammar import answer_rule
from server.engine.tokenizer import EngineTokenizer


@dataclass(frozen=True)
class Reply:
    """What there is of a text. `calls`: the tools' names, and the arguments as JSON."""

    content: str
    calls: tuple[tuple[str, str], ...] = ()


class Layout(Protocol):
    """The form of one text."""

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        """What stands before it. Raises `InvalidRequestError` where the model's chat template does not take such a
        conversation."""

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        """What it may be, in llguidance's dialect of Lark."""

    def read(self, written: str, ended: bool) -> Reply:
        """What it says. Before it has ended, only content that stays whatever is written behind it."""


@dataclass(frozen=True)
class Continuation:
    """Goes on with a text as it stands, control tokens included; see `Layout`."""

    text: str

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        return self.text

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        return "start: answer\n" + answer_rule(None)

    def read(self, written: str, ended: bool) -> Reply:
        return Reply(written)
