"""`GET /metrics`: what is counted and how things stand, for Prometheus."""

import sys
from collections.abc import Iterator
from contextlib import suppress

from flask import Response
from flask_openapi3 import APIBlueprint
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import server.observability.metrics  # noqa: F401  so that all are there from the start
from server.errors import StoreError
from server.host import Host
from server.http.access import access


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("metrics", __name__)
    standing = CollectorRegistry()
    standing.register(_Standing(host))

    @routes.get(
        "/metrics",
        summary="What is counted, in Prometheus' text format",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    @access("read", "nobody")
    def metrics() -> Response:
        return Response(generate_latest(REGISTRY) + generate_latest(standing), content_type=CONTENT_TYPE_LATEST)

    return routes


class _Standing(Collector):
    """How things stand at this moment."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def collect(self) -> Iterator[GaugeMetricFamily]:
        states = [run.state for run in self._host.runs.in_flight()]
        runs = GaugeMetricFamily("hearth_runs", "Questions in flight", labels=["state"])
        for state in ("queued", "running"):
            runs.add_metric([state], states.count(state))
        yield runs
        jobs = GaugeMetricFamily("hearth_jobs", "Jobs that have not ended", labels=["state"])
        for state, count in self._host.jobs.counts().items():
            jobs.add_metric([state], count)
        yield jobs
        sandboxes = self._host.sandboxes.health()
        interpreters = GaugeMetricFamily("hearth_sandboxes", "Sessions that have an interpreter", labels=["state"])
        interpreters.add_metric(["running"], sandboxes["running"])
        interpreters.add_metric(["idle"], sandboxes["interpreters"] - sandboxes["running"])
        yield interpreters
        documents = GaugeMetricFamily("hearth_documents", "Documents", labels=["state"])
        with suppress(StoreError):  # the other numbers matter then
            for state, count in self._host.documents.store.counts().items():
                documents.add_metric([state], count)
            yield documents
        models = self._host.models
        yield GaugeMetricFamily("hearth_kv_bytes", "KV memory", value=models.kv_bytes)
        weights = sum(model.memory_bytes or 0 for model in models.all)
        yield GaugeMetricFamily("hearth_model_bytes", "The models' weights", value=weights)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            used = torch.cuda.memory_allocated()
            yield GaugeMetricFamily("hearth_gpu_bytes", "GPU memory that this process has allocated", value=used)
