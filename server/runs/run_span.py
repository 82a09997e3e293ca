"""The span of a run; see `server.observability.tracing`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server.observability import semantic_conventions as names
from server.observability import tracing

if TYPE_CHECKING:
    from server.runs.run import Run


@contextmanager
def run_span(run: "Run", invokes_agent: bool = True) -> Iterator[None]:
    """Within this block everything belongs to the span of `run`, which begins with its arrival. `invokes_agent`: else
    the model answers alone."""
    if not tracing.is_on():
        yield
        return
    attributes = {
        names.RUN: run.id,
        names.WORKSPACE: run.workspace,
        names.CONVERSATION: run.session_id,
        names.FORKED_FROM: None if run.fork is None else run.fork.run_id,
    }
    if invokes_agent:
        attributes |= {names.OPERATION: "invoke_agent", names.PROVIDER: tracing.OURS, names.AGENT: run.agent}
    with tracing.span(f"invoke_agent {run.agent}" if invokes_agent else "run", attributes, began=run.asked) as made:
        try:
            yield
        finally:
            used = run.usage
            tracing.put(
                made,
                {
                    names.REQUEST_MODEL: run.model,
                    names.GENERATION: run.generation,
                    names.QUEUE_SECONDS: run.queued_seconds,
                    names.STEPS: len(run.steps),
                    names.INPUT_TOKENS: used["prompt_tokens"],
                    names.CACHED_TOKENS: used["cached_tokens"],
                    names.OUTPUT_TOKENS: run.written,
                },
            )
