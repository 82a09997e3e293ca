"""Cells that take all they can, or attack the server that reads their replies: each ends with a clear error, its
session works again, and others are served meanwhile."""

import itertools
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.escape_targets import files_of, run_cell
from tests.support.hostile_cells import HOSTILE, QUICK
from tests.support.server_process import REPOSITORY, Server, end, start

NUMBERS = itertools.count(1)
MOST_SECONDS = 60.0
"""For a hostile cell. How long it takes on an idle machine is a matter of the benchmark."""
FILES_BYTES = 64 * 2**20
CHANNEL = """
import os, socket, struct, json
names = [int(name) for name in os.listdir("/proc/self/fd")]
channel = next(n for n in names if os.path.lexists(f"/proc/self/fd/{n}")
               and os.readlink(f"/proc/self/fd/{n}").startswith("socket"))
def send(data):
    os.write(channel, data)
def message(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    send(struct.pack(">I", len(data)) + data)
reply = {"number": 1, "result": None, "error": None, "figures": [], "files": [], "variables": [], "unsaved": {}}
"""
INDEX = "import os, json, shutil\npath = '/state/variables/variables.json'\n"
LEAVE = "\nimport os\nos._exit(0)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "AUTOLOAD": "false",
        "SANDBOX_MEMORY_GB": 0.4,
        "SANDBOX_PROCESSES": 24,
        "SANDBOX_SPARES": 1,
        "SESSION_FILES_BYTES": FILES_BYTES,
    }
    started = start(tmp_path_factory.mktemp("hostile") / "server", REPOSITORY, settings)
    try:
        yield started
    finally:
        end(started)


@pytest.fixture
def session() -> str:
    return f"hostile{next(NUMBERS)}"


def attack(server: Server, session: str, code: str, timeout: float = 2) -> dict[str, Any]:
    """Run a hostile cell after an ordinary one, while a neighbour works. Returns its answer, after it was seen that
    the session works again with its earlier variables, and that the neighbour did all the time."""
    assert run_cell(server, session, "before = 7")["error"] is None
    answers: list[dict[str, Any]] = []
    began = time.monotonic()
    thread = threading.Thread(target=lambda: answers.append(run_cell(server, session, code, timeout=timeout)))
    thread.start()
    while thread.is_alive():
        assert run_cell(server, "neighbour", "1 + 1")["result"]["text"] == "2"
        assert server.health()["status"] == "ok"
        thread.join(0.2)
    assert time.monotonic() - began < MOST_SECONDS
    again = run_cell(server, session, "before")
    assert (again["error"], again["result"]) == (None, {"type": "int", "text": "7"})
    return answers[0]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HOSTILE]
)
def test_a_cell_that_takes_all(server: Server, session: str, name: str) -> None:
    hostile = HOSTILE[name]
    cell = attack(server, session, hostile.code, timeout=hostile.seconds)
    error = cell["error"] or {"message": ""}
    assert re.search(hostile.says, error["message"]), (cell["error"], cell["output"][-200:])
    assert "\x1b" not in json.dumps(cell, ensure_ascii=False)


@pytest.mark.parametrize(
    "code",
    [
        "send(b'garbage, and more of it')",
        "send(struct.pack('>I', 2**32 - 1))",
        "send(struct.pack('>I', 16 * 2**20))\nimport time\ntime.sleep(100)",
        "send(b'\\0\\0')\nimport time\ntime.sleep(100)",
        "while True: send(bytes(65536))",
        "message(b'')",
        "message([])",
        "message({'role': 'init'})",
        "message({'role': 'interpreter'})",
        "message({'variables': [], 'damaged': 'it is not'})",
        "message(b'[' * 10**6)",
        "message(b'{\"a\":' * 10**6)",
        "message(b'{\"a\":[' + b'[],' * 5_000_000 + b'1]}')",
        "message(b'{\"number\":' + b'1' * 10_000 + b'}')",
        "message({**reply, 'number': float('nan')})",
        "message({**reply, 'number': float('inf')})",
        "message({**reply, 'number': -1})",
        "message({**reply, 'more': 1})",
        "message({**reply, 'files': ['../../../etc/passwd']})",
        "message({**reply, 'files': ['/etc/passwd']})",
        "message({**reply, 'figures': [{'png': '../../secret.png'}]})",
        "message({**reply, 'result': {'type': 'x', 'text': 'x', 'png': '\"><script>'}})",
        "message({**reply, 'result': {'type': 'x', 'text': '\\ud800\\x1b]0;title\\x07'}})",
        "message({**reply, 'variables': [{'name': 'x', 'type': 'x', 'saved': True, 'bytes': 1e400}]})",
        "message({**reply, 'variables': [{'name': '\\x1b[31m', 'type': 'x', 'saved': True}] * 300})",
        "message(reply)",
        "for n in range(1000): message(reply)",
        "os.close(channel)",
        "socket.socket(fileno=channel).shutdown(socket.SHUT_RDWR)",
        "os.dup2(os.open('/dev/null', os.O_RDWR), channel)",
    ],
)
def test_a_cell_that_writes_into_its_channel(server: Server, session: str, code: str) -> None:
    assert run_cell(server, session, "before = 7")["error"] is None
    began = time.monotonic()
    cell = run_cell(server, session, CHANNEL + code, timeout=2)
    assert time.monotonic() - began < MOST_SECONDS
    assert "\x1b" not in json.dumps(cell, ensure_ascii=False)
    assert "passwd" not in json.dumps(cell.get("files", []))
    # What is still in the channel costs one more cell.
    run_cell(server, session, "1", timeout=5)
    assert run_cell(server, session, "before")["result"]["text"] == "7"
    assert run_cell(server, "neighbour", "1 + 1")["result"]["text"] == "2"


@pytest.mark.parametrize(
    ("what", "forged", "status"),
    [
        ("", "{'shown': 5}", 503),
        ("", "{'shown': {'type': 'int', 'text': '1'}, 'more': 1}", 503),
        ("", "{'failed': [1]}", 503),
        ("", "{}", 404),
        ("/download", "{'file': '../../../etc/passwd'}", 503),
        ("/download", "{'file': '..'}", 404),
        ("/download", "{'file': 'link'}", 404),
        ("/download", "{'file': 'pipe'}", 404),
        ("/download", "{'file': 5}", 503),
    ],
)
def test_a_forged_reply_about_a_variable(server: Server, session: str, what: str, forged: str, status: int) -> None:
    code = f"""
import os
from server.sandbox.inside.channel import Channel
os.makedirs("/state/exports", exist_ok=True)
os.symlink("/etc/passwd", "/state/exports/link")
os.mkfifo("/state/exports/pipe")
def forge(self, message, send=Channel.send):
    send(self, {forged} if "shown" in message or "file" in message else message)
Channel.send = forge
import server.sandbox.inside.interpreter as interpreter
interpreter.export = lambda name, value, state: "link"
x = 1
"""
    cell = run_cell(server, session, code)
    assert cell["error"] is None, cell
    shown = server.session.get(f"/sessions/{session}/variables/x{what}")
    assert shown.status_code == status, shown.text
    assert "root:" not in shown.text and "validation error" not in shown.text
    assert run_cell(server, session, "x")["result"]["text"] == "1"


@pytest.mark.parametrize(
    "code",
    [
        "open(path, 'w').write('[1]')",
        "open(path, 'w').write('[' * 100_000)",
        "open(path, 'wb').write(bytes(range(256)))",
        "open(path, 'w').write('{\"x\": 1}')",
        "open(path, 'w').write('{')",
        'open(path, \'w\').write(\'{"x": {"number": "../../x", "value": 1, "about": {}}}\')',
        'open(path, \'w\').write(\'{"x": {"number": 1, "value": 1, "about": {"type": 5, "bytes": NaN}}}\')',
        "os.unlink(path), os.mkfifo(path)",
        "os.unlink(path), os.mkdir(path)",
        "os.unlink(path), os.symlink('/etc/passwd', path)",
        "os.unlink(path), os.symlink('/dev/zero', path)",
        "os.unlink(path), os.symlink(path, path)",
        "os.truncate(path, 1 << 25)",
        pytest.param(
            "open(path, 'w').write('{' + ','.join(f'\"v{n}\":[' + '[],' * 99 + '1]' for n in range(90_000)) + '}')",
            marks=pytest.mark.slow,
            id="too large for the memory",
        ),
        "shutil.rmtree('/state/variables'), open('/state/variables', 'w').close()",
        "shutil.rmtree('/state/variables'), os.mkfifo('/state/variables')",
        "shutil.rmtree('/state/variables'), os.symlink('/etc', '/state/variables')",
        "os.chmod(path, 0)",
        "os.chmod('/state/variables', 0)",
    ],
)
def test_a_damaged_index(server: Server, session: str, code: str) -> None:
    assert run_cell(server, session, "before = 7")["error"] is None
    run_cell(server, session, INDEX + code + LEAVE)
    began = time.monotonic()
    cell = run_cell(server, session, "1")
    assert time.monotonic() - began < MOST_SECONDS
    assert cell["error"]["type"] == "VariablesDamaged" and "moved aside" in cell["error"]["message"], cell
    assert run_cell(server, session, "after = 8")["error"] is None
    assert run_cell(server, session, "import os\nos._exit(0)")["error"]["type"] == "InterpreterEnded"
    assert run_cell(server, session, "after")["result"]["text"] == "8"
    assert [one["name"] for one in server.session.get(f"/sessions/{session}/variables").json()["variables"]] == [
        "after"
    ]


@pytest.mark.parametrize("code", ["os.chmod('/state', 0)", "os.chmod('/session', 0)", "shutil.rmtree('/state/code')"])
def test_a_folder_that_is_closed(server: Server, session: str, code: str) -> None:
    assert run_cell(server, session, "before = 7")["error"] is None
    run_cell(server, session, INDEX + code + LEAVE)
    assert run_cell(server, session, "open('file', 'w').close()\nbefore")["result"]["text"] == "7"


@pytest.mark.parametrize(
    ("make", "damage"),
    [
        ("import numpy as np\nx = np.arange(9)", "open(file, 'wb').write(b'\\x93NUMPY\\x01\\0\\xff\\xff{')"),
        (
            "import numpy as np\nx = np.arange(9)",
            "np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)",
        ),
        pytest.param(
            "import numpy as np\nx = np.arange(9)",
            "os.unlink(file), os.mkfifo(file)",
            marks=pytest.mark.slow,
            id="a pipe in the place of an array",
        ),
        ("import numpy as np\nx = np.arange(9)", "os.unlink(file), os.symlink('/dev/zero', file)"),
        ("import numpy as np\nx = np.arange(9)", "os.unlink(file)"),
        (
            "import pandas as pd\nx = pd.DataFrame({'a': [1]})",
            "open(file, 'wb').write(b'PAR1' + bytes(100) + b'PAR1')",
        ),
    ],
)
def test_a_damaged_value(server: Server, session: str, make: str, damage: str) -> None:
    """It costs the cell that uses it, and no code of it runs in the server."""
    marker = Path("/tmp") / f"hearth-pickled-{next(NUMBERS)}"
    bomb = f"class Bomb:\n    def __reduce__(self): return (open, ({str(marker)!r}, 'w'))\n"
    run_cell(server, session, f"{make}\nbefore = 7")
    code = f"import glob, os\nimport numpy as np\n{bomb}file = glob.glob('/state/variables/*/1.*')[0]\n{damage}"
    run_cell(server, session, code + LEAVE)
    assert server.session.get(f"/sessions/{session}/variables").status_code == 200
    cell = run_cell(server, session, "x", timeout=2)
    assert cell["error"] is not None, cell
    assert server.session.get(f"/sessions/{session}/variables/x").status_code in (404, 503)
    assert run_cell(server, session, "before")["result"]["text"] == "7"
    assert not marker.exists()


@pytest.mark.parametrize(
    "path", ["/tmp/matplotlib/matplotlibrc", "/session/matplotlibrc", "/tmp/matplotlib/fontlist.json"]
)
def test_poisoned_figures(server: Server, session: str, path: str) -> None:
    """What matplotlib reads is the session's own: a new interpreter has imported it before it sees the files."""
    poison = f"import os\npath = {path!r}\nos.makedirs(os.path.dirname(path), exist_ok=True)\n"
    run_cell(server, session, poison + "open(path, 'w').write('backend: evil')" + LEAVE)
    cell = run_cell(server, session, "import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert cell["error"] is None and cell["figures"][0]["png"], cell


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass",
    ],
)
def test_what_is_left_running_is_ended(server: Server, session: str, code: str) -> None:
    before = server.output.count("after the cell's end")
    run_cell(server, session, f"before = 7\n{code}")
    server.wait_until(lambda: server.output.count("after the cell's end") > before, "the end of it", 40)
    assert run_cell(server, session, "before")["result"]["text"] == "7"


def test_files_that_are_written_after_the_cell(server: Server, session: str) -> None:
    """By a process that it has left, which takes little of the processor."""
    before = server.output.count("the session's files were")
    write = (
        "import time\ntime.sleep(1)\nfor n in range(8): open(f'late{n}', 'wb').write(bytes(1 << 24))\ntime.sleep(99)"
    )
    run_cell(
        server, session, f"before = 7\nimport subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {write!r}])"
    )
    server.wait_until(lambda: server.output.count("the session's files were") > before, "the end of the process", 40)
    assert run_cell(server, session, "before")["result"]["text"] == "7"


def test_a_shared_socket_is_shared(server: Server, session: str) -> None:
    """A decision: a program that puts a socket into a session's folder lets its code connect."""
    run_cell(server, session, "1")
    folder = os.open(files_of(server, session), os.O_RDONLY)  # the whole path is too long for a socket
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/shared.sock")
        os.close(folder)
        made.listen()
        cell = run_cell(server, session, "import socket\nsocket.socket(socket.AF_UNIX).connect('shared.sock')")
        assert cell["error"] is None
