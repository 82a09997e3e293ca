"""Traces: a real server exports spans to a receiver that decodes them. What belongs together has one trace, whole."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from server.observability.logs import redacted
from server.observability.otlp import Tracing
from tests.support.event_stream import EVENT_STREAM, read
from tests.support.job_tools import ended, put_tools
from tests.support.model_api import Fault
from tests.support.otlp_collector import Collector, ReceivedSpan, client_span, new_trace, traceparent
from tests.support.scripted_api import Messages, ScriptedApi
from tests.support.server_process import REPOSITORY, Server, clean_environment, end, start
from tests.support.wire_formats import Request

QUESTION = "What is 37 * 52?"
AGENT_SPAN = "invoke_agent react"
CODE = "print(6 * 7)"
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
"""Spans are exported after a tenth of a second."""


def act(messages: Messages) -> dict[str, Any]:
    """The script of the scripted model."""
    observed = [one["content"] for one in messages if one["content"].startswith("Observation:")]
    if observed:
        return {"answer": observed[-1]}
    asked = messages[-1]["content"]
    if asked.startswith("alone"):
        return {"action": "alone", "action_input": {"word": "secret-word"}}
    if asked.startswith("talk"):
        return {"action": "talk", "action_input": {"lines": 2}}
    return {"action": "nap", "action_input": {"seconds": 0.1, "word": "secret-word"}}


class CodingApi(ScriptedApi):
    """Writes `CODE` when code is asked for."""

    def reply(self, request: Request) -> tuple[str, int, int]:
        """See `ModelApi`."""
        parts = {} if request.schema is None else request.schema.get("properties", {})
        if "answers" in parts:
            return json.dumps({"answers": True, "problem": ""}), 1, 1
        if request.schema is None:
            return f"```python\n{CODE}\n```", 1, 1
        return super().reply(request)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector().serving() as serving:
        yield serving


def started(folder: Path, variables: dict[str, str], **settings: object) -> Server:
    """A server with the SDK's `variables` in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return start(folder, REPOSITORY, settings)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Server]:
    """A server with the embedded model, that exports no content."""
    variables = {**FAST, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=key-of-the-collector"}
    server = started(tmp_path_factory.mktemp("lab") / "server", variables, OTLP_ENDPOINT=collector.url)
    try:
        server.wait_until_ready()
        yield server
    finally:
        end(server)


@pytest.fixture(scope="module")
def api() -> Iterator[ScriptedApi]:
    with CodingApi(act).serving() as serving:
        yield serving  # type: ignore[misc]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, collector: Collector, api: ScriptedApi) -> Iterator[Server]:
    """A server with a scripted model behind an API, that exports content, under a name of its own."""
    server = started(
        tmp_path_factory.mktemp("scripted") / "server",
        {**FAST, "OTEL_SERVICE_NAME": "other-lab", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
        MODEL="openai:scripted",
        BASE_URL=f"{api.url}/v1",
        OTLP_ENDPOINT=f"{collector.url}/",
        OTLP_CONTENT="on",
    )
    try:
        server.wait_until_ready()
        put_tools(server, "jobs")
        yield server
    finally:
        end(server)


def ask(server: Server, trace: str, question: str = QUESTION, **more: Any) -> dict[str, Any]:
    answer = server.session.post("/run_script", json={"question": question, **more}, headers=traceparent(trace))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def named(spans: list[ReceivedSpan], beginning: str) -> list[ReceivedSpan]:
    return [one for one in spans if one.name.startswith(beginning)]


def test_a_run_with_a_tool(lab: Server, collector: Collector) -> None:
    trace = new_trace()
    answer = ask(lab, trace)
    spans = collector.trace(trace, "POST /run_script")
    [request] = named(spans, "POST")
    assert (request.parent, request.kind) == (client_span(trace), "server")
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/run_script",
        "url.path": "/run_script",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "hearth.request.id": request.attributes["hearth.request.id"],
    }
    assert f" {request.attributes['hearth.request.id']} " in lab.output  # in the lines of the log
    [run] = named(spans, AGENT_SPAN)
    assert (run.parent, run.kind, run.failed) == (request.id, "internal", False)
    about = run.attributes
    assert about["gen_ai.operation.name"] == "invoke_agent" and about["gen_ai.agent.name"] == "react"
    assert about["hearth.run.id"] == answer["run_id"] and about["hearth.generation"] == answer["generation"]
    assert about["hearth.run.steps"] == 1 and about["hearth.queue.seconds"] >= 0
    calls = named(spans, "text_completion embedded")
    assert calls and all((one.parent, one.kind) == (run.id, "internal") for one in calls)
    for one in calls:
        assert one.attributes["gen_ai.request.model"] == "embedded" == answer["model"]
        assert one.attributes["gen_ai.response.finish_reasons"] == ["stop"]
        assert one.attributes["gen_ai.response.time_to_first_chunk"] <= one.ended - one.began
        assert one.attributes["hearth.queue.seconds"] >= 0
    for name, counted in (("input", "prompt_tokens"), ("cache_read.input", "cached_tokens")):
        key = f"gen_ai.usage.{name}_tokens"
        assert sum(one.attributes[key] for one in calls) == answer["usage"][counted] == about[key]
    written = answer["usage"]["completion_tokens"] + answer["usage"]["forced_tokens"]
    assert sum(one.attributes["gen_ai.usage.output_tokens"] for one in calls) == written
    [tool] = named(spans, "execute_tool")
    assert tool.name == "execute_tool calculator" and (tool.parent, tool.kind) == (run.id, "internal")
    assert tool.attributes["gen_ai.tool.name"] == "calculator"
    assert run.began <= calls[0].began <= tool.began <= tool.ended <= run.ended <= request.ended
    assert {one.resource["service.name"] for one in spans} == {"hearth"}
    assert collector.requests[0]["x-key"] == "key-of-the-collector" and "key-of-the-collector" not in lab.output


def test_no_content_unless_it_is_wanted(lab: Server, collector: Collector) -> None:
    trace = new_trace()
    answer = ask(lab, trace, "What is 123 * 457, in words that nobody may see?")
    spans = collector.trace(trace, "POST /run_script")
    for text in ("nobody may see", answer["answer"], "123"):
        assert text not in str([one.attributes for one in spans])
    assert lab.token not in str(spans)


def test_a_failed_run_says_of_what_kind_its_error_is(lab: Server, collector: Collector) -> None:
    trace = new_trace()
    refused = lab.session.post("/run_script", json={"question": "x", "agent": "nobody"}, headers=traceparent(trace))
    assert refused.status_code == 404
    spans = collector.trace(trace, "POST /run_script")
    [run] = named(spans, "invoke_agent nobody")
    assert run.failed and run.attributes["error.type"] == refused.json()["error"]["type"]
    [request] = named(spans, "POST")
    assert not request.failed  # it is the client's error


def test_a_tool_that_ends_its_worker(lab: Server, collector: Collector) -> None:
    text = (
        "import os\nfrom langchain_core.tools import tool\n\n"
        '@tool\ndef calculator(expression: str) -> str:\n    """Work out an arithmetic expression."""\n'
        "    os._exit(3)\n"
    )
    put = lab.session.put("/workspaces/ending/files/tools/calculator.py", data=text.encode())
    assert put.status_code in (200, 201)
    trace = new_trace()
    body = {"question": QUESTION, "workspace": "ending"}
    assert lab.session.post("/run_script", json=body, headers=traceparent(trace)).status_code == 502
    spans = collector.trace(trace, "POST /run_script")
    [run], [tool], [request] = (named(spans, name) for name in (AGENT_SPAN, "execute_tool", "POST"))
    assert tool.parent == run.id and run.attributes["error.type"] == "worker_crashed"
    assert tool.failed and tool.attributes["error.type"] == "not_ended"
    assert request.failed and request.attributes["error.type"] == "502"


def test_what_is_refused_has_a_span_and_an_unknown_route_no_path_in_its_name(
    lab: Server, collector: Collector
) -> None:
    trace = new_trace()
    assert lab.session.get("/runs", headers={"Authorization": "Bearer no", **traceparent(trace)}).status_code == 401
    [request] = collector.trace(trace, "GET /runs")
    assert request.attributes["http.response.status_code"] == 401
    trace = new_trace()
    assert lab.session.get("/nowhere?token=abc", headers=traceparent(trace)).status_code == 404
    [request] = collector.trace(trace, "GET")
    assert request.attributes["url.path"] == "/nowhere" and "abc" not in str(request)


def test_the_model_alone(lab: Server, collector: Collector) -> None:
    trace = new_trace()
    body: dict[str, Any] = {
        "model": "embedded",
        "prompt": "One, two,",
        "max_tokens": 3,
        "n": 2,
        "temperature": 0.5,
        "seed": 1,
    }
    got = lab.session.post("/v1/completions", json=body, headers=traceparent(trace))
    assert got.status_code == 200, got.text
    spans = collector.trace(trace, "POST /v1/completions")
    [run], calls = named(spans, "run"), named(spans, "text_completion embedded")
    assert not named(spans, "invoke_agent") and [one.parent for one in calls] == [run.id] * 2
    assert calls[0].attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert calls[0].attributes["gen_ai.request.temperature"] == 0.5


def test_a_streamed_answer_ends_its_span_with_the_stream(lab: Server, collector: Collector) -> None:
    trace = new_trace()
    headers = {**EVENT_STREAM, **traceparent(trace)}
    with lab.session.post("/run_script", json={"question": QUESTION}, headers=headers, stream=True) as stream:
        assert [event.kind for event in read(stream)][-1] == "answer"
    spans = collector.trace(trace, "POST /run_script")
    [request], [run] = named(spans, "POST"), named(spans, AGENT_SPAN)
    assert run.parent == request.id and request.ended >= run.ended


def test_a_fork_names_its_run(lab: Server, collector: Collector) -> None:
    run_id = ask(lab, new_trace())["run_id"]
    trace = new_trace()
    body: dict[str, Any] = {"step": 2, "observation": "1924"}
    got = lab.session.post(f"/runs/{run_id}/fork", json=body, headers=traceparent(trace))
    assert got.status_code == 200, got.text
    spans = collector.trace(trace, "POST /runs/<run_id>/fork")
    [run] = named(spans, AGENT_SPAN)
    assert run.attributes["hearth.run.forked_from"] == run_id
    assert not named(spans, "execute_tool")  # its result was given


def test_runs_of_two_people_beside_each_other(lab: Server, collector: Collector) -> None:
    for workspace in ("ann", "ben"):
        assert lab.session.put(f"/workspaces/{workspace}/files/tools/note.txt", data=b"x").status_code in (200, 201)
    asked = [(new_trace(), workspace) for _ in range(4) for workspace in ("ann", "ben")]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda one: ask(lab, one[0], workspace=one[1]), asked))
    for (trace, workspace), answer in zip(asked, answers, strict=True):
        spans = collector.trace(trace, "POST /run_script")
        [run] = named(spans, AGENT_SPAN)
        assert (run.attributes["hearth.run.id"], run.attributes["hearth.workspace"]) == (answer["run_id"], workspace)
        assert len(named(spans, "execute_tool calculator")) == 1
        calls = named(spans, "text_completion")
        assert sum(one.attributes["gen_ai.usage.input_tokens"] for one in calls) == answer["usage"]["prompt_tokens"]


def test_reloads_and_loads_of_models(lab: Server, collector: Collector) -> None:
    begun = collector.wait_for("load model", attributes={"gen_ai.request.model": "embedded"})
    assert begun.parent == ""
    trace = new_trace()
    text = b"def f(:\n"
    assert lab.session.put("/workspaces/broken/files/tools/broken.py", data=text).status_code in (200, 201)
    got = lab.session.post("/reload_modules", json={"workspace": "broken"}, headers=traceparent(trace))
    assert got.status_code == 422
    spans = collector.trace(trace, "POST /reload_modules")
    [reload], [load] = named(spans, "reload"), named(spans, "load code")
    assert load.parent == reload.id and reload.failed and reload.attributes["error.type"] == "reload_failed"


def test_monitoring_makes_no_spans(lab: Server, collector: Collector) -> None:
    lab.health()
    trace = new_trace()
    lab.session.get("/runs", headers=traceparent(trace))
    collector.trace(trace, "GET /runs")
    assert not [one for one in collector.spans() if one.attributes.get("url.path") in ("/health", "/metrics")]


def test_a_run_of_the_coder_in_the_sandbox(scripted: Server, collector: Collector) -> None:
    trace = new_trace()
    answer = ask(scripted, trace, "What is six times seven?", agent="coder", session_id="coding")
    assert answer["steps"][0]["observation"] == "42"
    spans = collector.trace(trace, "POST /run_script")
    [run], [cell] = named(spans, "invoke_agent coder"), named(spans, "run cell")
    assert cell.parent == run.id and not cell.failed
    assert cell.attributes["hearth.session.id"] == "coding" and cell.attributes["hearth.cell.number"] == 1
    calls = named(spans, "chat openai:scripted")
    assert calls and {(one.kind, one.attributes["gen_ai.provider.name"]) for one in calls} == {("client", "openai")}
    requests = named(spans, "request")
    assert {one.parent for one in requests} == {one.id for one in calls}
    assert {one.attributes["server.address"] for one in requests} == {"127.0.0.1"}
    assert {one.resource["service.name"] for one in spans} == {"other-lab"}


def test_code_without_a_run(scripted: Server, collector: Collector) -> None:
    trace = new_trace()
    got = scripted.session.post(
        "/sessions/cells/code", json={"code": "1/0"}, headers={**traceparent(trace), "Accept": "application/json"}
    )
    assert got.status_code == 200, got.text
    spans = collector.trace(trace, "POST /sessions/<session_id>/code")
    [cell] = named(spans, "run cell")
    assert cell.failed and cell.attributes["error.type"] == "ZeroDivisionError"


def test_a_request_that_is_sent_again(scripted: Server, collector: Collector, api: ScriptedApi) -> None:
    api.faults.append(Fault(status=503))
    trace = new_trace()
    ask(scripted, trace, "alone", workspace="jobs")
    spans = collector.trace(trace, "POST /run_script")
    first, again, *_ = named(spans, "request")
    assert first.parent == again.parent and first.failed and not again.failed
    assert again.attributes["http.request.resend_count"] == 1


def test_content_if_it_is_wanted(scripted: Server, collector: Collector) -> None:
    trace = new_trace()
    answer = ask(scripted, trace, "What is six times seven?", agent="coder")
    spans = collector.trace(trace, "POST /run_script")
    call = named(spans, "chat")[-1]
    [*_, last] = json.loads(call.attributes["gen_ai.input.messages"])
    assert last["role"] == "user" and "six times seven" in last["parts"][0]["content"]
    [written] = json.loads(call.attributes["gen_ai.output.messages"])
    assert written["finish_reason"] == "stop" and written["parts"][0]["content"].strip() in answer["answer"]


def test_input_and_result_of_a_tool_if_they_are_wanted(scripted: Server, collector: Collector) -> None:
    trace = new_trace()
    ask(scripted, trace, "talk", workspace="jobs")
    spans = collector.trace(trace, "POST /run_script")
    [tool] = named(spans, "execute_tool talk")
    assert json.loads(tool.attributes["gen_ai.tool.call.arguments"]) == {"lines": 2}
    assert tool.attributes["gen_ai.tool.call.result"] == "said"


def test_a_job_in_the_background_has_a_trace_with_a_link(scripted: Server, collector: Collector) -> None:
    trace = new_trace()
    ask(scripted, trace, "nap", workspace="jobs")
    spans = collector.trace(trace, "POST /run_script")
    [run] = named(spans, AGENT_SPAN)
    job = collector.wait_for("job nap")
    ended(scripted, job.attributes["hearth.job.id"])
    assert job.parent == "" and job.links == ((trace, run.id),)
    spans = collector.trace(job.trace, "job nap")
    [tool] = named(spans, "execute_tool nap")
    assert tool.parent == job.id and [one.parent for one in named(spans, "load code")] == [job.id]


def test_a_job_that_is_waited_for_belongs_to_the_run(scripted: Server, collector: Collector) -> None:
    trace = new_trace()
    ask(scripted, trace, "alone", workspace="jobs")
    spans = collector.trace(trace, "POST /run_script")
    [run], [job], [tool] = (named(spans, name) for name in (AGENT_SPAN, "job alone", "execute_tool alone"))
    assert (job.parent, tool.parent) == (run.id, job.id)


def test_the_end_of_the_server_exports_what_is_left(tmp_path: Path, collector: Collector) -> None:
    variables = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    server = started(tmp_path / "server", variables, AUTOLOAD=0, OTLP_ENDPOINT=collector.url)
    trace = new_trace()
    try:
        server.session.get("/runs", headers=traceparent(trace))
        assert not [one for one in collector.spans() if one.trace == trace]
        assert server.stop() == 0
    finally:
        end(server)
    assert [one.name for one in collector.spans() if one.trace == trace] == ["GET /runs"]


def test_a_collector_that_is_dead_costs_a_line_of_the_log(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    variables = {**FAST, "OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_BSP_MAX_QUEUE_SIZE": "4",
                 "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}  # fmt: skip
    server = started(tmp_path / "server", variables, AUTOLOAD=0, OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
    try:
        server.wait_until(lambda: server.session.get("/runs").ok and "spans" in server.output, "a line")
        for _ in range(20):
            assert server.session.get("/runs").status_code == 200
        assert server.stop() == 0
    finally:
        end(server)
    lines = [line for line in server.output.splitlines() if "opentelemetry" in line]
    assert len([line for line in lines if "exporter" in line]) == 1 and len(lines) <= 2, server.output


def test_a_collector_that_never_answers_does_not_keep_the_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        variables = {**FAST, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
        server = started(tmp_path / "server", variables, AUTOLOAD=0, OTLP_ENDPOINT=url)
        try:
            assert server.session.get("/runs").status_code == 200
            assert server.stop() == 0
        finally:
            end(server)


def begins(folder: Path, code: str = "", **settings: object) -> "subprocess.CompletedProcess[str]":
    """`python app.py`, after `code`, to its end."""
    program = f"import runpy, sys\n{code}\nrunpy.run_path('{REPOSITORY}/app.py', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, '{REPOSITORY}')\n{program}"],
        cwd=folder,
        env=clean_environment(folder, {"HOST": "127.0.0.1", "PORT": 0, "DATA_DIR": folder / "data", **settings}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_keys_of_the_collector_are_hidden_as_the_sdk_reads_them(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20a-key-of-the-lab")
    Tracing(collector.url, with_content=False, version="0").close()
    assert "a-key" not in redacted("refused: Basic a-key-of-the-lab, as Basic%20a-key-of-the-lab was sent")


def test_texts_that_are_no_utf8_cost_no_other_spans(collector: Collector) -> None:
    traces = Tracing(collector.url, with_content=True, version="0")
    made = traces.begin("execute_tool \ud800", {"tool": "\ud800" * 5000}, "internal", None, None)
    made.set_attributes(traces.shown({"content": "\udfff"}))
    made.end()
    traces.close()
    span = collector.wait_for("execute_tool ?")
    assert span.attributes == {"tool": "?" * 1000, "content": "?"}


def test_a_missing_package_stops_the_start(tmp_path: Path) -> None:
    done = begins(tmp_path, "sys.modules['opentelemetry.sdk'] = None", OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert done.returncode == 1
    assert "HEARTH_OTLP_ENDPOINT is set" in done.stderr
    assert "pip install -r requirements-telemetry.txt" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "variables", "said"),
    [
        ({"OTLP_ENDPOINT": "collector:4318"}, {}, "HEARTH_OTLP_ENDPOINT is"),
        ({"OTLP_ENDPOINT": "http://127.0.0.1:1"}, {"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, "OTEL_ variable"),
    ],
    ids=["endpoint", "variable"],
)
def test_a_bad_value_stops_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    variables: dict[str, str],
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = begins(tmp_path, **settings)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr


def test_without_the_setting_nothing_of_opentelemetry_is_imported() -> None:
    code = "import sys, app\nprint([one for one in sys.modules if one.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_collectors_key_is_hidden_from_tools(lab: Server) -> None:
    text = (
        "import os\nfrom langchain_core.tools import tool\n\n"
        '@tool\ndef calculator(expression: str) -> str:\n    """Work out an arithmetic expression."""\n'
        "    return str([name for name in os.environ if name.startswith('OTEL_EXPORTER')])\n"
    )
    put = lab.session.put("/workspaces/curious/files/tools/calculator.py", data=text.encode())
    assert put.status_code in (200, 201)
    answer = ask(lab, new_trace(), workspace="curious")
    assert answer["steps"][0]["observation"] == "[]"
