"""A receiver of OTLP over HTTP: it decodes what a server exports, and keeps the spans."""

import gzip
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class ReceivedSpan:
    """A span. Ids in hexadecimal digits; `parent` is empty for the first one of a trace. Times in seconds."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    began: float
    ended: float
    failed: bool
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace and span of each."""
    resource: dict[str, Any] = field(repr=False)


class Collector:
    """The receiver. `requests`: the headers of each request."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        self._spans: list[ReceivedSpan] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"collector": self}))
        self._server.daemon_threads = True
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["Collector"]:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def take(self, data: bytes) -> None:
        """An export has come."""
        found = list(_decoded(ExportTraceServiceRequest.FromString(data)))
        with self._changed:
            self._spans += found
            self._changed.notify_all()

    def spans(self) -> list[ReceivedSpan]:
        """All that have come."""
        with self._changed:
            return list(self._spans)

    def wait_for(
        self, name: str, trace: str | None = None, attributes: Mapping[str, Any] = MappingProxyType({})
    ) -> ReceivedSpan:
        """The first span with this name, trace and attributes, as soon as it has come."""

        def found() -> ReceivedSpan | None:
            return next(
                (
                    one
                    for one in self._spans
                    if one.name == name and trace in (None, one.trace)
                    if all(one.attributes.get(key) == value for key, value in attributes.items())
                ),
                None,
            )

        with self._changed:
            self._changed.wait_for(found, WAIT_SECONDS)
            span = found()
        assert span is not None, f"no span {name!r} in {[(one.name, one.trace) for one in self.spans()]}"
        return span

    def trace(self, trace: str, last: str) -> list[ReceivedSpan]:
        """The spans of a trace, in the order of their beginnings, as soon as the one called `last` has come."""
        self.wait_for(last, trace)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            of_trace = [one for one in self.spans() if one.trace == trace]
            ids = {one.id for one in of_trace}
            if all(one.parent in ids or one.parent in ("", client_span(trace)) for one in of_trace):
                return sorted(of_trace, key=lambda one: one.began)
            assert time.monotonic() < deadline, f"parents are missing: {of_trace}"
            time.sleep(0.02)


def traceparent(trace: str) -> dict[str, str]:
    """The header with which a client says that its request belongs to a trace."""
    return {"traceparent": f"00-{trace}-{client_span(trace)}-01"}


def new_trace() -> str:
    """The id of a trace of a client."""
    return secrets.token_hex(16)


def client_span(trace: str) -> str:
    """The id of the client's own span, which it exports elsewhere."""
    return trace[:16]


def _decoded(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for group in request.resource_spans:
        resource = {one.key: _value(one.value) for one in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    KINDS[span.kind],
                    span.start_time_unix_nano / 1e9,
                    span.end_time_unix_nano / 1e9,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    {one.key: _value(one.value) for one in span.attributes},
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    resource,
                )


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [_value(one) for one in value.array_value.values]
    return None if which is None else getattr(value, which)


class _Handler(BaseHTTPRequestHandler):
    collector: Collector
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.collector.requests.append({name.lower(): value for name, value in self.headers.items()})
        if self.path != "/v1/traces":
            return self.send_error(404)
        self.collector.take(gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data)
        reply = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)
