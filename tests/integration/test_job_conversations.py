"""An agent whose tools run in the background: started, asked after, waited for, cancelled, by words; and woken.

The model follows a script behind a real API. Everything else is real.
"""

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.event_stream import read
from tests.support.job_tools import begin, ended, job, put_tools
from tests.support.scripted_api import Messages, ScriptedApi
from tests.support.server_process import REPOSITORY, Server, end, start

STARTED = re.compile(r"Started as the background job ([a-z]+-[a-z]+)")


def observed(messages: Messages) -> list[str]:
    """What the agent has read of its tools since the last question."""
    asked = max(
        at
        for at, one in enumerate(messages)
        if one["role"] == "user" and not one["content"].startswith("Observation:")
    )
    return [one["content"] for one in messages[asked + 1 :] if one["role"] == "user"]


def question(messages: Messages) -> str:
    """The last question."""
    return next(
        one["content"]
        for one in reversed(messages)
        if one["role"] == "user" and not one["content"].startswith("Observation:")
    )


def act(messages: Messages) -> dict[str, Any]:
    """The script: it understands a few sentences."""
    asked, read_so_far = question(messages), observed(messages)
    if messages[0]["content"].startswith("Split the task"):
        left = re.findall(r"\d\. (nap \w+)$", asked.partition("\nLeft:")[2], re.MULTILINE)
        return {"plan": left if "\nLeft:" in asked else ["nap one", "nap two", "nap three"]}
    if messages[0]["content"].startswith("Answer the task"):
        return {"answer": asked}
    if found := re.search(r"\nNow: nap (\w+)$", asked):
        if read_so_far:
            return {"answer": read_so_far[0]}
        return {"action": "nap", "action_input": {"seconds": 1.5, "word": found[1]}}
    if asked.startswith("(Not from the user.)"):
        return {"answer": "The jobs say: " + asked.partition("\n")[2]}
    if found := re.match(r"nap (\d+) times (\S+) seconds", asked):
        if len(read_so_far) < int(found[1]):
            return {"action": "nap", "action_input": {"seconds": float(found[2]), "word": f"w{len(read_so_far)}"}}
        return {"answer": " ".join(STARTED.findall(" ".join(read_so_far)))}
    if found := re.match(r"(wait for|cancel|status of) (.*)", asked):
        if read_so_far:
            return {"answer": read_so_far[-1]}
        names = found[2].split()
        if found[1] == "wait for":
            return {"action": "wait", "action_input": {"job_ids": names, "timeout": 30}}
        tool = "cancel" if found[1] == "cancel" else "status"
        return {"action": tool, "action_input": {"job_id": names[0]}}
    if asked == "how are all?":
        return {"answer": read_so_far[-1]} if read_so_far else {"action": "status", "action_input": {}}
    if asked.startswith("start and wait"):
        if not read_so_far:
            return {"action": "nap", "action_input": {"seconds": 1.5, "word": "done"}}
        if len(read_so_far) == 1:
            return {"action": "wait", "action_input": {"job_ids": STARTED.findall(read_so_far[0])}}
        return {"answer": read_so_far[-1]}
    if asked.startswith("alone"):
        word = asked.split()[1]
        return {"answer": read_so_far[-1]} if read_so_far else {"action": "alone", "action_input": {"word": word}}
    return {"answer": f"heard: {asked}"}


@pytest.fixture(scope="module")
def api() -> Iterator[ScriptedApi]:
    with ScriptedApi(act).serving() as serving:
        yield serving  # type: ignore[misc]


@pytest.fixture(scope="module")
def settings(api: ScriptedApi) -> dict[str, object]:
    return {
        "MODEL": "openai:scripted",
        "BASE_URL": f"{api.url}/v1",
        "JOB_GRACE": 1,
        "MAX_CONCURRENT_RUNS": 1,
        "TOOL_TIMEOUT": 2,
    }


@pytest.fixture(scope="module")
def lab(settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the tools in the workspace `jobs`, that answers one question at a time."""
    made = start(tmp_path_factory.mktemp("talk") / "server", REPOSITORY, settings)
    try:
        made.wait_until_ready()
        put_tools(made, "jobs")
        yield made
    finally:
        end(made)


def ask(lab: Server, asked: str, session: str | None = None, agent: str = "react") -> dict[str, Any]:
    given = {"question": asked, "workspace": "jobs", "session_id": session, "agent": agent}
    answer = lab.session.post("/run_script", json={name: one for name, one in given.items() if one is not None})
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def messages(lab: Server, session: str) -> list[dict[str, Any]]:
    answer = lab.session.get(f"/sessions/{session}", params={"workspace": "jobs"})
    return [] if answer.status_code == 404 else list(answer.json()["messages"])


def woken(lab: Server, session: str, count: int = 1) -> list[dict[str, Any]]:
    """The messages of a session after it was woken so often."""

    def look() -> list[dict[str, Any]] | None:
        found = messages(lab, session)
        return found if sum(one["role"] == "system" for one in found) == count else None

    found: list[dict[str, Any]] = lab.wait_until(look, f"{count} wakes of {session}", 30)
    return found


def test_a_job_starts_at_once_and_the_session_is_woken(lab: Server) -> None:
    """The answer comes while the job runs; at its end the agent says what it gave, and followers read it."""
    session = "plain"
    answer = ask(lab, "nap 1 times 1.5 seconds", session)
    name = answer["answer"]
    assert job(lab, name)["state"] in ("queued", "running") and job(lab, name)["session_id"] == session
    assert ask(lab, "hello", session)["answer"] == "heard: hello"
    found = woken(lab, session)
    assert found[-2]["role"] == "system" and f"{name}: nap(" in found[-2]["content"]
    assert found[-1] == {**found[-1], "role": "assistant"} and "w0" in found[-1]["content"]
    with lab.session.get(f"/sessions/{session}/events", params={"workspace": "jobs"}, stream=True) as stream:
        kinds = []
        for event in read(stream):
            kinds.append((event.kind, event.data.get("role") if event.data and event.kind == "message" else None))
            if kinds[-2:] == [("message", "system"), ("message", "assistant")]:
                break
    assert ("message", "user") in kinds and ("job", None) in kinds and ("progress", None) in kinds


def test_several_end_together_and_wake_once(lab: Server) -> None:
    session = "several"
    names = ask(lab, "nap 4 times 3 seconds", session)["answer"].split()
    assert len(set(names)) == 4
    # What ends during one report is in the next one; nothing is reported twice.
    for name in names:
        ended(lab, name)
    found = lab.wait_until(
        lambda: (
            (said := messages(lab, session))
            and all(any(name in one["content"] for one in said if one["role"] == "system") for name in names)
            and said
        ),
        "a report of each",
    )
    wakes = [one["content"] for one in found if one["role"] == "system"]
    assert all(sum(name in wake for wake in wakes) == 1 for name in names)


def test_status_and_cancel_by_words(lab: Server) -> None:
    session = "words"
    first, second = ask(lab, "nap 2 times 60 seconds", session)["answer"].split()
    lab.wait_until(lambda: job(lab, first).get("progress"), "progress")
    assert f"{first}: nap(" in (answer := ask(lab, f"status of {first}", session)["answer"]) and "running" in answer
    assert "of 600 done (asleep)" in answer
    everything = ask(lab, "how are all?", session)["answer"]
    assert first in everything and second in everything
    assert "is cancelled" in ask(lab, f"cancel {first}", session)["answer"]
    assert job(lab, first)["state"] == "cancelled" and job(lab, second)["state"] == "running"
    assert "'brave-nobody' is not one of" in ask(lab, "status of brave-nobody", session)["answer"]
    assert "is cancelled" in ask(lab, f"cancel {second}", session)["answer"]
    # The agent has read both ends, so nobody is woken.
    ask(lab, "nap 1 times 0 seconds", session)
    found = woken(lab, session)
    assert not any(first in one["content"] or second in one["content"] for one in found if one["role"] == "system")


def test_another_conversation_has_no_part_in_it(lab: Server) -> None:
    name = ask(lab, "nap 1 times 60 seconds", "mine")["answer"]
    ask(lab, "nap 1 times 0 seconds", "yours")
    assert f"'{name}' is not one of" in ask(lab, f"cancel {name}", "yours")["answer"]
    assert job(lab, name)["state"] in ("queued", "running")
    assert lab.session.delete(f"/jobs/{name}").json()["state"] == "cancelled"


def test_waiting_holds_nobody(lab: Server) -> None:
    """One question is answered at a time here. One that waits for its job lets the others be answered."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, lab, "start and wait", "waits")
        lab.wait_until(lambda: lab.session.get("/jobs", params={"session_id": "waits"}).json()["jobs"], "its job")
        assert ask(lab, "hello")["answer"] == "heard: hello"
        assert not waiting.done()
        # `wait` may take longer than HEARTH_TOOL_TIMEOUT allows tools.
        assert waiting.result()["answer"].endswith("is succeeded: done")
    time.sleep(0.2)  # a wake, if there were one, would have begun by now
    assert all(one["role"] != "system" for one in messages(lab, "waits"))


def test_steps_of_a_plan_run_side_by_side(lab: Server) -> None:
    """Three steps of 1.5 s each, in the background: the jobs overlap, and the answer has the results of all."""
    answer = ask(lab, "nap three times", "planned", "plan_execute")
    names = [STARTED.search(step["observation"])[1] for step in answer["steps"]]  # type: ignore[index]
    assert all(f"{name}: nap(" in answer["answer"] for name in names)
    assert all(f"is succeeded: {word}" in answer["answer"] for word in ("one", "two", "three"))
    jobs = [job(lab, name) for name in names]
    assert max(one["started_at"] for one in jobs) < min(one["ended_at"] for one in jobs)
    assert answer["details"]["plan"][-1]["step"] == "wait for the background jobs"


def test_without_a_session_a_run_waits_for_its_own(lab: Server) -> None:
    assert ask(lab, "start and wait")["answer"].endswith("is succeeded: done")


def test_a_run_that_waits_can_be_cancelled(lab: Server) -> None:
    name = ask(lab, "nap 1 times 60 seconds", "left")["answer"]
    run: dict[str, Any] = {}

    def waits() -> None:
        given = {"question": f"wait for {name}", "workspace": "jobs", "session_id": "left"}
        run["answer"] = lab.session.post("/run_script", json=given)

    thread = threading.Thread(target=waits)
    thread.start()
    runs = lab.wait_until(
        lambda: [
            one
            for one in lab.session.get("/runs", params={"workspace": "jobs"}).json()["runs"]
            if one["state"] == "running" and name in one["question"]
        ],
        "the run",
    )
    assert lab.session.delete(f"/runs/{runs[0]['run_id']}").status_code == 200
    thread.join(10)
    assert run["answer"].status_code == 499
    assert job(lab, name)["state"] == "running"
    assert lab.session.delete(f"/jobs/{name}").json()["state"] == "cancelled"
    # Its end was not reported yet.
    assert name in woken(lab, "left")[-2]["content"]


def test_an_isolated_tool_crashes_alone(lab: Server) -> None:
    one, other = ask(lab, "alone here")["answer"], ask(lab, "alone there")["answer"]
    assert re.search(r"here (\d+)", one) and re.search(r"there (\d+)", other)
    workers = {worker["pid"] for worker in lab.health()["workers"]}
    assert int(one.split()[-1]) not in workers and one.split()[-1] != other.split()[-1]
    assert "SIGKILL" in ask(lab, "alone crash")["answer"]
    assert {worker["pid"] for worker in lab.health()["workers"]} >= workers


def test_a_job_over_http_wakes_its_session(lab: Server) -> None:
    name = begin(lab, "nap", input={"seconds": 0, "word": "posted"}, session_id="posted")
    assert "posted" in woken(lab, "posted")[-1]["content"] and job(lab, name)["state"] == "succeeded"


def test_a_wake_survives_the_server(settings: dict[str, object], tmp_path: Any) -> None:
    """The server is killed while a job of a session runs. After the next start the session's agent says so."""
    kept = {**settings, "DATA_DIR": tmp_path / "data"}
    first = start(tmp_path / "first", REPOSITORY, kept)
    try:
        first.wait_until_ready()
        put_tools(first, "jobs")
        name = ask(first, "nap 1 times 600 seconds", "kept")["answer"]
        first.wait_until(lambda: job(first, name)["state"] == "running", "the job")
        first.process.kill()
        first.process.wait()
    finally:
        end(first)
    second = start(tmp_path / "second", REPOSITORY, kept)
    try:
        assert job(second, name)["state"] == "lost"
        second.wait_until_ready()
        found = woken(second, "kept")
        assert name in found[-2]["content"] and "was lost" in found[-2]["content"]
    finally:
        end(second)
