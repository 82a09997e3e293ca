"""A real server under many reloads, with questions all the while: every answer is that of the code which it names,
and nothing grows."""

import random
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.support.server_process import Server, Session

TOOL = '''
import logging
from langchain_core.tools import tool

log = logging.getLogger(__name__)
log.debug("loaded")
DATA = list(range(1000))


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression, like `2 * (3 + 4)` or `sqrt(2)`."""
    return "{answer}"
'''
WARMING = 60
QUESTION = {"question": "What is 37 * 52?"}


def put(session: Session, workspace: str, text: str) -> None:
    session.put(f"/workspaces/{workspace}/files/tools/calculator.py", data=text.encode()).raise_for_status()


def reload(session: Session, workspace: str) -> dict[str, Any]:
    answer: dict[str, Any] = session.post("/reload_modules", json={"workspace": workspace}).json()
    return answer


class Asking(threading.Thread):
    """Asks one workspace again and again, and keeps what came."""

    def __init__(self, server: Server, workspace: str) -> None:
        super().__init__(daemon=True)
        self.workspace = workspace
        self.session = Session(server.url, server.token)
        self.stop = threading.Event()
        self.answers: list[tuple[int, dict[str, Any]]] = []

    def run(self) -> None:
        while not self.stop.is_set():
            answer = self.session.post("/run_script", json={**QUESTION, "workspace": self.workspace})
            self.answers.append((answer.status_code, answer.json()))

    def end(self) -> list[tuple[int, dict[str, Any]]]:
        self.stop.set()
        self.join()
        self.session.close()
        return self.answers


@pytest.mark.parametrize(
    ("workspaces", "edits"), [(4, 10), pytest.param(20, 60, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_every_answer_is_that_of_the_code_it_names(
    start_server: Callable[..., Server], workspaces: int, edits: int
) -> None:
    server = start_server()
    expected: dict[str, str] = {}
    failures: list[str] = []

    def edit(name: str) -> None:
        """Good code and broken code, in an order of the workspace's own; each good one says what it is."""
        rng, session = random.Random(name), Session(server.url, server.token)
        for number in range(edits):
            broken = rng.random() < 0.3
            text = TOOL.format(answer=f"{name} {number}")
            put(session, name, text + (rng.choice(["broken(", "1 / 0", "import no_such"]) if broken else ""))
            report = reload(session, name)
            if broken == ("error" not in report):
                failures.append(f"{name} {number}: {report}")
            if not broken:
                expected[report["generation"]] = f"{name} {number}"
        session.close()

    names = [f"w{number}" for number in range(workspaces)]
    for name in names:
        put(server.session, name, TOOL.format(answer=f"{name} first"))
        expected[reload(server.session, name)["generation"]] = f"{name} first"
    asking = [Asking(server, name) for name in names]
    editing = [threading.Thread(target=edit, args=(name,)) for name in names]
    for thread in [*asking, *editing]:
        thread.start()
    for thread in editing:
        thread.join()
    for one in asking:
        answers = one.end()
        assert answers
        for status, answer in answers:
            assert status == 200, answer
            assert answer["answer"] == expected[answer["generation"]]
            assert answer["answer"].startswith(one.workspace + " ")
    assert failures == []


@pytest.mark.parametrize(
    "number", [60, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3 * 3600)])]
)
def test_many_reloads_while_questions_run_leave_nothing(
    start_server: Callable[..., Server], number: int, record_property: Callable[[str, object], None]
) -> None:
    server = start_server()
    process = psutil.Process(server.process.pid)

    def taken() -> int:
        """The server's own memory in bytes, without KV memory, which is bounded otherwise, and grows with the runs at
        a time."""
        kv_bytes: int = server.session.get("/health").json()["kv_bytes"]
        rss: int = process.memory_info().rss
        return rss - kv_bytes

    def family() -> list[int]:
        """All processes of the server, once those of earlier generations have ended."""
        return [process.pid, *(child.pid for child in process.children(recursive=True))]

    def settled() -> bool:
        return sorted(one["workspace"] for one in server.health()["workers"]) == ["main", "w"]

    def reload_often(first: int, last: int) -> None:
        asking = [Asking(server, "w") for _ in range(2)]
        for one in asking:
            one.start()
        for turn in range(first, last):
            put(server.session, "w", TOOL.format(answer=turn) + ("1 / 0\n" if turn % 10 == 9 else ""))
            assert ("error" in reload(server.session, "w")) == (turn % 10 == 9)
        for one in asking:
            for status, answer in one.end():
                assert status == 200, answer
                assert 0 <= int(answer["answer"]) < last and int(answer["answer"]) % 10 != 9

    put(server.session, "w", TOOL.format(answer=0))
    # What the first ones take comes to an end: the allocator's pools, and what is made ready for each shape of
    # batch.
    reload_often(0, WARMING)
    server.wait_until(settled, "one worker for each workspace")
    memory, files, threads, processes = taken(), process.num_fds(), process.num_threads(), len(family())
    reload_often(WARMING, WARMING + number)
    server.wait_until(settled, "one worker for each workspace again")
    server.wait_until(lambda: len(family()) <= processes, "as few processes as before")
    grown = taken() - memory
    record_property("grown_bytes", grown)
    # What the allocator keeps of the answers; a generation's modules would take about half a megabyte.
    assert grown < 50_000_000
    # Connections of the askers may still be closing, and the server's threads come up one by one.
    assert process.num_fds() <= files + 4
    assert process.num_threads() <= threads + 4
