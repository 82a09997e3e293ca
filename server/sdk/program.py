"""guidance's model object (`lm`), without what costs time here or is not safe with threads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from guidance._ast import GrammarNode, LiteralNode
from guidance._schema import SamplingParams
from guidance.models import Model
from guidance.models._engine import Engine, EngineInterpreter


class Program(Model):
    """A guidance model object without the trace that guidance keeps for its notebook widget: nobody looks at it
    here, and its numbering is shared by all threads without a lock."""

    def __init__(self, engine: Engine) -> None:
        sampling = SamplingParams(top_p=None, top_k=None, min_p=None, repetition_penalty=None)
        super().__init__(_Interpreter(engine), sampling, echo=False)

    def _update_trace_node(self, *_: Any, **__: Any) -> None:
        pass


@dataclass(frozen=True)
class Prepared(GrammarNode):
    """A grammar in llguidance's words (`GrammarNode.ll_grammar`), for one that is used again and again: guidance
    finds the words anew at each use, and checks each schema anew when a grammar is made. It stands alone, as no part
    of another grammar."""

    words: str

    def ll_grammar(self, enforce_max_tokens: bool = True) -> str:
        return self.words

    def _run(self, interpreter: Any, **named: Any) -> Iterator[Any]:
        yield from interpreter.grammar(self, **named)


class _Interpreter(EngineInterpreter):
    def text(self, node: LiteralNode, **_: Any) -> Iterator[Any]:
        """A literal joins the prompt of the next call; guidance would run a grammar that has only one way to go."""
        self.state.prompt += node.value
        yield from ()
