"""Grammars, schemas and patterns that take minutes or gigabytes: each costs its own request and nobody else."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import requests
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from server.grammar_check.bounds import COMPILE_BYTES, COMPILE_SECONDS
from tests.support.faults import family
from tests.support.health_probe import probed
from tests.support.hostile_schemas import HOSTILE, SLOW_PATTERN, completion, schemas, with_tool
from tests.support.server_process import REPOSITORY, Server, Session, end, start

CHAT = "/v1/chat/completions"
FRESH = itertools.count()
ALLOWED_GROWTH = 800 * 2**20
"""Bytes. The allocator keeps for each thread what its largest grammar and prompt took: hundreds of megabytes. What
this must find are gigabytes that are never freed."""

STANDSTILL_SECONDS = 5.0
"""A deadline, and no measure, for all but the slowest answer in a hundred of `/health`: a grammar that is compiled in
the server makes everybody wait for ten seconds or more."""

AGENT = """
import json

from server.sdk import Prepared


class CustomAgentGuidance:
    def __init__(self, model, tools, max_steps, tool_seconds):
        self.model = model

    def __call__(self, question):
        words = json.dumps({"grammars": [json.loads(question)], "max_tokens": 500})
        return str(self.model.program() + "Once" + Prepared(words))
"""
TOOL = '''
from typing import Annotated

from langchain_core.tools import tool
from pydantic import Field


@tool
def many(numbers: Annotated[list[int], Field(%s)]) -> str:
    """Adds numbers."""
    return str(sum(numbers))
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Shared by this file's tests: each must leave it as it was."""
    started = start(tmp_path_factory.mktemp("hostile") / "server", REPOSITORY, {"MAX_CONCURRENT_RUNS": 8})
    try:
        started.wait_until_ready()
        yield started
    finally:
        end(started)


@contextmanager
def unharmed(server: Server) -> Iterator[Callable[[], int]]:
    """The server must live on, with hardly more memory, and answer questions. Another client asks for `/health` again
    and again; gives the number of its answers so far."""
    process = psutil.Process(server.process.pid)
    before, answered, stop = process.memory_info().rss, itertools.count(), threading.Event()
    count = 0

    def ask() -> None:
        nonlocal count
        with requests.Session() as session:
            while not stop.is_set():
                assert session.get(f"{server.url}/health", timeout=60).status_code == 200
                count = next(answered) + 1

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield lambda: count
        finally:
            stop.set()
        asking.result()
    assert server.process.poll() is None, server.output
    assert process.memory_info().rss - before < ALLOWED_GROWTH
    answer = server.session.post("/run_script", json={"question": "What is 37 * 52?"})
    assert answer.json()["answer"] == "1924", answer.text


def put(server: Server, workspace: str, path: str, text: str) -> None:
    answer = server.session.put(f"/workspaces/{workspace}/files/{path}", data=text.encode())
    assert answer.ok, answer.text


@pytest.fixture(scope="module")
def workspace(server: Server) -> str:
    """A workspace whose agent follows the grammar that is its question."""
    put(server, "grammars", "agent/react.py", AGENT)
    put(server, "grammars", "agent/__init__.py", "from .react import CustomAgentGuidance\n")
    answer = server.session.post("/reload_modules", json={"workspace": "grammars"})
    assert answer.status_code == 200, answer.text
    return "grammars"


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("body", [completion, with_tool], ids=["response", "tool"])
def test_a_hostile_schema_of_v1(
    server: Server, schema: dict[str, Any], body: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    with unharmed(server) as health:
        before = health()
        answer = server.session.post(CHAT, json=body(schema))
        assert health() - before >= 2
        # A grammar may also do without what it can't say.
        if answer.status_code != 200:
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "grammar_too_complex"), answer.text
            assert "0.25 s" in error["message"] and "128 MiB" in error["message"]


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_grammar_of_an_agent(server: Server, workspace: str, schema: dict[str, Any]) -> None:
    with unharmed(server) as health:
        before = health()
        asked = {"question": json.dumps({"json_schema": schema}), "workspace": workspace}
        answer = server.session.post("/run_script", json=asked)
        assert health() - before >= 2
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (422, "grammar_too_complex"), answer.text
        assert (error["seconds"], error["bytes"]) == (COMPILE_SECONDS, COMPILE_BYTES)


@pytest.mark.parametrize(
    "lark",
    [
        "start: /(.*[a-f].{40}[0-9].{30})*/",
        'start: s\ns: "a" | s s | s s s | ""',
        "start: s\ns: X | s s\nX: /[a-z]{1,5}/",
        "start: /([a-z]{1,50} ?){1,200}|[0-9]{6}/",
        "start: /[a-z]c{40000}/",
    ],
    ids=["pattern", "ambiguous", "ambiguous words", "many states", "forced"],
)
def test_a_grammar_that_is_slow_to_follow(server: Server, workspace: str, lark: str) -> None:
    with unharmed(server) as health:
        before = health()
        asked = {"question": json.dumps({"lark_grammar": lark}), "workspace": workspace}
        answer = server.session.post("/run_script", json=asked)
        assert health() - before >= 2
        if answer.status_code != 200:
            kind = answer.json()["error"]["type"]
            assert kind in ("grammar_too_complex", "agent_failed", "prompt_too_long"), answer.text


def test_a_slow_pattern_that_is_sampled(server: Server) -> None:
    """Beside it, others get their answers."""
    slow = completion(SLOW_PATTERN, max_tokens=300, temperature=1.0, seed=1)
    with unharmed(server), ThreadPoolExecutor(1) as pool:
        writing = pool.submit(server.session.post, CHAT, json=slow)
        answered = 0
        while not writing.done() or not answered:
            with requests.Session() as other:
                other.headers.update(server.session.headers)
                asked = other.post(f"{server.url}/run_script", json={"question": "What is 9 * 9?"}, timeout=120)
            assert asked.json()["answer"] == "81", asked.text
            answered += 1
        answer = writing.result()
        assert answer.status_code == 200 or answer.json()["error"]["code"] == "grammar_too_complex", answer.text


@pytest.mark.parametrize("field", ["min_length=10**9", "min_length=5 * 10**6"])
def test_a_hostile_tool_at_a_reload(server: Server, field: str) -> None:
    name = f"tool-{next(FRESH)}"
    put(server, name, "tools/many.py", TOOL % field)
    with unharmed(server) as health:
        before = health()
        answer = server.session.post("/reload_modules", json={"workspace": name})
        assert health() - before >= 2
        if answer.status_code != 200:
            [error] = answer.json()["error"]["errors"]
            assert error["file"] == "server/tools/many.py", error
            assert "many" in error["message"] and "0.25 s" in error["message"]


def test_the_first_schemas_of_v1_start_one_checker(start_server: Callable[..., Server]) -> None:
    server = start_server()

    def send(number: int) -> int:
        with Session(server.url, server.token) as session:
            return session.post(CHAT, json=completion({"const": number})).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(8))) == {200}
    # One for the model, and one for `/v1`; children end with their grammars.
    server.wait_until(lambda: len(family(server)["hearth-grammars"]) == 2, "two checkers", 20)


def test_a_harmless_schema_among_hostile_ones(server: Server) -> None:
    with unharmed(server), ThreadPoolExecutor(6) as pool:
        hostile = [
            pool.submit(server.session.post, CHAT, json=completion({"type": "integer", "multipleOf": 999_983 + more}))
            for more in range(6)
        ]
        answer = requests.post(
            server.url + CHAT, json=completion({"const": "harmless"}), headers=server.session.headers, timeout=120
        )
        assert json.loads(answer.json()["choices"][0]["message"]["content"]) == "harmless", answer.text
        assert {one.result().status_code for one in hostile} <= {200, 400}


@pytest.mark.parametrize("count", [50, pytest.param(2_500, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("body", [completion, with_tool], ids=["response", "tool"])
def test_random_hostile_schemas(server: Server, body: Callable[[dict[str, Any]], dict[str, Any]], count: int) -> None:
    @settings(max_examples=count, deadline=None, database=None, derandomize=True)
    @given(schemas())
    def ask(schema: dict[str, Any]) -> None:
        answer = server.session.post(CHAT, json=body(schema))
        assert answer.status_code in (200, 400), f"{schema}: {answer.text}"
        assert server.process.poll() is None, server.output

    with unharmed(server), probed(server) as health:
        ask()
    print(health)
    assert not health.failures and health.percentile(99) < STANDSTILL_SECONDS


TOOLS_AT_ONCE = 10
TOOLS = """
import json

from langchain_core.tools import StructuredTool

SCHEMAS = json.loads(%r)
made = [
    StructuredTool(
        name=f"tool_{number}",
        description="Takes a value.",
        args_schema={"type": "object", "properties": {"value": schema}, "required": ["value"]},
        func=lambda **given: "done",
    )
    for number, schema in enumerate(SCHEMAS)
]
"""


@pytest.mark.parametrize("reloads", [5, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_random_hostile_schemas_of_tools(server: Server, reloads: int) -> None:
    name = f"tools-{next(FRESH)}"
    outcomes: Counter[int] = Counter()
    failures: list[str] = []

    # Without shrinking, which would reload for minutes: a failure says what was refused, and why.
    @settings(max_examples=reloads, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(st.lists(schemas(), min_size=TOOLS_AT_ONCE, max_size=TOOLS_AT_ONCE))
    def reload(some: list[dict[str, Any]]) -> None:
        put(server, name, "tools/many.py", TOOLS % json.dumps(some))
        answer = server.session.post("/reload_modules", json={"workspace": name})
        outcomes[answer.status_code] += 1
        errors = [] if answer.ok else answer.json()["error"].get("errors", [{"file": None}])
        if answer.status_code not in (200, 422) or any(one["file"] != "server/tools/many.py" for one in errors):
            failures.append(answer.text[:1000])

    with unharmed(server), probed(server) as health:
        reload()
    print(health, outcomes)
    assert failures == []
    assert not health.failures and health.percentile(99) < STANDSTILL_SECONDS
