"""Spans: what is done for a request, a run or a job, and how long it takes.

Off unless `start` was called. Then each function here costs one check, and opentelemetry is not imported; what it
does otherwise is in `otlp.py`.

A span belongs to no thread. The one that the current code works for is `span` in the context of `server.sdk.context`,
which goes from thread to thread with everything else that belongs to a run. A span that begins without one is the
first of a trace. Content, such as prompts, answers and the inputs of tools, is recorded only if `start` says so.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from server.observability import semantic_conventions as names
from server.sdk import context

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from server.observability.otlp import Tracing
    from server.sdk.model_call import ModelCall

Kind = Literal["internal", "server", "client"]
Attributes = Mapping[str, Any]
"""Those that are None are left out."""

REQUIREMENTS = "requirements-telemetry.txt"
COLLECTOR_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
"""Environment variables that may have the collector's key."""
OURS = "hearth"
"""The provider of models that this process runs."""
CUT, DONE, FAILED = "length", "stop", "error"
"""Finish reasons."""


class _Now:
    tracing: "Tracing | None" = None
    """None: off."""


_now = _Now()
_OFF: AbstractContextManager[None] = nullcontext()


class TelemetryError(Exception):
    """Traces can't be exported. The message says why."""


def start(endpoint: str, with_content: bool, version: str) -> None:
    """Export spans to the OTLP receiver at `endpoint`, like http://collector:4318, from now on. `version`: of Hearth.
    Raises `TelemetryError` if a package is missing, or if the SDK refuses the value of one of its variables."""
    try:
        from server.observability.otlp import Tracing
    except ImportError as error:
        raise TelemetryError(
            f"HEARTH_OTLP_ENDPOINT is set, and a package that exports traces is missing: {error}. Install them: "
            f"pip install -r {REQUIREMENTS}"
        ) from error
    try:
        _now.tracing = Tracing(endpoint, with_content, version)
    except ValueError as error:
        raise TelemetryError(f"HEARTH_OTLP_ENDPOINT is set, and an OTEL_ variable is not valid: {error}") from error


def stop() -> None:
    """Export what is left, and make no spans any more. Waits a few seconds at most."""
    ended, _now.tracing = _now.tracing, None
    if ended is not None:
        ended.close()


def is_on() -> bool:
    """Whether spans are made."""
    return _now.tracing is not None


def begin(
    name: str,
    attributes: Attributes,
    kind: Kind = "internal",
    *,
    began: float | None = None,
    parent: "Span | None" = None,
) -> "Span | None":
    """A span that the caller ends, with `end`; None if spans are off. `began`: seconds since 1970; None: now.
    `parent`: instead of the context's span."""
    if _now.tracing is None:
        return None
    return _now.tracing.begin(name, attributes, kind, began, parent or context.current().span)


def span(
    name: str,
    attributes: Attributes,
    kind: Kind = "internal",
    *,
    began: float | None = None,
    parent: "Span | None" = None,
) -> "AbstractContextManager[Span | None]":
    """Within this block everything belongs to a new span, see `begin`. An error that leaves the block is noted."""
    return _OFF if _now.tracing is None else _within(begin(name, attributes, kind, began=began, parent=parent))


def caused(name: str, attributes: Attributes, cause: str | None, is_awaited: bool) -> Any:
    """The same for work that another span has started, on another thread or at another time. `cause`: what
    `traceparent` gave there.

    A span that waits for the work is its parent. Otherwise the work has a trace of its own, which has a link to that
    span: https://opentelemetry.io/docs/specs/otel/overview/#links-between-spans.
    """
    if _now.tracing is None:
        return _OFF
    return _within(_now.tracing.begin_caused(name, attributes, cause, is_awaited))


def serve(name: str, attributes: Attributes, headers: Mapping[str, str]) -> "Span | None":
    """A span for a request, which the caller ends. `headers`, by their names in lower case: the client's span is the
    parent if there is a `traceparent` among them: https://www.w3.org/TR/trace-context/."""
    return None if _now.tracing is None else _now.tracing.serve(name, attributes, headers)


def traceparent() -> str | None:
    """The context's span, as W3C's header `traceparent` names it; None without one."""
    now = context.current().span
    return None if _now.tracing is None or now is None else _now.tracing.traceparent(now)


def put(made: "Span | None", attributes: Attributes) -> None:
    """Add attributes to a span."""
    if made is not None:
        made.set_attributes({name: value for name, value in attributes.items() if value is not None})


def content(made: "Span | None", attributes: Callable[[], Mapping[str, str]]) -> None:
    """Add attributes with content to a span, if content is wanted."""
    if _now.tracing is not None and _now.tracing.with_content and made is not None:
        made.set_attributes(_now.tracing.shown(attributes()))


def fail(made: "Span | None", kind: str) -> None:
    """Note that what the span is about has failed. `kind`: the error's type or code; a message may be content."""
    if _now.tracing is not None and made is not None:
        _now.tracing.fail(made, kind)


def end(made: "Span | None", at: float | None = None) -> None:
    """End a span, now or `at` so many seconds since 1970."""
    if made is not None:
        made.end(None if at is None else int(at * 1e9))


@contextmanager
def _within(made: "Span | None") -> "Iterator[Span | None]":
    try:
        with context.scope(span=made):
            yield made
    except BaseException as error:
        fail(made, kind_of(error))
        raise
    finally:
        end(made)


def kind_of(error: BaseException) -> str:
    """The code of one of Hearth's errors, or the name of another one's class."""
    return str(getattr(error, "code", None) or type(error).__name__)


# Model calls


def begin_model_call(
    operation: Literal["chat", "text_completion"],
    model: str | None,
    provider: str = OURS,
    address: str | None = None,
    max_tokens: int | None = None,
) -> "Span | None":
    """A span for a call of a model, which the caller ends with `end_model_call`. `address`: of the server that is
    asked; None: unknown, or this process."""
    if _now.tracing is None:
        return None
    attributes = {
        names.OPERATION: operation,
        names.PROVIDER: provider,
        names.REQUEST_MODEL: model,
        names.MAX_TOKENS: max_tokens,
        names.SERVER: address,
        names.QUEUE_SECONDS: context.current().queued_seconds,
    }
    return begin(
        f"{operation} {model}" if model else operation, attributes, "internal" if provider == OURS else "client"
    )


def end_model_call(made: "Span | None", call: "ModelCall", was_cut: bool, error: BaseException | None) -> None:
    """End the span of `call`. `was_cut`: at its limit of tokens. `error`: what has ended it, if it failed."""
    if made is None:
        return
    used = call.usage
    finish = FAILED if error is not None else CUT if was_cut else DONE
    sampled = {names.SAMPLING[name]: value for name, value in call.sampling.items() if name in names.SAMPLING}
    put(
        made,
        {
            names.INPUT_TOKENS: used.prompt_tokens,
            names.CACHED_TOKENS: used.cached_tokens,
            names.OUTPUT_TOKENS: used.completion_tokens + used.forced_tokens,
            names.FORCED_TOKENS: used.forced_tokens,
            names.FORWARD_PASSES: used.forward_passes or None,
            names.FINISH_REASONS: [finish],
            names.FIRST_CHUNK_SECONDS: call.first_seconds,
            **sampled,
        },
    )
    if error is not None:
        fail(made, kind_of(error))
    content(made, lambda: _messages(call, finish))
    end(made)


def _messages(call: "ModelCall", finish: str) -> dict[str, str]:
    import json

    said = [{"role": "user", "content": call.prompt}] if call.kind == "text" else json.loads(call.prompt)
    asked = [{"role": one["role"], "parts": [_text(one["content"])]} for one in said]
    written = [{"role": "assistant", "parts": [_text(call.written)], "finish_reason": finish}]
    return {names.INPUT_MESSAGES: json.dumps(asked), names.OUTPUT_MESSAGES: json.dumps(written)}


def _text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}
