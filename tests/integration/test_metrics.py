"""`GET /metrics` of a real server, read as Prometheus would."""

from collections.abc import Callable

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server_process import Server


def read(server: Server) -> dict[tuple[str, str], float]:
    """Values by name and the one label's value."""
    answer = server.session.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_a_question_costs_is_counted(start_server: Callable[..., Server]) -> None:
    server = start_server()
    before = read(server)
    answer = server.session.post("/run_script", json={"question": "What is 37 * 52?"}).json()
    server.session.post("/run_script", json={"question": "What is 1 / 0?"})
    server.session.post("/reload_modules")
    after = read(server)
    assert after[("hearth_runs_ended_total", "done")] == 2
    assert after[("hearth_tool_seconds_count", "calculator")] == 2
    assert after[("hearth_tool_failures_total", "calculator")] == 1
    assert after[("hearth_reloads_total", "done")] >= 1
    usage = answer["usage"]
    assert after[("hearth_tokens_total", "completion")] > usage["completion_tokens"]
    assert after[("hearth_tokens_total", "prompt")] > usage["prompt_tokens"]
    passes = after[("hearth_forward_passes_total", "")] - before[("hearth_forward_passes_total", "")]
    assert passes > usage["forward_passes"]
    assert after[("hearth_batch_sequences_count", "")] == after[("hearth_forward_passes_total", "")]
    assert after[("hearth_kv_bytes", "")] > 0
    assert after[("hearth_model_bytes", "")] > 1_000_000
    assert after[("hearth_runs", "running")] == 0


def test_a_reload_that_fails_is_counted(start_server: Callable[..., Server]) -> None:
    server = start_server()
    server.session.put("/workspaces/alice/files/tools/broken.py", data=b"def (").raise_for_status()
    assert server.session.post("/reload_modules", json={"workspace": "alice"}).status_code == 422
    assert read(server)[("hearth_reloads_total", "failed")] == 1


def test_metrics_want_the_token(start_server: Callable[..., Server]) -> None:
    server = start_server()
    assert requests.get(server.url + "/metrics", timeout=60).status_code == 401


def test_cells_of_code(server: Server) -> None:
    before = read(server)
    for code in ("1", "1 / 0"):
        assert server.session.post("/sessions/metrics/code", json={"code": code}).ok
    after = read(server)
    for outcome in ("succeeded", "failed"):
        name = ("hearth_cell_seconds_count", outcome)
        assert after[name] == before.get(name, 0) + 1
    assert after[("hearth_sandboxes", "idle")] >= 1
    assert after[("hearth_sandboxes_started_total", "")] >= 1
