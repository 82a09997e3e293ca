"""Workers as processes: they share nothing, their end is reported, and nothing is left of them."""

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.workers import stacks
from server.workers.inside import guard
from server.workers.output import LINES_A_SECOND, OutputLog
from server.workers.template import End, Process, Template, WorkerStartError
from tests.support.server_process import REPOSITORY
from tests.support.worker_entry import ENTRY, execute, send

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks from a template are Linux's")

TRAPS = '''
"""What a template may have done before it forks."""
import atexit, random, signal, sys, warnings
atexit.register(lambda: open({exit_file!r}, "a").write("template\\n"))
signal.signal(signal.SIGTERM, lambda number, frame: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
random.seed(1)
sys.stdout.write("buffered")
'''


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    """Shared. Its workers have numpy and torch."""
    os.environ["WORKER_TEST_SECRET"] = "secret"
    shared = Template(memory_bytes=None, hidden=["WORKER_TEST_SECRET"], entry=ENTRY, preload=["numpy", "torch"])
    del os.environ["WORKER_TEST_SECRET"]
    yield shared
    shared.close()


@pytest.fixture
def make_template() -> Iterator[Callable[..., Template]]:
    made = []

    def make(**settings: Any) -> Template:
        template = Template(**{"memory_bytes": None, "entry": ENTRY, "preload": []} | settings)
        made.append(template)
        return template

    yield make
    for template in made:
        template.close()


@pytest.fixture
def spawn(template: Template) -> Iterator[Callable[[], Process]]:
    """Workers that end with the test."""
    made: list[Process] = []

    def make() -> Process:
        made.append(template.spawn())
        return made[-1]

    yield make
    for process in made:
        finish(process)


def finish(process: Process) -> End:
    """End it, and give its end."""
    process.kill()
    assert process.ended.wait(10)
    process.socket.close()
    assert process.end is not None
    return process.end


def end_of(process: Process, code: str, seconds: float = 10) -> End:
    """How it ends when it executes the code."""
    send(process, code)
    assert process.ended.wait(seconds)
    assert process.end is not None
    return process.end


def is_running(pid: int) -> bool:
    """Does this process exist, and is it no zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


STRANGERS: set[int] = set()
"""Processes that other tests have started from this one, such as servers that are shared."""


@pytest.fixture(scope="module", autouse=True)
def strangers() -> None:
    STRANGERS.clear()
    STRANGERS.update(children())


def children() -> list[int]:
    """Processes that this one has started itself."""
    return [child.pid for child in psutil.Process().children()]


def family() -> list[int]:
    """All processes below the tests' own, without the strangers."""
    own = [pid for pid in children() if pid not in STRANGERS]
    return own + [below for pid in own for below in guard.descendants(pid)]


def name(pid: int) -> str:
    """As in `ps`; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def named(*names: str) -> list[int]:
    return [pid for pid in family() if name(pid) in names]


# What a worker does not share


def test_a_worker_has_no_descriptors_but_its_own(spawn: Callable[[], Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        spawn()
        worker = spawn()
        found = execute(
            worker,
            "import os\nanswer = {}\n"
            "for fd in os.listdir('/proc/self/fd'):\n"
            "    try: answer[fd] = os.readlink('/proc/self/fd/' + fd)\n"
            "    except OSError: pass\n",
        )
    assert set(found) == {"0", "1", "2", "100", "101"}
    assert found["0"] == "/dev/null"
    assert found["1"] == found["2"]
    assert found["1"].startswith("pipe:")
    assert found["100"].startswith("socket:")
    assert "hearth-stacks" in found["101"]
    assert execute(worker, "answer = sock.fileno()") == 100


def test_the_guard_has_only_its_channel(spawn: Callable[[], Process]) -> None:
    spawn()
    parent = execute(spawn(), "import os; answer = os.getppid()")

    def sockets() -> int:
        return [os.readlink(path)[:7] for path in Path(f"/proc/{parent}/fd").iterdir()].count("socket:")

    wait_until(lambda: sockets() == 3)  # and the pair that wakes it


def test_closing_the_low_descriptors_leaves_a_worker_its_protocol(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    assert execute(worker, "import os; os.closerange(0, 31); answer = 1") == 1
    assert execute(worker, "answer = 2") == 2
    assert "Current thread" in worker.stacks()


def test_workers_draw_different_random_numbers(spawn: Callable[[], Process]) -> None:
    code = (
        "import random, numpy, torch, uuid, tempfile, multiprocessing\n"
        "answer = [random.random(), numpy.random.random(), torch.rand(1).item(), str(uuid.uuid4()),\n"
        "    tempfile.mktemp(), multiprocessing.current_process().authkey.hex()]"
    )
    one, other = execute(spawn(), code), execute(spawn(), code)
    assert not set(one) & set(other)


def test_a_worker_is_as_a_python_that_has_just_started(
    make_template: Callable[..., Template], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    exit_file = tmp_path / "exits"
    (tmp_path / "fork_traps.py").write_text(TRAPS.format(exit_file=str(exit_file)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    template = make_template(preload=["fork_traps"])
    code = (
        "import atexit, gc, os, signal, random, sys\n"
        "ours = {signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ}\n"
        "answer = {\n"
        "    'handlers': [n for n in signal.valid_signals() - ours if signal.getsignal(n) not in (0, None)],\n"
        "    'interrupt': signal.getsignal(signal.SIGINT) is signal.default_int_handler,\n"
        "    'mask': list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),\n"
        "    'exits': atexit._ncallbacks(), 'frozen': gc.get_freeze_count(), 'gc': gc.isenabled(),\n"
        "    'leads': [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],\n"
        "    'random': random.random(), 'input': sys.stdin.read(),\n"
        "}\n"
    )
    workers = [template.spawn() for _ in range(2)]
    found, other = (execute(worker, code) for worker in workers)
    assert found["random"] != other["random"]
    assert found["handlers"] == found["mask"] == []
    assert found["interrupt"]
    assert found["exits"] == 0
    assert found["frozen"] > 1000
    assert found["gc"]
    assert found["leads"] == [True, True]
    assert found["input"] == ""
    send(workers[0], f"atexit.register(lambda: open({str(exit_file)!r}, 'a').write('worker\\n')); print('a', end='')")
    send(workers[0], "raise SystemExit(4)")
    assert workers[0].ended.wait(10)
    assert workers[0].end is not None
    assert workers[0].end.exit_code == 4
    assert workers[0].end.output == ["a"]
    assert finish(workers[1]).output == []
    workers[0].socket.close()
    assert exit_file.read_text() == "worker\n"
    template.close()
    assert exit_file.read_text() == "worker\n"
    assert [message for message in caplog.messages if "buffered" in message] == ["[template] buffered"]


def test_a_worker_has_no_secrets(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    assert execute(worker, "import os; answer = 'WORKER_TEST_SECRET' in os.environ") is False
    assert execute(worker, "answer = os.environ['PYTORCH_NVML_BASED_CUDA_CHECK']") == "1"
    for pid in (worker.pid, *family()):
        assert b"WORKER_TEST_SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_worker_gets_out_of_the_server_s_way(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    assert execute(worker, "import os; answer = os.nice(0)") == os.nice(0)
    lower = "from server.workers.inside.priority import lower_priority; lower_priority(3); answer = os.nice(0)"
    assert execute(worker, f"import os; {lower}") == os.nice(0) + 3
    assert execute(worker, "answer = open('/proc/self/oom_score_adj').read().strip()") == "500"
    group = Path(f"/proc/{worker.pid}/autogroup")
    if group.exists():
        wait_until(lambda: group.read_text().split()[-1] == str(os.nice(0) + 3))


def test_the_template_has_one_thread_and_no_cuda(template: Template, spawn: Callable[[], Process]) -> None:
    worker = spawn()
    for pid in named("hearth-template", "hearth-guard", "hearth-keeper"):
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    assert execute(worker, "import torch; answer = torch.cuda.is_initialized()") is False
    assert execute(worker, "answer = (torch.ones(300, 300) @ torch.ones(300, 300)).sum().item()") == 300**3
    assert execute(worker, "import numpy; answer = float((numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum())")


def test_a_memory_limit_is_on_top_of_what_the_template_has(make_template: Callable[..., Template]) -> None:
    worker = make_template(memory_bytes=200 << 20, preload=["numpy"]).spawn()
    assert execute(worker, "kept = bytearray(100 << 20); answer = len(kept)") == 100 << 20
    assert execute(worker, "bytearray(150 << 20)").startswith("MemoryError")
    finish(worker)


# How it ends


@pytest.mark.parametrize(
    ("code", "exit_code", "number", "described"),
    [
        ("import ctypes; ctypes.string_at(0)", None, "SIGSEGV", "ended with SIGSEGV"),
        ("import os; os._exit(3)", 3, None, "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", None, "SIGKILL", "ended with SIGKILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", None, "SIGSTOP", "was stopped by SIGSTOP"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", None, "SIGTERM", "ended with SIGTERM"),
        ("import os; os.abort()", None, "SIGABRT", "ended with SIGABRT"),
        ("import sys; sys.exit('why')", 1, None, "ended with exit code 1"),
    ],
)
def test_the_end_is_reported(
    code: str, exit_code: int | None, number: str | None, described: str, spawn: Callable[[], Process]
) -> None:
    worker = spawn()
    worker.code_folder = str(REPOSITORY / "tests" / "support")
    began = time.monotonic()
    end = end_of(worker, "print('the last words', end='')\n" + code)
    assert time.monotonic() - began < 5
    assert (end.exit_code, end.signal, end.describe()) == (exit_code, number, described)
    assert end.output[0] == "the last words" or "why" in end.output[-1]
    if number in ("SIGSEGV", "SIGABRT"):
        assert end.place is not None
        assert end.place[0] == str(REPOSITORY / "tests" / "support" / "worker_entry.py")
        assert "Fatal Python error" in end.traceback
    else:
        assert end.place is None
    assert not exists(worker.pid)


def test_an_end_is_called_back_once_also_afterwards(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    before: list[End] = []

    def failing(_: End) -> None:
        raise ZeroDivisionError

    worker.on_end(failing)
    worker.on_end(before.append)
    end = finish(worker)
    worker.kill()
    after: list[End] = []
    worker.on_end(after.append)
    wait_until(lambda: before)
    assert before == after == [end]
    assert worker.stacks() == ""
    assert worker.usage() == (0, 0)


ORPHAN = """
import os, sys, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        time.sleep(1000)
    os._exit(0)
answer = int(os.read(read, 100))
"""

FORKS = """
import os, time
answer = []
for _ in range(50):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os.setsid()
        time.sleep(1000)
        os._exit(0)
    answer.append(pid)
"""


@pytest.mark.parametrize("last", ["import os; os._exit(0)", "import ctypes; ctypes.string_at(0)", None])
def test_nothing_that_a_worker_starts_outlives_it(last: str | None, spawn: Callable[[], Process]) -> None:
    worker = spawn()
    wait_until(
        lambda: len([pid for pid in family() if Path(f"/proc/{pid}/comm").read_text() == "hearth-worker\n"]) > 1
    )
    orphan = execute(worker, ORPHAN)
    forked = execute(worker, FORKS)
    time.sleep(0.05)
    below = guard.descendants(worker.pid)
    assert set(forked) < set(below)
    assert is_running(orphan)
    assert worker.usage().memory_bytes > 0
    if last is None:
        finish(worker)
    else:
        end_of(worker, last)
    assert not [pid for pid in (orphan, worker.pid, *below) if exists(pid)]


def test_a_fork_bomb_that_goes_on_is_ended(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    send(
        worker,
        "import os, time, resource\n"
        "while len(os.listdir('/proc')) < 600:\n    os.fork()\n"
        "while True:\n    os.fork() or os._exit(0)\n",
    )
    time.sleep(0.5)
    finish(worker)
    assert len(named("hearth-worker")) <= 1  # the spare


def test_a_worker_that_kills_its_guard_leaves_nothing(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    orphan = execute(worker, ORPHAN)
    end = end_of(worker, "import os; os.kill(os.getppid(), 9)")
    assert end.signal == "SIGKILL"
    wait_until(lambda: not exists(orphan) and not exists(worker.pid))


def test_zombies_are_reaped_while_a_worker_runs(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    orphan = execute(worker, ORPHAN)
    os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: not exists(orphan))
    assert execute(worker, "answer = 1") == 1


def test_fifty_workers_leave_no_descriptor_and_no_process(template: Template) -> None:
    def spares() -> int:
        return len(named("hearth-worker"))

    def held() -> tuple[int, int, int]:
        # What earlier tests have left is collected at some time: before, and not in between.
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(family()), threading.active_count()

    wait_until(lambda: spares() == 1)
    before = held()
    for number in range(50):
        worker = template.spawn()
        assert execute(worker, "answer = 7") == 7
        if number % 2:
            end_of(worker, "import os; os._exit(1)")
        finish(worker)
    wait_until(lambda: spares() == 1)
    wait_until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)), 60)


SERVER = f"""
import os, sys, time
from server.workers.template import Template
from tests.support.worker_entry import ENTRY, execute
template = Template(memory_bytes=None, entry=ENTRY, preload=[], method=sys.argv[1])
workers = [template.spawn() for _ in range(3)]
for worker in workers:
    execute(worker, {ORPHAN!r})
print("begun", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_nothing_outlives_a_server_that_is_killed(method: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, method], cwd=REPOSITORY, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"begun\n"
        below = guard.descendants(server.pid)
        assert len(below) >= 9
        server.kill()
        wait_until(lambda: not [pid for pid in below if exists(pid)], 5)


def test_an_interrupt_from_the_terminal_reaches_only_the_server(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    sessions = {os.getsid(pid) for pid in family()}
    assert os.getsid(0) not in sessions
    for pid in named("hearth-template", "hearth-guard", "hearth-keeper"):
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert execute(worker, "answer = 1") == 1
    assert execute(spawn(), "answer = 2") == 2


# What can be asked


def test_stacks_of_threads_that_hold_pythons_lock(spawn: Callable[[], Process], tmp_path: Path) -> None:
    code = tmp_path / "busy.py"
    code.write_text("import re\ndef work():\n    re.match('(a+)+$', 'a' * 40 + 'b')\n")
    worker = spawn()
    worker.code_folder = str(tmp_path)
    send(worker, f"import sys, threading; sys.path.insert(0, {str(tmp_path)!r}); import busy; busy.work()")
    wait_until(lambda: worker.place_in(worker.stacks()) == (str(code), 3))
    finish(worker)


def test_stacks_prefer_a_thread_at_work(spawn: Callable[[], Process], tmp_path: Path) -> None:
    code = tmp_path / "threads.py"
    code.write_text(
        "import threading\nimport time\n"
        "def wait():\n    threading.Event().wait()\n"
        "def work():\n    time.sleep(1000)\n"
        "for call in (work, wait, wait):\n    threading.Thread(target=call, daemon=True).start()\n"
    )
    worker = spawn()
    worker.code_folder = str(tmp_path)
    execute(worker, f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import threads")
    text = worker.stacks()
    assert text.count("most recent call first") == 4
    assert worker.place_in(text) == (str(code), 6)
    execute(worker, "import signal; signal.signal(signal.SIGUSR2, signal.SIG_DFL)")
    assert worker.stacks(0.2) == ""
    assert execute(worker, "answer = 1") == 1


def test_the_place_of_a_crash_is_the_crashed_threads() -> None:
    text = (
        "Fatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n"
        '  File "/code/other.py", line 1 in f\n\n'
        'Current thread 0x2 (most recent call first):\n  File "/lib/x.py", line 5 in g\n'
        '  File "/code/sch\\xf6n.py", line 7 in h\n  File "/code/main.py", line 9 in <module>\n'
    )
    assert stacks.crash_place(text, "/code") == ("/code/schön.py", 7)
    assert stacks.crash_place(text, "/other") is None
    assert stacks.crash_place(text, "/cod") is None
    assert stacks.crash_place(text, None) is None
    assert stacks.crash_place("", "/code") is None


def test_usage_counts_what_a_worker_starts(spawn: Callable[[], Process]) -> None:
    worker = spawn()
    before = worker.usage()
    execute(
        worker,
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    kept = bytes(range(256)) * 400_000\n"
        "    while time.process_time() < 0.3: pass\n"
        "    time.sleep(1000)\n",
    )
    wait_until(lambda: worker.usage().cpu_seconds >= before.cpu_seconds + 0.2)
    assert worker.usage().memory_bytes > before.memory_bytes + 50_000_000


# Output


def test_output_is_logged_by_line(spawn: Callable[[], Process], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worker")
    worker = spawn()
    worker.name_output("sam 3f2a91c04b7e")
    execute(
        worker,
        "import os, sys, subprocess\nprint('one\\ntwo')\nprint('three', file=sys.stderr)\n"
        "subprocess.run(['echo', 'four'])\nos.write(1, b'5%\\r50%\\r\\n')\nos.write(2, b'\\xff' + b'x' * 5000)\n",
    )
    end = finish(worker)
    cut = "\N{REPLACEMENT CHARACTER}" + "x" * 1999 + "..."
    assert end.output == ["one", "two", "three", "four", "50%", cut]
    assert [message for message in caplog.messages if "sam" in message] == [
        f"[sam 3f2a91c04b7e] {line}" for line in end.output
    ]


def test_a_flood_of_output_costs_the_server_little(
    spawn: Callable[[], Process], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker")
    worker = spawn()
    worker.name_output("flood")
    before = time.process_time()
    began = time.monotonic()
    send(worker, "number = 0\nwhile True:\n    print('line', number)\n    number += 1\n")
    time.sleep(2)
    end = finish(worker)
    spent = (time.process_time() - before) / (time.monotonic() - began)
    assert spent < 0.25
    lines = [message for message in caplog.messages if message.startswith("[flood] line")]
    assert LINES_A_SECOND <= len(lines) <= 5 * LINES_A_SECOND
    assert any("lines left out" in message for message in caplog.messages)
    assert len(end.output) == 20
    whole = [int(line.split()[1]) for line in end.output[:-1]]
    assert whole == list(range(whole[0], whole[0] + 19))


def test_lines_are_counted_however_they_arrive(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worker")
    output = OutputLog("x")
    data = b"".join(b"%d\n" % number for number in range(5000)) + b"end"
    for start in range(0, len(data), 7001):
        output.feed(data[start : start + 7001])
    output.end()
    logged = [message for message in caplog.messages if "left out" not in message]
    left_out = [int(message.split()[2].replace(",", "")) for message in caplog.messages if "left out" in message]
    assert len(logged) + sum(left_out) == 5001
    assert list(output.tail) == [*map(str, range(4981, 5000)), "end"]


# The template


def test_a_template_that_died_is_started_anew(
    make_template: Callable[..., Template], caplog: pytest.LogCaptureFixture
) -> None:
    template = make_template()
    first = template.spawn()
    for killed in ("hearth-template", "hearth-keeper"):
        spare = template.spawn()
        os.kill(next(pid for pid in named(killed) if spare.pid in guard.descendants(pid)), signal.SIGKILL)
        second = template.spawn()
        third = template.spawn()
        assert [execute(worker, "answer = 1") for worker in (first, second, third)] == [1, 1, 1]
        for worker in (spare, second, third):
            finish(worker)
    finish(first)
    assert "The template of the workers has ended" in caplog.text


def test_an_entry_that_is_not_there(make_template: Callable[..., Template], caplog: pytest.LogCaptureFixture) -> None:
    worker = make_template(entry="tests.nothing:main").spawn()
    assert worker.ended.wait(20)
    assert worker.end is not None
    assert worker.end.exit_code == 1
    assert "No module named 'tests.nothing'" in worker.end.output[-1]
    worker.socket.close()


def test_a_template_that_ends_while_it_imports(
    make_template: Callable[..., Template], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fork_ends.py").write_text("import os; os.write(2, b'no good\\n'); os._exit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    template = make_template(preload=["fork_ends"])
    with pytest.raises(WorkerStartError, match="no good"):
        template.spawn()


LEARNED = {
    "learn_good": "import json\nvalue = 42\n",
    "learn_better": "value = 43\n",
    "learn_raises": "1 / 0\n",
    "learn_threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n",
    "learn_crash": "import ctypes\nctypes.string_at(0)\n",
    "learn_hang": "import time\ntime.sleep(1000)\n",
    "learn_hang_c": "import re\nre.match('(a+)+$', 'a' * 40 + 'b')\n",
    "learn_open": "file = open('/dev/null')\n",
    "learn_process": "import subprocess\nsubprocess.Popen(['sleep', '1000'])\n",
    "learn_exits": "raise SystemExit(1)\n",
}


def test_the_template_learns(
    make_template: Callable[..., Template], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in LEARNED.items():
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'a').write('x')\n{code}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    template = make_template(import_seconds=1.0)
    early = template.spawn()
    template.learn([*LEARNED, "faiss", "bitsandbytes.nn", "json"])
    while_learning = template.spawn()
    assert execute(while_learning, "import sys; answer = 'learn_good' in sys.modules") is False
    wait_until(lambda: "learn_better" in template.learned, 60)
    assert set(template.learned) == {"learn_good", "learn_better", "json"}
    why = template.left_out
    assert why["learn_raises"] == "ZeroDivisionError: division by zero"
    assert why["learn_threads"] == "it starts threads (1)"
    assert "ends the process" in why["learn_crash"]
    assert "longer than 1 s" in why["learn_hang"]
    assert "longer than 1 s" in why["learn_hang_c"]
    assert why["learn_open"] == "it keeps files open"
    assert why["learn_process"] == "it starts processes"
    assert "ends the process" in why["learn_exits"]
    assert set(why) == set(LEARNED) - {"learn_good", "learn_better"} | {"faiss", "bitsandbytes.nn"}
    late = template.spawn()
    code = "import sys; answer = ['learn_good' in sys.modules, 'learn_threads' in sys.modules]"
    assert execute(late, code) == [True, False]
    assert [execute(worker, "answer = 1") for worker in (early, while_learning, late)] == [1, 1, 1]
    tried = {name: (tmp_path / name).read_text() for name in LEARNED}
    template.learn(["learn_threads", "learn_crash.inner", "learn_good"])
    template.learn(["learn_later"])
    wait_until(lambda: "learn_later" in template.left_out)
    assert {name: (tmp_path / name).read_text() for name in LEARNED} == tried
    for worker in (early, while_learning, late):
        finish(worker)
    assert named("sleep", "hearth-learning") == []


def test_a_new_template_learns_again(
    make_template: Callable[..., Template], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "learn_again.py").write_text("value = 1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    template = make_template()
    finish(template.spawn())
    template.learn(["learn_again"])
    wait_until(lambda: template.learned == ["learn_again"])
    worker = template.spawn()
    os.kill(next(pid for pid in named("hearth-template") if worker.pid in guard.descendants(pid)), signal.SIGKILL)
    finish(worker)

    def learned() -> bool:
        worker = template.spawn()
        found = execute(worker, "import sys; answer = 'learn_again' in sys.modules")
        finish(worker)
        return bool(found)

    wait_until(learned)


def test_many_threads_spawn_at_once(template: Template) -> None:
    answers: list[int] = []

    def use(number: int) -> None:
        worker = template.spawn()
        answers.append(execute(worker, f"answer = {number}"))
        finish(worker)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(8))


def test_closing_ends_everything(make_template: Callable[..., Template]) -> None:
    others = set(family())
    descriptors = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    template = make_template()
    worker = template.spawn()
    other = template.spawn()
    assert other.pid != worker.pid
    orphan = execute(worker, ORPHAN)
    template.close()
    template.close()
    assert worker.ended.is_set()
    assert not exists(orphan)
    assert set(family()) <= others
    assert threading.active_count() <= threads
    with pytest.raises(WorkerStartError):
        template.spawn()
    worker.socket.close()
    other.socket.close()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_spawned_workers(make_template: Callable[..., Template], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    others = set(family())
    template = make_template(method="spawn", preload=["numpy"])
    template.learn(["json"])
    worker = template.spawn()
    assert execute(worker, "import os, sys; answer = 'numpy' in sys.modules") is True
    assert execute(worker, "answer = sorted(int(fd) for fd in os.listdir('/proc/self/fd'))")[:3] == [0, 1, 2]
    orphan = execute(worker, ORPHAN)
    assert "Current thread" in worker.stacks()
    end = end_of(worker, "print('bye'); import ctypes; ctypes.string_at(0)")
    assert end.signal == "SIGSEGV"
    assert end.output == ["bye"]
    assert not exists(orphan)
    worker.socket.close()
    assert finish(template.spawn()).signal == "SIGKILL"
    template.close()
    assert set(family()) <= others
    assert template.learned == []
