"""The format of a prompt, and of the completion that the model writes."""

from dataclasses import dataclass
from typing import Protocol

from server.completions.grammar import answer_rule
from server.engine.tokenizer import EngineTokenizer


@dataclass(frozen=True)
class Reply:
    """A parsed completion. `calls`: the tools' names, and the arguments as JSON. `thought`: what the model wrote
    before them for itself."""

    content: str
    calls: tuple[tuple[str, str], ...] = ()
    thought: str = ""


class PromptFormat(Protocol):
    """The format of one prompt and its completion."""

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        """The prompt. Raises `InvalidRequestError` if the model's chat template does not accept the conversation."""

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        """The grammar of the completion, in llguidance's dialect of Lark."""

    def read(self, written: str, ended: bool) -> Reply:
        """Parse what was written so far. Before it has ended, only content that later text can't change."""


@dataclass(frozen=True)
class Continuation:
    """Continues a text as it is, control tokens included; see `PromptFormat`."""

    text: str

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        return self.text

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        return "start: answer\n" + answer_rule(None)

    def read(self, written: str, ended: bool) -> Reply:
        return Reply(written)
