"""guidance's model object (`lm`), without the parts that are slow or not safe with threads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from guidance._ast import GrammarNode, LiteralNode
from guidance._schema import SamplingParams
from guidance.models import Model
from guidance.models._engine import Engine, EngineInterpreter


class Program(Model):
    """A guidance model object without guidance's trace for its notebook widget, whose numbering is shared by all
    threads without a lock."""

    def __init__(self, engine: Engine) -> None:
        sampling = SamplingParams(top_p=None, top_k=None, min_p=None, repetition_penalty=None)
        super().__init__(_Interpreter(engine), sampling, echo=False)

    def _update_trace_node(self, *_: Any, **__: Any) -> None:
        pass


@dataclass(frozen=True)
class Prepared(GrammarNode):
    """A serialised grammar (`GrammarNode.ll_grammar`), for one that is used often: guidance would serialise it at
    each use, and check each schema again. It can't be a part of another grammar."""

    words: str

    def ll_grammar(self, enforce_max_tokens: bool = True) -> str:
        return self.words

    def _run(self, interpreter: Any, **named: Any) -> Iterator[Any]:
        yield from interpreter.grammar(self, **named)


class _Interpreter(EngineInterpreter):
    def text(self, node: LiteralNode, **_: Any) -> Iterator[Any]:
        """Add a literal to the prompt of the next call; guidance would run a grammar for it."""
        self.state.prompt += node.value
        yield from ()
