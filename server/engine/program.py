"""guidance's model object (`lm`), without what costs time here or is not safe with threads."""

from collections.abc import Iterator
from typing import Any

from guidance._ast import LiteralNode
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


class _Interpreter(EngineInterpreter):
    def text(self, node: LiteralNode, **_: Any) -> Iterator[Any]:
        """A literal joins the prompt of the next call; guidance would run a grammar that has only one way to go."""
        self.state.prompt += node.value
        yield from ()
