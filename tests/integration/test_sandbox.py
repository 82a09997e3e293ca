"""Code in a session's sandbox, as clients use it: cells, variables, figures, limits."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from tests.support.event_stream import EVENT_STREAM, read
from tests.support.server_process import REPOSITORY, Server, end, start

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Shared by this file's tests, each with sessions of its own. It has no model: code needs none."""
    settings = {"AUTOLOAD": "false", "SANDBOX_MEMORY_GB": 0.5, "SANDBOX_PROCESSES": 32, "SANDBOX_SPARES": 1}
    started = start(tmp_path_factory.mktemp("sandbox") / "server", REPOSITORY, settings)
    try:
        yield started
    finally:
        end(started)


@pytest.fixture
def session() -> str:
    return f"s{next(NUMBERS)}"


def run(server: Server, session: str, code: str, **more: Any) -> dict[str, Any]:
    answer = server.session.post(f"/sessions/{session}/code", json={"code": code, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def value(server: Server, session: str, code: str) -> str:
    """The text of a cell's last line."""
    cell = run(server, session, code)
    assert cell["error"] is None, cell
    text: str = cell["result"]["text"]
    return text


def test_a_cell(server: Server, session: str) -> None:
    cell = run(server, session, "x = 6\nprint('six', 'times')\nx * 7")
    assert (cell["number"], cell["output"], cell["error"]) == (1, "six times\n", None)
    assert cell["result"] == {"type": "int", "text": "42"}
    assert cell["isolation"] == "bubblewrap"
    assert [(one["name"], one["type"], one["text"], one["saved"]) for one in cell["variables"]] == [
        ("x", "int", "6", True)
    ]
    assert run(server, session, "y = x + 1")["number"] == 2
    assert value(server, session, "y") == "7"


def test_a_frame_is_shown_as_a_table(server: Server, session: str) -> None:
    cell = run(
        server,
        session,
        "import pandas as pd\npd.DataFrame({'name': ['<b>', None], 'n': [1, 2]}, index=['a', 'b'])",
    )
    table = cell["result"]["table"]
    assert (table["columns"], table["index"], table["row_count"]) == (["name", "n"], ["a", "b"], 2)
    assert table["rows"][0] == ["<b>", "1"]
    long = run(server, session, "pd.DataFrame({'n': range(1000)})")["result"]["table"]
    assert (long["row_count"], len(long["rows"]), long["rows"][-1]) == (1000, 20, ["999"])


def test_figures_are_files(server: Server, session: str) -> None:
    cell = run(server, session, "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.title('A line');")
    [figure] = cell["figures"]
    assert figure == {"png": "figure_1_1.png", "svg": "figure_1_1.svg"}
    assert set(cell["files"]) == set(figure.values())
    assert value(server, session, "open('figure_1_1.png', 'rb').read(8)") == repr(b"\x89PNG\r\n\x1a\n")
    assert "A line" in value(server, session, "open('figure_1_1.svg').read()")


def test_an_error_has_its_line(server: Server, session: str) -> None:
    cell = run(server, session, "kept = 1\ndef f(n):\n    return 1 / n\n\nf(0)")
    error = cell["error"]
    assert (error["type"], error["message"], error["line"]) == ("ZeroDivisionError", "division by zero", 3)
    assert "return 1 / n" in error["traceback"] and "cell.py" not in error["traceback"]
    syntax = run(server, session, "x = 1\nif x\n  pass")["error"]
    assert (syntax["type"], syntax["line"]) == ("SyntaxError", 2)
    assert value(server, session, "kept") == "1"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("raise SystemExit(3)", "SystemExit"),
        ("exit()", "SystemExit"),
        ("class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd", "Odd"),
        ("class Odd:\n    def __repr__(self): return 1 / 0\nOdd()", None),
        ("f = lambda: f()\nf()", "RecursionError"),
        ("'\\ud800'", None),
        ("print('\\ud800')", "UnicodeEncodeError"),
        ("import sys\nsys.stdout.close()", None),
        ("import sys\nsys.stdout = None\nprint(1)", None),
        ("del __builtins__\nx = 1", None),
        ("import builtins\nbuiltins.open = None", None),
        ("import json\njson.dumps = None", None),
        ("(" * 500, "SyntaxError"),
        ("x = " + "-" * 50_000 + "1", None),
        ("\x00", "SyntaxError"),
    ],
)
def test_odd_code_costs_nothing_but_its_cell(server: Server, code: str, kind: str | None) -> None:
    session = f"s{next(NUMBERS)}"
    cell = run(server, session, code)
    if kind is not None:
        assert cell["error"]["type"] == kind, cell
    assert value(server, session, "1 + 1") == "2"


def test_output_is_streamed(server: Server, session: str) -> None:
    code = "import time, os\nprint('one', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('two')"
    url = f"/sessions/{session}/code"
    with server.session.post(url, json={"code": code}, headers=EVENT_STREAM, stream=True) as answer:
        events = read(answer)
        first = next(events)
        assert (first.kind, first.data) == ("output", {"text": "one\n"})
        [folder] = [found.parent for found in server.output_file.parent.glob("data/sessions/*/files")][-1:]
        for files in server.output_file.parent.glob("data/sessions/*/files"):
            (files / "go").touch()
        assert folder.exists()
        rest = list(events)
    assert rest[-1].kind == "result"
    assert rest[-1].data["output"] == "one\ntwo\n"


def test_output_is_bounded_and_harmless(server: Server, session: str) -> None:
    cell = run(server, session, "print('a' * 300_000)\nprint('\\x1b]0;title\\x07\\x1b[31mred\\x1b[0m\\x00end')")
    assert cell["output"].startswith("aaa") and cell["output"].endswith("a\nredend\n")
    assert len(cell["output"]) < 250_000 and "left out" in cell["output"]
    assert "\x1b" not in cell["output"] and "\x00" not in cell["output"]
    flood = run(server, session, "while True: print('x' * 10**6)")
    assert flood["error"]["type"] == "InterpreterEnded" and "64 MiB" in flood["error"]["message"]


def test_a_cell_that_takes_too_long(server: Server, session: str) -> None:
    cell = run(server, session, "x = 1\nimport time\ntime.sleep(60)", timeout=0.5)
    assert cell["error"]["type"] == "TimeoutError" and "0.5 s" in cell["error"]["message"]
    assert value(server, session, "x") == "1"
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    cell = run(server, session, deaf, timeout=0.5)
    assert cell["error"]["type"] == "InterpreterEnded" and "0.5 s" in cell["error"]["message"]
    assert value(server, session, "x") == "1"
    refused = server.session.post(f"/sessions/{session}/code", json={"code": "1", "timeout": 10_000})
    assert refused.status_code == 422 and "HEARTH_SANDBOX_TIMEOUT" in refused.json()["error"]["message"]


def wait_for_cell(server: Server) -> None:
    server.wait_until(lambda: server.health()["sandbox"]["running"], "a cell that runs", 20)


def test_interrupting(server: Server, session: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, server, session, "x = 1\nimport time\nwhile True: time.sleep(0.01)")
        wait_for_cell(server)
        server.wait_until(
            lambda: server.session.delete(f"/sessions/{session}/code").status_code == 200, "the interrupt", 10
        )
        cell = running.result()
    assert cell["error"]["type"] == "KeyboardInterrupt"
    assert value(server, session, "x") == "1"
    assert server.session.delete(f"/sessions/{session}/code").status_code == 404


def test_a_client_that_leaves_ends_its_cell(server: Server, session: str) -> None:
    code = {"code": "import time\nprint('begun', flush=True)\ntime.sleep(100)"}
    answer = server.session.post(f"/sessions/{session}/code", json=code, headers=EVENT_STREAM, stream=True)
    assert next(read(answer)).kind == "output"
    answer.close()
    server.wait_until(lambda: not server.health()["sandbox"]["running"], "the end of the cell", 20)


def sandbox_processes(server: Server) -> list[psutil.Process]:
    return [
        one
        for one in psutil.Process(server.process.pid).children(recursive=True)
        if one.name() in ("hearth-sandbox", "hearth-init")
    ]


def test_variables_outlive_their_interpreter(server: Server, session: str) -> None:
    run(
        server,
        session,
        "import pandas as pd, numpy as np\nfrom math import sqrt\n"
        "df = pd.DataFrame({'g': ['a', 'b'], 'v': [1.5, 2.5]})\n"
        "array = np.arange(6).reshape(2, 3)\nwords = {'a': [1, (2, 3)]}\n"
        "def double(x):\n    return helper(x) * 2\n\ndef helper(x):\n    return x + offset\n\noffset = 10\n"
        "lost = (n for n in ())",
    )
    run(server, session, "words['b'] = 1\ndel array")
    cell = run(server, session, "df.loc[0, 'v'] = 9\nraise ValueError")
    assert {one["name"]: one["saved"] for one in cell["variables"]}["lost"] is False
    [unsaved] = [one for one in cell["variables"] if not one["saved"]]
    assert "has no format" in unsaved["why"]
    crash = run(server, session, "import os\nos.kill(os.getpid(), 9)")
    assert crash["error"]["type"] == "InterpreterEnded" and crash["number"] is None
    assert (
        value(server, session, "df['v'].tolist(), words, double(1), sqrt(4)")
        == "([9.0, 2.5], {'a': [1, (2, 3)], 'b': 1}, 22, 2.0)"
    )
    assert run(server, session, "array")["error"]["type"] == "NameError"
    assert run(server, session, "lost")["error"]["type"] == "NameError"


def test_every_type_that_is_saved_outlives_its_interpreter(server: Server, session: str) -> None:
    text = (REPOSITORY / "tests" / "unit" / "test_saved_formats.py").read_text()
    # The module's values, without pytest and what is tested by it.
    values = text[text.index("UTC = ") : text.index("def there_and_back")]
    imports = (
        "import array, collections, datetime, decimal, fractions, math, pathlib, re, types, uuid, zoneinfo\n"
        "from typing import Any\nimport numpy as np\nimport pandas as pd\n"
    )
    name_each = """
number = 0
for group in (PLAIN, ARRAYS, FRAMES, SERIES):
    for each in group.values():
        number += 1
        globals()[f"v_{number}"] = each
number
"""
    count = int(value(server, session, imports + values + name_each))
    assert count > 60
    listed = server.session.get(f"/sessions/{session}/variables").json()["variables"]
    assert [one for one in listed if not one["saved"]] == []
    run(server, session, "import os\nos.kill(os.getpid(), 9)")
    compare = """
def same(one, other):
    if isinstance(one, (pd.DataFrame, pd.Series)):
        return one.equals(other) and type(one) is type(other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and repr(one) == repr(other)
    return type(one) is type(other) and repr(one) == repr(other)
made = {}
exec(SOURCE, made)
number, different = 0, []
for group in ("PLAIN", "ARRAYS", "FRAMES", "SERIES"):
    for name, value in made[group].items():
        number += 1
        if not same(eval(f"v_{number}"), value):
            different.append((group, name))
(number, different)
"""
    assert value(server, session, f"SOURCE = {imports + values!r}\n{compare}") == f"({count}, [])"


def test_variables_are_listed_and_shown(server: Server, session: str) -> None:
    url = f"/sessions/{session}/variables"
    assert server.session.get(url).json() == {"session_id": session, "variables": []}
    run(server, session, "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]})\nname = 'x' * 1000")
    listed = {one["name"]: one for one in server.session.get(url).json()["variables"]}
    assert (listed["df"]["shape"], listed["df"]["columns"]) == ([2, 1], {"a": "int64"})
    assert len(listed["name"]["text"]) <= 200
    shown = server.session.get(f"{url}/df").json()
    assert (shown["name"], shown["type"], shown["table"]["rows"]) == ("df", "DataFrame", [["1"], ["2"]])
    table = server.session.get(f"{url}/df/download")
    assert table.text == ",a\n0,1\n1,2\n"
    assert table.headers["Content-Disposition"].startswith('attachment; filename="df.csv"')
    assert server.session.get(f"{url}/name/download").text == "x" * 1000
    run(server, session, "numbers = {'a': (1, 2)}\nlost = iter(())")
    assert server.session.get(f"{url}/numbers/download").json() == {"a": [1, 2]}
    assert server.session.get(f"{url}/lost/download").status_code == 404
    missing = server.session.get(f"{url}/nothing")
    assert missing.status_code == 404 and "nothing" in missing.json()["error"]["message"]


def test_a_restart_of_the_server(start_server: Callable[..., Server]) -> None:
    first = start_server(ready=False, AUTOLOAD="false")
    run(first, "a", "x = [1, 2]")
    run(first, "a", "x.append(3)")
    first.stop()
    second = start_server(ready=False, AUTOLOAD="false", DATA_DIR=first.output_file.parent / "data")
    assert [one["name"] for one in second.session.get("/sessions/a/variables").json()["variables"]] == ["x"]
    cell = run(second, "a", "x")
    assert (cell["result"]["text"], cell["number"]) == ("[1, 2, 3]", 3)


def test_an_idle_interpreter_ends(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD="false", SANDBOX_IDLE=1)
    assert run(server, "a", "x = 1")["number"] == 1
    server.wait_until(lambda: not server.health()["sandbox"]["interpreters"], "the end of the interpreter", 20)
    assert (run(server, "a", "x")["result"]["text"], run(server, "a", "1")["number"]) == ("1", 3)


def test_sessions_share_nothing(server: Server, session: str) -> None:
    other = f"s{next(NUMBERS)}"
    run(server, session, "x = 1\nopen('mine.txt', 'w').write('secret')\nimport math\nmath.pi = 3")
    assert run(server, other, "x")["error"]["type"] == "NameError"
    assert (
        value(server, other, "import os, math\nos.listdir('.'), os.listdir('/sessions'), math.pi > 3.1")
        == "([], [], True)"
    )
    assert run(server, session, "x", workspace="main")["result"]["text"] == "1"


def test_the_memory_limit(server: Server, session: str) -> None:
    run(server, session, "x = 1")
    cell = run(server, session, "hoard = [bytearray(2**20) for _ in range(4000)]")
    if cell["error"]["type"] != "MemoryError":
        assert cell["error"]["type"] == "InterpreterEnded", cell
        assert "HEARTH_SANDBOX_MEMORY_GB" in cell["error"]["message"]
    assert value(server, session, "x") == "1"


def test_a_fork_bomb(server: Server, session: str) -> None:
    run(
        server,
        session,
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        timeout=2,
    )
    assert value(server, session, "1") == "1"
    most = server.health()["sandbox"]["interpreters"] + 2
    server.wait_until(lambda: len(sandbox_processes(server)) <= 2 * most, "the end of all that it started", 20)


def test_what_a_cell_leaves_running_is_ended(server: Server, session: str) -> None:
    run(
        server,
        session,
        "x = 1\nimport threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()",
    )
    server.wait_until(lambda: "after the cell's end" in server.output, "the end of the thread", 40)
    assert value(server, session, "x") == "1"


def test_cells_of_one_session_take_turns(server: Server, session: str) -> None:
    run(server, session, "seen = []")
    with ThreadPoolExecutor(4) as pool:
        codes = [f"seen.append({n})\nimport time\ntime.sleep(0.05)\nseen.append({n})" for n in range(4)]
        list(pool.map(lambda code: run(server, session, code), codes))
    seen = eval(value(server, session, "seen"))
    assert len(seen) == 8 and seen[::2] == seen[1::2]


def test_many_sessions_at_once(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD="false", MAX_SANDBOXES=3)
    for number in range(6):
        assert value(server, f"many{number}", f"n = {number}\nn") == str(number)
    assert server.health()["sandbox"]["interpreters"] == 3
    for number in range(6):
        assert value(server, f"many{number}", "n") == str(number)
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(run, server, f"busy{n}", "import time\ntime.sleep(100)", timeout=8) for n in range(3)]
        server.wait_until(lambda: server.health()["sandbox"]["running"] == 3, "three cells", 20)
        refused = server.session.post("/sessions/fourth/code", json={"code": "1"})
        assert refused.status_code == 429, refused.text
        assert "HEARTH_MAX_SANDBOXES" in refused.json()["error"]["message"]
        assert all(one.result()["error"]["type"] == "TimeoutError" for one in running)


def test_the_zygote_is_started_again(server: Server, session: str) -> None:
    run(server, session, "x = 1")
    family = psutil.Process(server.process.pid).children(recursive=True)
    # One that is forked has the name for a moment as well.
    zygote = min((one for one in family if one.name() == "hearth-zygote"), key=psutil.Process.create_time)
    zygote.kill()
    zygote.wait(10)
    cell = run(server, session, "x")
    if cell["error"] is not None:  # its end was noticed in the middle
        cell = run(server, session, "x")
    assert cell["result"]["text"] == "1"


def test_nothing_is_left(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD="false")
    run(server, "a", "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)")
    family = psutil.Process(server.process.pid).children(recursive=True)
    assert any(one.name() == "sleep" for one in family)
    server.process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_libraries_work(server: Server, session: str) -> None:
    code = """
import sqlite3, subprocess, threading, json
import numpy as np, pandas as pd, scipy.optimize, sklearn.linear_model, statsmodels.api as sm
found = {}
found["scipy"] = round(float(scipy.optimize.minimize_scalar(lambda x: (x - 2) ** 2).x), 3)
found["sklearn"] = sklearn.linear_model.LinearRegression().fit([[0], [1]], [0, 2]).coef_.round(3).tolist()
found["statsmodels"] = sm.OLS([1, 2, 3], sm.add_constant([1.0, 2, 3])).fit().params.round(3).tolist()
database = sqlite3.connect("data.db")
database.execute("create table t (n)").execute("insert into t values (7)")
database.commit()
found["sqlite3"] = database.execute("select n from t").fetchall()
found["subprocess"] = subprocess.run(["ls", "data.db"], capture_output=True, text=True).stdout
results = []
threads = [threading.Thread(target=results.append, args=(n,)) for n in range(3)]
for t in threads: t.start()
for t in threads: t.join()
found["threads"] = sorted(results)
frame = pd.DataFrame({"a": [1, 2]})
frame.to_parquet("a.parquet"), frame.to_csv("a.csv")
found["parquet"] = pd.read_parquet("a.parquet").equals(frame)
print(json.dumps(found))
"""
    cell = run(server, session, code)
    assert cell["error"] is None, cell
    import json

    assert json.loads(cell["output"]) == {
        "scipy": 2.0,
        "sklearn": [2.0],
        "statsmodels": [0.0, 1.0],
        "sqlite3": [[7]],
        "subprocess": "data.db\n",
        "threads": [0, 1, 2],
        "parquet": True,
    }
    assert set(cell["files"]) == {"a.csv", "a.parquet", "data.db"}


def test_without_isolation_code_is_refused(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD="false", SANDBOX="off")
    refused = server.session.post("/sessions/a/code", json={"code": "1"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "sandbox_unavailable")
    assert "HEARTH_SANDBOX=off" in refused.json()["error"]["message"]


@pytest.mark.parametrize("mode", ["landlock", "unsafe"])
def test_other_isolations(start_server: Callable[..., Server], mode: str) -> None:
    server = start_server(ready=False, AUTOLOAD="false", SANDBOX=mode, SANDBOX_PROCESSES=16)
    cell = run(server, "a", "x = 1\nopen('f', 'w').write('1')\nx")
    assert (cell["isolation"], cell["result"]["text"], cell["files"]) == (mode, "1", ["f"])
    probe = f"""
import os, socket
def outcome(act):
    try:
        act()
        return "done"
    except OSError as error:
        return type(error).__name__
def connect():
    socket.socket().connect(("127.0.0.1", {server.url.rpartition(":")[2]}))
print(outcome(lambda: open({str(server.output_file)!r}).read()), outcome(connect),
      outcome(lambda: os.kill({server.process.pid}, 0)), outcome(lambda: os.listdir("/proc/{server.process.pid}")))
"""
    printed = run(server, "a", probe)["output"].split()
    assert printed == (
        ["done"] * 4 if mode == "unsafe" else ["PermissionError", "OSError", "PermissionError", "PermissionError"]
    )
    run(server, "a", "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)")
    left = [one for one in psutil.Process(server.process.pid).children(recursive=True) if one.name() == "sleep"]
    assert left
    run(server, "a", "import os\nos.kill(os.getpid(), 9)")
    _, alive = psutil.wait_procs(left, timeout=10)
    assert not alive
