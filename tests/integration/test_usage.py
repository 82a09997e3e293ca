"""Usage and quotas: what counts, for whom, and what is refused."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from sqlalchemy import text

from server.errors import QuotaReachedError, StoreRefusedError
from server.quotas.quotas import Limits, Quotas
from server.store import Database, RunStore
from server.store.usage import QuotaStore, UsageStore, Used, adding, today
from tests.integration.test_mcp import current
from tests.support.server_process import REPOSITORY, Server, end, start

SLOW = '''
import time
from langchain_core.tools import tool

@tool
def slow(seconds: float) -> str:
    """Wait for some seconds."""
    time.sleep(seconds)
    return "done"


def build_tool(llm):
    @tool
    def says(text: str, seconds: float = 0) -> str:
        """Let the model continue a text, and wait then."""
        said = str(llm.invoke(text).content)
        print("said")
        time.sleep(seconds)
        return said

    return says
'''


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    made = Database(tmp_path / "data", database_url)
    yield made
    made.close()


def record(run: str) -> dict[str, Any]:
    return {"run_id": run, "workspace": "main", "generation": None}


def test_usage_is_summed_by_anything(database: Database) -> None:
    runs, usage = RunStore(database), UsageStore(database)
    used = [
        Used("alice", "k1", "small", 10, 4, 1),
        Used("alice", "k2", "large", 100, 40, 1),
        Used("bob", "", "small", 1000, 400, 1),
        Used("bob", job_seconds=1.5),
        Used("bob", job_seconds=1.0),
    ]
    for number, one in enumerate(used):
        runs.add(record(f"r{number}"), one.person, [adding(one)])
    by_person = usage.summed("person", None, None, 10, None)
    assert by_person == [
        {"person": "alice", "tokens_processed": 110, "tokens_written": 44, "runs": 2, "job_seconds": 0.0},
        {"person": "bob", "tokens_processed": 1000, "tokens_written": 400, "runs": 1, "job_seconds": 2.5},
    ]
    assert [(one["model"], one["tokens_processed"]) for one in usage.summed("model", None, None, 10, None)] == [
        ("", 0),
        ("large", 100),
        ("small", 1010),
    ]
    assert [one["key"] for one in usage.summed("key", "alice", None, 10, None)] == ["k1", "k2"]
    assert [one["day"] for one in usage.summed("day", None, today(), 10, None)] == [today()]
    assert usage.summed("day", None, "9999-01-01", 10, None) == []
    assert usage.summed("person", None, None, 10, "alice") == by_person[1:]
    assert usage.summed("person", None, None, 1, None) == by_person[:1]
    assert (usage.tokens_today("alice"), usage.tokens_today("nobody")) == (110, 0)


def test_what_was_used_is_saved_with_its_record_or_not_at_all(database: Database) -> None:
    runs, usage = RunStore(database), UsageStore(database)
    runs.add(record("r1"), "alice", [adding(Used("alice", tokens_processed=5))])
    with pytest.raises(StoreRefusedError):
        runs.add(record("r1"), "alice", [adding(Used("alice", tokens_processed=5))])
    assert usage.tokens_today("alice") == 5


def test_many_threads_and_two_servers_lose_nothing(tmp_path: Path, database_url: str | None) -> None:
    both = [Database(tmp_path / "data", database_url) for _ in range(2)]

    def use(number: int) -> None:
        used = Used("alice", tokens_processed=1, runs=1)
        RunStore(both[number % 2]).add(record(f"r{number}"), "alice", [adding(used)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(60)))
    [found] = UsageStore(both[0]).summed("person", None, None, 10, None)
    assert (found["tokens_processed"], found["runs"]) == (60, 60)
    for one in both:
        one.close()


def test_a_person_s_limit_replaces_the_role_s(database: Database) -> None:
    store, disk = QuotaStore(database), {"alice": 90}
    quotas = Quotas(store, UsageStore(database), lambda person: disk.get(person, 0), {"alice": "student"}.get)
    assert quotas.limits_of("alice") == Limits()
    store.put("student", {"tokens_per_day": 100, "runs_at_once": 1, "disk_bytes": 100})
    store.put("alice", {"tokens_per_day": 5000})
    assert quotas.limits_of("alice") == Limits(tokens_per_day=5000, runs_at_once=1, disk_bytes=100)
    assert quotas.limits_of("bob") == Limits()
    assert list(store.all(10, None)) == ["alice", "student"]
    quotas.check_disk("alice", 10)
    with pytest.raises(QuotaReachedError) as caught:
        quotas.check_disk("alice", 11)
    assert caught.value.details == {"quota": "disk_bytes", "limit": 100, "used": 90, "free_at": None}
    disk["alice"] = 100
    with pytest.raises(QuotaReachedError):
        quotas.check_disk("alice", 0)
    store.put("alice", {})
    assert list(store.all(10, None)) == ["student"]


def test_while_the_database_fails_the_last_limits_hold_and_nobody_waits(database: Database) -> None:
    store = QuotaStore(database)
    quotas = Quotas(store, UsageStore(database), lambda person: 0, tokens_in_flight=lambda person: 1)
    store.put("alice", {"tokens_per_day": 1, "runs_at_once": 2})
    limits = quotas.limits_of("alice")
    with pytest.raises(QuotaReachedError):
        quotas.check_tokens("alice", limits)
    with database.writing() as connection:
        connection.execute(text("DROP TABLE quota"))
        connection.execute(text("DROP TABLE usage"))
    assert quotas.limits_of("alice") == limits
    assert quotas.limits_of("bob") == Limits()
    quotas.check_tokens("alice", limits)


# A server


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    shared = start(tmp_path_factory.mktemp("lab") / "server", REPOSITORY, {})
    try:
        shared.wait_until_ready()
        for name in ("alice", "bob", "carol", "dave", "erin"):
            shared.session.put(f"/workspaces/{name}/files/tools/slow.py", data=SLOW.encode())
            answer = shared.session.post("/reload_modules", json={"workspace": name})
            assert answer.status_code == 200, answer.text
        yield shared
    finally:
        end(shared)


def usage_of(server: Server, person: str) -> dict[str, Any]:
    found = server.session.get("/usage").json()["usage"]
    return next((one for one in found if one["person"] == person), {})


def assert_reached(answer: requests.Response, quota: str, limit: int, used: int) -> dict[str, Any]:
    assert answer.status_code == 429, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert (error["type"], error["quota"], error["limit"], error["used"]) == ("quota_reached", quota, limit, used)
    assert quota in error["message"] and str(limit) in error["message"]
    return error


def test_runs_and_jobs_are_counted(lab: Server) -> None:
    session = lab.session
    answer = session.post("/run_script", json={"question": "What is 6 * 7?", "workspace": "alice"}).json()
    used = answer["usage"]
    written = used["completion_tokens"] + used["forced_tokens"]
    counted = usage_of(lab, "alice")
    assert counted["runs"] == 1 and counted["tokens_written"] == written > 0
    assert counted["tokens_processed"] == written + used["prompt_tokens"] - used["cached_tokens"]
    models = {one["model"]: one["runs"] for one in session.get("/usage?by=model").json()["usage"]}
    assert models["embedded"] >= 1
    wanted: dict[str, Any] = {"tool": "slow", "input": {"seconds": 0.2}, "workspace": "alice"}
    job = session.post("/jobs", json=wanted).json()["job_id"]
    lab.wait_until(lambda: session.get(f"/jobs/{job}").json()["state"] == "succeeded", "the job")
    assert usage_of(lab, "alice")["job_seconds"] >= 0.2
    # What fails has used something too.
    failed = session.post("/run_script", json={"question": "?", "workspace": "alice", "agent": "nobody"})
    assert failed.status_code == 404
    assert usage_of(lab, "alice")["runs"] == 2


def test_tokens_of_a_day(lab: Server) -> None:
    session, question = lab.session, {"question": "What is 6 * 7?", "workspace": "bob"}
    assert session.put("/quotas/bob", json={"tokens_per_day": 10}).json()["limits"]["tokens_per_day"] == 10
    # One starts while less is used than allowed.
    assert session.post("/run_script", json=question).status_code == 200
    used = usage_of(lab, "bob")["tokens_processed"]
    assert used >= 10
    # Whatever header has the credential, and whatever route it is.
    for headers in ({}, {"x-api-key": "other", "X-Forwarded-For": "192.0.2.1", "X-Workspace": "alice"}):
        refused = session.post("/run_script", json=question, headers=headers)
        error = assert_reached(refused, "tokens_per_day", 10, used)
    free = datetime.fromisoformat(error["free_at"])
    assert (free.hour, free.minute, free.second) == (0, 0, 0)
    assert timedelta(0) < free - datetime.now(UTC) <= timedelta(days=1)
    assert abs(int(refused.headers["Retry-After"]) - (free - datetime.now(UTC)).total_seconds()) < 60
    job: dict[str, Any] = {"tool": "slow", "input": {"seconds": 0}, "workspace": "bob"}
    assert_reached(session.post("/jobs", json=job), "tokens_per_day", 10, used)
    run = session.get("/runs?workspace=bob").json()["runs"][0]["run_id"]
    assert_reached(session.post(f"/runs/{run}/replay"), "tokens_per_day", 10, used)
    streamed = session.post("/run_script", json=question, headers={"Accept": "text/event-stream"})
    assert_reached(streamed, "tokens_per_day", 10, used)
    # Nobody else is refused.
    assert session.post("/run_script", json={**question, "workspace": "main"}).status_code == 200
    session.put("/quotas/bob", json={})
    assert session.post("/run_script", json=question).status_code == 200


def test_a_tool_that_somebody_calls_alone(lab: Server) -> None:
    body, headers = current("tools/call", {"name": "says", "arguments": {"text": "Hello"}})

    def call_by_mcp() -> requests.Response:
        return lab.session.post("/mcp", params={"workspace": "erin"}, json=body, headers=headers)

    def call_by_hand() -> requests.Response:
        return lab.session.post("/tools/says/call", json={"workspace": "erin", "input": {"text": "Hello"}})

    used = 0
    for call in (call_by_mcp, call_by_hand):
        assert call().status_code == 200
        before, used = used, lab.wait_until(lambda: usage_of(lab, "erin").get("tokens_processed"), "its tokens")
        assert used > before
    lab.session.put("/quotas/erin", json={"tokens_per_day": 1})
    assert call_by_mcp().json()["error"]["data"]["type"] == "quota_reached"
    assert_reached(call_by_hand(), "tokens_per_day", 1, used)
    lab.session.put("/quotas/erin", json={})


def test_tokens_of_a_job_count_before_it_ends(lab: Server) -> None:
    session, question = lab.session, {"question": "What is 6 * 7?", "workspace": "erin"}
    used = usage_of(lab, "erin").get("tokens_processed", 0)
    session.put("/quotas/erin", json={"tokens_per_day": used + 1})
    wanted: dict[str, Any] = {"tool": "says", "input": {"text": "Hello", "seconds": 60}, "workspace": "erin"}
    job = session.post("/jobs", json=wanted).json()["job_id"]
    lab.wait_until(lambda: "said" in session.get(f"/jobs/{job}/log").text, "the model's reply to the job")
    for path, body in (("/run_script", question), ("/jobs", wanted)):
        refused = session.post(path, json=body)
        assert refused.status_code == 429 and refused.json()["error"]["used"] > used
    assert usage_of(lab, "erin").get("tokens_processed", 0) == used, "it is saved at the job's end"
    session.delete(f"/jobs/{job}")
    lab.wait_until(lambda: session.get(f"/jobs/{job}").json()["state"] == "cancelled", "its end")
    assert usage_of(lab, "erin")["tokens_processed"] > used
    session.put("/quotas/erin", json={})


def test_openai_s_clients_see_their_own_error(lab: Server) -> None:
    lab.session.put("/quotas/carol", json={"tokens_per_day": 0})
    client = openai.OpenAI(base_url=f"{lab.url}/v1", api_key=lab.token)
    for model in ("hearth", "hearth/react"):
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "1 + 1?"}], extra_body={"x_workspace": "carol"}
            )
        assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert int(caught.value.response.headers["Retry-After"]) > 0
    client.close()
    lab.session.put("/quotas/carol", json={})


def test_runs_at_once(lab: Server) -> None:
    session = lab.session
    session.put("/quotas/dave", json={"runs_at_once": 2})
    question = {"question": "Use slow for 1.5 seconds", "workspace": "dave", "agent": "react"}
    together = threading.Barrier(6)

    def ask(_: int) -> int:
        together.wait()
        return session.post("/run_script", json=question).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(ask, range(6)))
    # However close they come.
    assert statuses.count(200) == 2 and statuses.count(429) == 4
    session.put("/quotas/dave", json={"runs_at_once": 0})
    error = assert_reached(session.post("/run_script", json=question), "runs_at_once", 0, 0)
    assert error["retry_after"] >= 1 and error["free_at"].endswith("Z")
    session.put("/quotas/dave", json={})


def test_jobs_at_once(lab: Server) -> None:
    session = lab.session
    session.put("/quotas/dave", json={"jobs_at_once": 2})
    job: dict[str, Any] = {"tool": "slow", "input": {"seconds": 30}, "workspace": "dave"}
    together = threading.Barrier(5)

    def begin(_: int) -> requests.Response:
        together.wait()
        return session.post("/jobs", json=job)

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(begin, range(5)))
    started = [answer.json()["job_id"] for answer in answers if answer.status_code == 202]
    assert len(started) == 2
    refused = session.post("/jobs", json=job)
    assert_reached(refused, "jobs_at_once", 2, 2)
    assert refused.headers["Retry-After"] == "10"
    for name in started:
        session.delete(f"/jobs/{name}")
    again = session.post("/jobs", json=job)
    assert again.status_code == 202
    session.delete(f"/jobs/{again.json()['job_id']}")
    session.put("/quotas/dave", json={})


def test_disk(lab: Server) -> None:
    session = lab.session

    def upload(name: str, size: int, where: str = "one") -> requests.Response:
        files = {"files": (name, name.encode() * size)}
        return session.post(f"/sessions/{where}/files", params={"workspace": "dave"}, files=files)

    session.put("/quotas/dave", json={"disk_bytes": 1000})
    assert upload("a", 600).status_code == 201
    assert upload("b", 300, "two").status_code == 201
    error = assert_reached(upload("c", 200, "three"), "disk_bytes", 1000, 900)
    assert error["free_at"] is None and "retry_after" not in error
    assert session.get("/sessions/three/files", params={"workspace": "dave"}).json()["files"] == []
    note = {"text": "x" * 200, "name": "note"}
    added = session.post("/collections/notes/documents", params={"workspace": "dave"}, json=note)
    assert_reached(added, "disk_bytes", 1000, 900)
    session.delete("/sessions/two", params={"workspace": "dave"})
    added = session.post("/collections/notes/documents", params={"workspace": "dave"}, json=note)
    assert added.status_code == 201, added.text
    assert_reached(upload("d", 300), "disk_bytes", 1000, 800)
    # Another person's files don't count.
    assert session.post("/sessions/one/files", files={"files": ("a", b"a" * 2000)}).status_code == 201
    session.put("/quotas/dave", json={})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/quotas/alice", {"tokens_per_day": -1}),
        ("PUT", "/quotas/alice", {"tokens_per_day": "10"}),
        ("PUT", "/quotas/alice", {"tokens_per_day": 1.5}),
        ("PUT", "/quotas/alice", {"tokens_per_day": 2**63}),
        ("PUT", "/quotas/alice", {"tokens_a_day": 1}),
        ("PUT", "/quotas/al%00ice", {}),
        ("PUT", "/quotas/" + "x" * 101, {}),
        ("GET", "/usage?by=nothing", None),
        ("GET", "/usage?since=yesterday", None),
        ("GET", "/usage?limit=0", None),
        ("GET", "/quotas?limit=1001", None),
    ],
)
def test_what_is_refused(lab: Server, method: str, path: str, body: object) -> None:
    answer = lab.session.request(method, path, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["type"] == "invalid_request"


def test_lists_have_pages(lab: Server) -> None:
    session = lab.session
    for name in ("p1", "p2", "p3"):
        session.put(f"/quotas/{name}", json={"runs_at_once": 1})
    page = session.get("/quotas?limit=2").json()
    assert [one["name"] for one in page["quotas"]] == ["p1", "p2"]
    assert page["quotas"][0]["limits"] == {
        "tokens_per_day": None,
        "runs_at_once": 1,
        "jobs_at_once": None,
        "disk_bytes": None,
    }
    rest = session.get("/quotas", params={"limit": 2, "after": page["next"]}).json()
    assert ([one["name"] for one in rest["quotas"]], rest["next"]) == (["p3"], None)
    for name in ("p1", "p2", "p3"):
        session.put(f"/quotas/{name}", json={})
    page = session.get("/usage?limit=1").json()
    assert page["next"] == page["usage"][0]["person"]
