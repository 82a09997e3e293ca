"""Jobs on a Ray cluster of two nodes: what they may do, and what happens when a node is lost.

The ordinary run has the first test alone: a node starts a new Python for each job, which takes seconds.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.event_stream import read
from tests.support.job_tools import begin, ended, job, put_tools, wait_for
from tests.support.ray_cluster import RayNodes
from tests.support.server_process import REPOSITORY, Server, end, start

TOOLS = '''
import ctypes
import os
import time
from pathlib import Path

from langchain_core.tools import tool

from server.sdk import check_cancelled, progress, shared

HERE = Path(__file__).resolve()


@tool(extras={"background": True})
def nap(seconds: float, word: str = "rested") -> str:
    """Sleep for some seconds, and say a word."""
    for tenth in range(int(seconds * 10)):
        time.sleep(0.1)
        progress(tenth + 1, int(seconds * 10), "asleep")
    print(f"{word} in {os.getpid()}", flush=True)
    return word


@tool(extras={"background": True, "num_cpus": 1, "idempotent": True})
def again(file: str) -> str:
    """Write a line, and then sleep the first time."""
    with open(file, "a") as lines:
        print(os.getpid(), file=lines, flush=True)
    if len(Path(file).read_text().splitlines()) == 1:
        time.sleep(600)
    return "done again"


@tool(extras={"background": True, "num_cpus": 1})
def where(file: str, wait: bool) -> dict:
    """Write down the process, and wait until there is a file."""
    found = {"pid": os.getpid(), "code": str(HERE)}
    Path(file).write_text(f"{os.getpid()}\\n")
    while wait and not Path(file + ".go").exists():
        check_cancelled()
        time.sleep(0.02)
    return found


@tool
def crash() -> str:
    """Crash."""
    ctypes.string_at(0)
    return "never"


@tool
def fail(reason: str) -> str:
    """Fail for a reason."""
    raise ValueError(reason)


@tool
def count(times: int) -> int:
    """Add to the conversation's counter."""
    return max(shared.increment("counter") for _ in range(times))


@tool(extras={"background": True, "num_gpus": 1})
def needs_gpu() -> str:
    """Compute on a GPU."""
    return "never"
'''


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with RayNodes() as made:
        yield made


@pytest.fixture(scope="module")
def lab(nodes: RayNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose jobs run on the cluster."""
    settings: dict[str, object] = {"JOB_GRACE": 1, "RAY_ADDRESS": nodes.address}
    made = start(tmp_path_factory.mktemp("lab") / "server", REPOSITORY, settings)
    try:
        made.wait_until_ready()
        put_tools(made, "jobs", TOOLS)
        yield made
    finally:
        end(made)


def written(lab: Server, nodes: RayNodes, file: Path) -> tuple[int, str]:
    """The process that a tool has written down, and its node."""
    lab.wait_until(lambda: file.exists() and file.read_text().endswith("\n"), "the tool")
    pid = int(file.read_text().split()[0])
    return pid, nodes.of(pid)


def test_a_job_on_a_node(lab: Server) -> None:
    """Result, progress, log and events are as on this machine."""
    name = begin(lab, "nap", input={"seconds": 1, "word": "far"})
    answer = lab.session.get(f"/jobs/{name}/events", headers={"Last-Event-ID": "0"}, stream=True)
    events = [event for event in read(answer) if event.kind != "ping"]
    kinds = [event.kind for event in events]
    assert events[-1].data["state"] == "succeeded", f"{events[-1].data}\n{lab.output}"
    assert kinds[0] == "state" and kinds[-1] == "end" and {"progress", "log"} <= set(kinds)
    shown = ended(lab, name)
    assert (shown["state"], shown["result"], shown["tries"]) == ("succeeded", "far", 1), shown
    assert shown["progress"] == {"done": 10, "total": 10, "message": "asleep"}
    assert lab.session.get(f"/jobs/{name}/log").text.startswith("far in ")


@pytest.mark.slow
def test_a_job_asks_the_resident_model(lab: Server) -> None:
    """On a node, the shipped tool asks the model in the server's process."""
    shown = ended(lab, begin(lab, "sentiment", "main", input={"text": "I love it"}))
    # The embedded model may say anything; the tool repeats what is no mood.
    assert shown.get("result") or "the model was asked" in shown["error"]["message"].lower(), shown


@pytest.mark.slow
def test_both_nodes_are_used_and_cancelled(lab: Server, nodes: RayNodes, tmp_path: Path) -> None:
    """Each node has one processor, so two jobs are on two. A third waits, and its log says for what."""
    files = [tmp_path / str(number) for number in range(3)]
    names = [begin(lab, "where", input={"file": str(file), "wait": True}) for file in files[:2]]
    (first, one), (second, other) = written(lab, nodes, files[0]), written(lab, nodes, files[1])
    assert {one, other} == set(nodes.ids())
    third = begin(lab, "where", input={"file": str(files[2]), "wait": True})
    note = lab.wait_until(lambda: lab.session.get(f"/jobs/{third}/log").text, "the note")
    assert note.startswith("The job waits for CPU 1 on the Ray cluster; 2 of its 2 nodes are large enough.")
    assert lab.session.delete(f"/jobs/{third}").json()["state"] == "cancelled" and not files[2].exists()
    assert lab.session.delete(f"/jobs/{names[0]}").json()["state"] == "cancelled"
    assert not psutil.pid_exists(first) and psutil.pid_exists(second)
    Path(f"{files[1]}.go").touch()
    found = json.loads(ended(lab, names[1])["result"])
    assert found["pid"] == second
    # Its code came with the job.
    assert f"/code/{job(lab, names[1])['generation']}/server/tools/" in found["code"]


@pytest.mark.slow
def test_failures_say_why(lab: Server) -> None:
    shown = [
        begin(lab, "fail", input={"reason": "no more tin"}),
        begin(lab, "crash"),
        begin(lab, "nap", input={"seconds": 60}, timeout=0.5),
    ]
    failed, crashed, late = (ended(lab, name) for name in shown)
    assert "no more tin" in failed["error"]["message"] and "tools/for_jobs.py" in failed["error"]["traceback"]
    assert crashed["error"]["type"] == "worker_crashed" and crashed["error"]["signal"] == "SIGSEGV"
    assert "0.5 seconds" in late["error"]["message"]
    shown_gpu = ended(lab, begin(lab, "needs_gpu", timeout=0.5))
    assert shown_gpu["state"] == "failed" and "num_gpus=1" in shown_gpu["error"]["message"]


@pytest.mark.slow
def test_a_lost_node(lab: Server, nodes: RayNodes, tmp_path: Path) -> None:
    """A node is killed with all of Ray on it: its job is lost, or tried again on another if that is allowed. Nothing
    of it is left, and each has one end."""
    file, repeated = tmp_path / "once", tmp_path / "again"
    blocking = [begin(lab, "where", input={"file": str(tmp_path / f"b{n}"), "wait": True}) for n in range(2)]
    for number in range(2):
        written(lab, nodes, tmp_path / f"b{number}")
    # The only free place is the new node's.
    node = nodes.add()
    name = begin(lab, "where", input={"file": str(file), "wait": True})
    pid, place = written(lab, nodes, file)
    assert place == node
    again = nodes.add()
    second = begin(lab, "again", input={"file": str(repeated)})
    repeated_pid, repeated_on = written(lab, nodes, repeated)
    assert repeated_on == again
    nodes.kill(node)
    nodes.kill(again)
    shown = ended(lab, name)
    assert shown["state"] == "lost" and shown["error"]["type"] == "lost", shown
    lab.wait_until(lambda: not psutil.pid_exists(pid) and not psutil.pid_exists(repeated_pid), "the end of both")
    for number in range(2):
        Path(f"{tmp_path}/b{number}.go").touch()
    shown = ended(lab, second)
    assert (shown["state"], shown["result"], shown["tries"]) == ("succeeded", "done again", 2), shown
    assert all(ended(lab, one)["state"] == "succeeded" for one in blocking)


@pytest.mark.slow
def test_the_connection_is_made_again(lab: Server, nodes: RayNodes, tmp_path: Path) -> None:
    """The process that is connected to the cluster is killed: its jobs are lost, and the next one succeeds."""
    name = begin(lab, "where", input={"file": str(tmp_path / "file"), "wait": True})
    pid, _ = written(lab, nodes, tmp_path / "file")
    for child in psutil.Process(lab.process.pid).children():
        if "server.jobs.ray_driver" in child.cmdline():
            child.kill()
    shown = ended(lab, name)
    assert shown["state"] == "lost" and "connection to the Ray cluster" in shown["error"]["message"], shown
    wait_for(lambda: not psutil.pid_exists(pid), "the end of the job")
    assert ended(lab, begin(lab, "nap", input={"seconds": 0}))["result"] == "rested"


@pytest.mark.slow
def test_nothing_is_left_of_a_killed_server(nodes: RayNodes, tmp_path: Path) -> None:
    """SIGKILL of the server ends its jobs on the nodes, and the next start knows."""
    settings: dict[str, object] = {"RAY_ADDRESS": nodes.address, "DATA_DIR": tmp_path / "data"}
    server = start(tmp_path / "first", REPOSITORY, settings)
    try:
        server.wait_until_ready()
        put_tools(server, "jobs", TOOLS)
        name = begin(server, "where", input={"file": str(tmp_path / "file"), "wait": True})
        pid, _ = written(server, nodes, tmp_path / "file")
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not psutil.pid_exists(pid), "the end of the job")
    finally:
        end(server)
    second = start(tmp_path / "second", REPOSITORY, settings)
    try:
        assert job(second, name)["state"] == "lost"
    finally:
        end(second)


@pytest.mark.slow
def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    """The server starts, and a job says what is wrong."""
    server = start(tmp_path / "server", REPOSITORY, {"RAY_ADDRESS": "127.0.0.1:1"})
    try:
        server.wait_until_ready()
        name = begin(server, "calculator", "main", input={"expression": "1 + 1"})
        shown = ended(server, name, seconds=120)  # Ray itself tries for long
        assert shown["state"] == "failed" and "HEARTH_RAY_ADDRESS" in shown["error"]["message"], shown
    finally:
        end(server)


@pytest.mark.slow
def test_values_are_shared(lab: Server) -> None:
    """Last, because the agent that is woken may start more jobs, and they would take places."""
    names = [begin(lab, "count", input={"times": 20}, session_id="counting") for _ in range(2)]
    assert max(int(ended(lab, name)["result"]) for name in names) == 40
