"""Spans made by OpenTelemetry's SDK, and exported by OTLP over HTTP. Imported only if spans are wanted.

The SDK reads its own environment variables, such as OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and
OTEL_EXPORTER_OTLP_HEADERS:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.bounds import shortened
from server.observability import logs
from server.observability import semantic_conventions as names
from server.observability.tracing import COLLECTOR_HEADERS

NAME = "hearth"
TRACES_PATH = "/v1/traces"
LONGEST_NAME = 200
LONGEST_VALUE = 1000
"""Maximum length of an attribute, in characters: some come from people's code."""
LONGEST_CONTENT = 100_000
CLOSE_SECONDS = 3.0
"""Maximum time for exporting what is left at the server's end."""
REPORT_SECONDS = 600.0
"""Minimum interval between log lines about a collector that does not take spans."""
LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
"""Those of the exporter and of the queue before it."""

_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}


class Tracing:
    """Makes spans, and exports them in batches from a thread of its own. If its queue is full, spans are dropped.
    Safe for any number of threads."""

    def __init__(self, endpoint: str, with_content: bool, version: str) -> None:
        """See `server.observability.tracing.start`."""
        self.with_content = with_content
        for name in COLLECTOR_HEADERS:
            for pair in os.environ.get(name, "").split(","):
                # The SDK decodes the values.
                value = pair.partition("=")[2].strip()
                logs.hide(value)
                logs.hide(unquote(value))
        for name in LOGGERS:
            logging.getLogger(name).addFilter(_Seldom())
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + TRACES_PATH)
        self._provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(NAME, version)
        self._headers = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Export what is left, for `CLOSE_SECONDS` at most."""
        # The SDK itself would wait for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def begin(
        self, name: str, attributes: Mapping[str, Any], kind: str, began: float | None, parent: Span | None
    ) -> Span:
        """See `server.observability.tracing.begin`. `parent` None: the span is the first of a trace."""
        # An own context: the SDK's one belongs to people's code, should it use the SDK in this process.
        within = Context() if parent is None else trace.set_span_in_context(parent, Context())
        return self._begin(name, attributes, _KINDS[kind], within, began)

    def begin_caused(self, name: str, attributes: Mapping[str, Any], cause: str | None, is_awaited: bool) -> Span:
        """See `server.observability.tracing.caused`."""
        within = Context() if cause is None else self._headers.extract({"traceparent": cause}, Context())
        if is_awaited or cause is None:
            return self._begin(name, attributes, SpanKind.INTERNAL, within)
        links = [Link(trace.get_current_span(within).get_span_context())]
        return self._begin(name, attributes, SpanKind.INTERNAL, Context(), links=links)

    def serve(self, name: str, attributes: Mapping[str, Any], headers: Mapping[str, str]) -> Span:
        """See `server.observability.tracing.serve`."""
        return self._begin(name, attributes, SpanKind.SERVER, self._headers.extract(headers, Context()))

    def _begin(
        self,
        name: str,
        attributes: Mapping[str, Any],
        kind: SpanKind,
        within: Context,
        began: float | None = None,
        links: list[Link] | None = None,
    ) -> Span:
        given = {
            key: _utf8(value[:LONGEST_VALUE]) if isinstance(value, str) else value
            for key, value in attributes.items()
            if value is not None
        }
        start = None if began is None else int(began * 1e9)
        return self._tracer.start_span(_utf8(name[:LONGEST_NAME]), within, kind, given, links, start_time=start)

    def traceparent(self, span: Span) -> str | None:
        """See `server.observability.tracing.traceparent`."""
        carrier: dict[str, str] = {}
        self._headers.inject(carrier, trace.set_span_in_context(span, Context()))
        return carrier.get("traceparent")

    def fail(self, span: Span, kind: str) -> None:
        """See `server.observability.tracing.fail`."""
        span.set_attribute(names.ERROR, _utf8(kind[:LONGEST_VALUE]))
        span.set_status(Status(StatusCode.ERROR))

    def shown(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """Attributes with content, without registered secrets, and shortened."""
        return {key: _utf8(logs.redacted(shortened(text, LONGEST_CONTENT))) for key, text in attributes.items()}


def _utf8(text: str) -> str:
    """`text` without lone surrogates: with one, the whole batch could not be exported."""
    return text.encode(errors="replace").decode()


def _resource(version: str) -> Resource:
    """The server, as OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME describe it; without them its name is hearth."""
    found = Resource.create()
    own = {SERVICE_VERSION: found.attributes.get(SERVICE_VERSION) or version}
    if str(found.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        own[SERVICE_NAME] = NAME
    return found.merge(Resource(own))


class _Seldom(logging.Filter):
    """Lets one line through, and then none for `REPORT_SECONDS`; a line after that says how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return False
        if self._left_out:
            record.msg = f"{record.getMessage()} ({self._left_out} such lines are left out)"
            record.args = ()
        self._next, self._left_out = now + REPORT_SECONDS, 0
        return True
