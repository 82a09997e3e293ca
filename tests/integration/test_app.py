"""`python app.py`: how it starts, how it is found, how it ends."""

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from server.http.listener import bind
from tests.support.server_process import REPOSITORY, Server, clean_environment

SLOW_RECIPE = """
import pathlib
import time


def load_model(name, *, load_in_8bit, quantizer, device_map, dtype, int8_threshold, progress):
    progress("waiting for the test", 1, 3)
    while not pathlib.Path("go_on").exists():
        time.sleep(0.01)
    raise RuntimeError("this recipe only waits")
"""


def test_health_answers_while_the_model_loads(start_server: Callable[..., Server], code_copy: Path) -> None:
    (code_copy / "server" / "model.py").write_text(SLOW_RECIPE)
    server = start_server(code=code_copy, ready=False)
    server.wait_until(lambda: (server.health()["model"] or {}).get("progress", {}).get("done"), "the load to begin")
    assert server.health()["model"] == {
        "name": "embedded",
        "state": "loading",
        "device": None,
        "quantization": None,
        "memory_bytes": None,
        "takes_images": None,
        "progress": {"stage": "waiting for the test", "done": 1, "total": 3},
    }
    asked = server.session.post("/run_script", json={"question": "What is 37 * 52?"})
    assert asked.status_code == 409
    assert "is loading" in asked.json()["error"]["message"]

    # A second caller joins the load, and both get the same verdict.
    joined: list[requests.Response] = []
    caller = threading.Thread(target=lambda: joined.append(server.session.post("/load_model")))
    caller.start()
    server.wait_until(lambda: server.health()["model"]["state"] == "loading", "the load to go on")
    (server.output_file.parent / "go_on").touch()
    caller.join()
    assert joined[0].status_code == 422
    assert joined[0].json()["error"]["type"] == "model_load_failed"
    assert "this recipe only waits" in joined[0].json()["error"]["message"]
    model = server.health()["model"]
    assert model["state"] == "failed"
    assert "this recipe only waits" in model["error"]["message"]
    server.wait_until(lambda: "autoload_error" in server.health(), "the end of loading at the start")
    asked = server.session.post("/run_script", json={"question": "What is 37 * 52?"})
    assert asked.json()["error"]["type"] == "model_not_loaded"
    assert "this recipe only waits" in asked.json()["error"]["message"]


def test_code_that_does_not_load_leaves_the_server_alive(
    start_server: Callable[..., Server], code_copy: Path
) -> None:
    calculator = code_copy / "server" / "tools" / "calculator.py"
    sound = calculator.read_text()
    calculator.write_text("import nothing_of_that_name\n")
    server = start_server(code=code_copy, ready=False)
    server.wait_until(lambda: "autoload_error" in server.health(), "the end of loading at the start")
    health = server.health()
    assert health["status"] == "ok" and health["tools"] is None
    assert health["autoload_error"]["type"] == "reload_failed"
    assert set(health["autoload_error"]) == {"type", "message"}
    assert "nothing_of_that_name" in health["autoload_error"]["message"]
    anonymous = requests.get(f"{server.url}/health", timeout=60)
    assert anonymous.json()["autoload_error"]["type"] == "reload_failed"
    assert "nothing_of_that_name" not in anonymous.text
    reloaded = server.session.post("/reload_modules")
    assert reloaded.status_code == 422
    assert reloaded.json()["error"]["errors"][0]["file"] == "server/tools/calculator.py"
    # Once it is mended, all goes on as at any start.
    calculator.write_text(sound)
    assert server.session.post("/reload_modules", json={"dry_run": True}).status_code == 200
    assert server.health()["models"] == []
    assert server.session.post("/reload_modules").status_code == 200
    server.wait_until(lambda: server.health()["tools"] is not None, "model and tools")
    assert "autoload_error" not in server.health()
    asked = server.session.post("/run_script", json={"question": "What is 37 * 52?"})
    assert asked.json()["answer"] == "1924"
    assert server.stop() == 0


def test_a_question_before_the_model_is_loaded_is_refused(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(ready=False)
    asked = server.session.post("/run_script", json={"question": "What is 37 * 52?"})
    assert (asked.status_code, asked.json()["error"]["type"]) == (409, "model_not_loaded")
    assert asked.json()["error"]["message"] == "The model embedded is loading. Ask again when it is ready."
    server.wait_until_ready()


def test_the_recipe_may_be_a_package(start_server: Callable[..., Server], code_copy: Path) -> None:
    recipe = code_copy / "server" / "model"
    recipe.mkdir()
    (code_copy / "server" / "model.py").rename(recipe / "__init__.py")
    (recipe / "sizes.py").write_text("LARGE = 8\n")
    server = start_server(code=code_copy)
    assert server.session.post("/load_model").status_code == 200
    loads = server.output.count("loading the model")
    (recipe / "sizes.py").write_text("LARGE = 9\n")
    server.session.post("/reload_modules").raise_for_status()
    # With another recipe the same name is another model.
    assert server.session.post("/load_model").status_code == 200
    assert server.output.count("loading the model") == loads + 1


def test_the_link_that_is_printed_opens(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD=0, HOST="0.0.0.0")
    server.wait_until(lambda: server.output.count("Hearth is at ") == 2, "the links", 10)
    local, other = re.findall(r"Hearth is at (\S+)", server.output)
    assert requests.get(local, timeout=10).json()["name"] == "hearth"
    assert socket.gethostname() in other and f"?token={server.token}" in other


def test_the_runtime_file_is_its_owners_and_goes(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD=0, TOKEN="mine")
    file = server.runtime_file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {"url": server.url, "token": "mine", "pid": server.process.pid}
    assert list(file.parent.iterdir()) == [file]
    assert server.stop() == 0
    assert not file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(start_server: Callable[..., Server], number: int) -> None:
    server = start_server(ready=False, AUTOLOAD=0)
    assert server.stop(number) == 0
    assert not server.runtime_file.exists()
    assert "Traceback" not in server.output
    with pytest.raises(requests.ConnectionError):
        server.session.get("/health")


def test_a_load_does_not_hold_the_end_up(start_server: Callable[..., Server], code_copy: Path) -> None:
    (code_copy / "server" / "model.py").write_text(SLOW_RECIPE)
    server = start_server(code=code_copy, ready=False, MAX_RUNS=1)
    answers: list[requests.Response] = []

    def load() -> None:
        while not answers or answers[-1].status_code == 429:
            answers.append(server.session.post("/load_model"))

    caller = threading.Thread(target=load)
    server.wait_until(lambda: (server.health()["model"] or {}).get("progress", {}).get("done"), "the load to begin")
    caller.start()
    # With one place for requests that wait, the next is turned away once the first has it.
    server.wait_until(lambda: server.session.post("/load_tools").status_code == 429, "the request to wait")
    assert server.stop() == 0
    caller.join()
    assert answers[-1].status_code == 503
    assert answers[-1].json()["error"]["type"] == "shutting_down"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, str(REPOSITORY / "app.py")],
            env=clean_environment(tmp_path, {"HOST": "127.0.0.1", "PORT": port}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert f"Can't listen on 127.0.0.1 port {port}" in ended.stderr
    assert "HEARTH_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


NOTEBOOK = """
import asyncio
import sys
from pathlib import Path

from constants import Settings
from server import create_app
from server.host import Host


async def cell():
    client = create_app(Host(Settings(TOKEN="secret", DATA_DIR=Path(sys.argv[1])))).test_client()
    return client.get("/?token=secret", follow_redirects=True).status_code, asyncio.run(asyncio.sleep(0, "nested"))


print(asyncio.run(cell()))
"""


def test_an_app_inside_a_running_loop(tmp_path: Path) -> None:
    # In a process of its own: what lets loops nest changes asyncio for good.
    ended = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.strip() == "(200, 'nested')", ended.stderr


def test_a_log_that_nobody_reads_does_not_stop_the_server(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    settings = {"HOST": "127.0.0.1", "PORT": 0, "DATA_DIR": tmp_path, "AUTOLOAD": 0, "TOKEN": "mine"}
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "app.py")],
        cwd=tmp_path,
        env=clean_environment(runtime, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().split()[-1].partition("/?")[0]
        with requests.Session() as session:
            session.headers["Authorization"] = "Bearer mine"
            for _ in range(1200):
                assert session.get(f"{url}/{'x' * 200}", timeout=60).status_code == 404
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


STARTS = """
import os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, close_fds=False)
pool = ProcessPoolExecutor(2)
pool.submit(os.getpid).result()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_that_was_started_keeps_the_port(
    start_server: Callable[..., Server], code_copy: Path, number: signal.Signals
) -> None:
    (code_copy / "server" / "tools" / "starts.py").write_text(STARTS)
    server = start_server(code=code_copy, ready=False, AUTOLOAD=0)
    reloaded = server.session.post("/reload_modules")
    assert reloaded.status_code == 200, reloaded.text
    below = psutil.Process(server.process.pid).children(recursive=True)
    assert sum("sleep" in " ".join(one.cmdline()) for one in below) == 1
    server.stop(number)
    port = int(server.url.rpartition(":")[2])
    with bind("127.0.0.1", port) as again:
        again.listen()
    psutil.wait_procs(below, timeout=60)
    assert not [one for one in below if one.is_running()]
