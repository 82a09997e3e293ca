"""The format of a prompt, and of the completion that the model writes."""

from dataclasses import dataclass
from typing import Protocol

from server.completions.grammar import answer_rule
from server.completions.types import Answer
from server.engine.engine import GuidedEngine
from server.engine.tokenizer import EngineTokenizer


@dataclass(frozen=True)
class Reply:
    """A parsed completion. `calls`: the tools' names, and the arguments as JSON. `thought`: what the model wrote
    before them for itself. `start`: the content's place in what was written."""

    content: str
    calls: tuple[tuple[str, str], ...] = ()
    thought: str = ""
    start: int = 0


class PromptFormat(Protocol):
    """The format of one prompt and its completion."""

    def given(self, engine: GuidedEngine) -> "GivenTokens | None":
        """The prompt as tokens, if the model reads it as these; None: as text. Raises what
        `GuidedEngine.checked_tokens` raises."""

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        """The prompt. Raises `InvalidRequestError` if the model's chat template does not accept the conversation."""

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        """The grammar of the completion, in llguidance's dialect of Lark."""

    def read(self, written: str, ended: bool) -> Reply:
        """Parse what was written so far. Before it has ended, only content that later text can't change."""


@dataclass(frozen=True)
class GivenTokens:
    """A prompt as tokens, of which the first `bos` ones were put before it, and its text."""

    tokens: list[int]
    bos: int
    text: str


@dataclass(frozen=True)
class Continuation:
    """Continues a text as it is, control tokens included, or tokens; see `PromptFormat`. `is_whole`: none of the
    text's tokens is changed by what follows, so that they can be shown. `answer`: the required form; None: any."""

    text: str | tuple[int, ...]
    is_whole: bool = False
    answer: Answer | None = None

    def given(self, engine: GuidedEngine) -> GivenTokens | None:
        if not isinstance(self.text, str):
            tokens = engine.checked_tokens(self.text)
            return GivenTokens(tokens, 0, engine.text_of(tokens))
        if not self.is_whole:
            return None
        tokens, bos = engine.read_tokens(self.text)
        return GivenTokens(tokens, int(bos), self.text)

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        return self.text if isinstance(self.text, str) else ""

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        return "start: answer\n" + answer_rule(self.answer)

    def read(self, written: str, ended: bool) -> Reply:
        return Reply(written)
