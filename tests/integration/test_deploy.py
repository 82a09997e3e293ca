"""A server behind a proxy, and one that is made of a backup, as docs/deploying.md describes both."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.support.event_stream import EVENT_STREAM, read
from tests.support.postgres_process import Postgres
from tests.support.server_process import REPOSITORY, Server, Session, copy_code, end, start

DEPLOY = REPOSITORY / "deploy"
CHANGED_TOOL = """
from langchain_core.tools import tool

@tool
def door_code(room: str) -> str:
    \"\"\"Tell the code of a room's door.\"\"\"
    return "4711"
"""


AGENT = """
import os, time
from pathlib import Path
from server.sdk import tell_step
from .agent import Agent, AgentResult, Step

class Gated(Agent):
    name = "gated"

    def __call__(self, question, history=()):
        tell_step(Step("now", "none", {}, "the gate is shut", None))
        while not Path(%r).exists():
            time.sleep(0.01)
        return AgentResult("through", None, [], {})
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def nginx(server: Server, folder: Path) -> Iterator[str]:
    """The file of deploy/, without TLS, on a port and in a folder of its own."""
    port = free_port()
    site = (DEPLOY / "proxies" / "nginx.conf").read_text(encoding="utf-8")
    site = re.sub(r"listen 443 ssl", f"listen 127.0.0.1:{port}", re.sub(r"    ssl_.*\n", "", site))
    site = site.replace("http://127.0.0.1:5001", server.url)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{site}}}\n",
        encoding="utf-8",
    )
    with running(["nginx", "-c", str(config), "-p", str(folder)], server, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def caddy(server: Server, folder: Path) -> Iterator[str]:
    port = free_port()
    site = (DEPLOY / "proxies" / "Caddyfile").read_text(encoding="utf-8")
    site = site.replace("hearth.example.org", f"http://127.0.0.1:{port}")
    site = site.replace("127.0.0.1:5001", server.url.removeprefix("http://"))
    file = folder / "Caddyfile"
    file.write_text("{\n\tadmin off\n}\n" + site, encoding="utf-8")
    command = ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    with running(command, server, f"http://127.0.0.1:{port}", HOME=str(folder)) as url:
        yield url


@contextmanager
def running(command: list[str], server: Server, url: str, **environment: str) -> Iterator[str]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )

    def answers() -> bool:
        try:
            return requests.get(f"{url}/health", timeout=10).status_code == 200
        except requests.ConnectionError:
            return False

    try:
        server.wait_until(answers, "the proxy", 30)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@dataclass(frozen=True)
class Gated:
    """A server with an agent that reports a step, and answers when the file `gate` is there."""

    server: Server
    gate: Path


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    folder = tmp_path_factory.mktemp("gated")
    code, gate = copy_code(folder), folder / "gate"
    (code / "server" / "agent" / "gated.py").write_text(AGENT % str(gate), encoding="utf-8")
    server = start(folder / "server", code, {})
    try:
        server.wait_until_ready()
        yield Gated(server, gate)
    finally:
        end(server)


@pytest.mark.parametrize(("program", "proxy"), [("nginx", nginx), ("caddy", caddy)], ids=["nginx", "caddy"])
def test_events_pass_a_proxy_at_once(
    gated: Gated,
    tmp_path: Path,
    program: str,
    proxy: Callable[[Server, Path], AbstractContextManager[str]],
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    gated.gate.unlink(missing_ok=True)
    with proxy(gated.server, tmp_path) as url, Session(url, gated.server.token) as session:
        answer = session.post(
            "/run_script", json={"question": "?", "agent": "gated"}, headers=EVENT_STREAM, stream=True
        )
        events = read(answer)
        # The step arrives while the agent still waits: nothing on the way has held it back.
        step = next(one for one in events if one.kind == "step")
        assert step.data["observation"] == "the gate is shut"
        gated.gate.touch()
        last = list(events)[-1]
        assert (last.kind, last.data["answer"]) == ("answer", "through")
        upload = session.post("/sessions/a/files", files={"files": ("big.bin", b"x" * 3_000_000)})
        assert upload.status_code == 201, upload.text


def commands(holding: str) -> str:
    """The block of docs/deploying.md with these words."""
    text = (REPOSITORY / "docs" / "deploying.md").read_text(encoding="utf-8")
    [found] = [block for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S) if holding in block]
    return str(found)


def execute(block: str, **environment: object) -> None:
    folders = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))), os.environ["PATH"]]
    ended = subprocess.run(
        ["bash", "-euc", block],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": os.pathsep.join(folders), **{name: str(one) for name, one in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def fill(server: Server) -> dict[str, str]:
    """Something of everything that a backup has to bring back."""
    put = server.session.put("/workspaces/alice/files/tools/door_code.py", data=CHANGED_TOOL)
    assert put.status_code == 201, put.text
    asked = {"question": "What is 37 * 52?", "session_id": "may", "workspace": "alice"}
    run = server.session.post("/run_script", json=asked)
    assert run.status_code == 200, run.text
    saved = server.session.post(
        "/sessions/may/files", params={"workspace": "alice"}, files={"files": ("notes.txt", b"tin melts at 231.9")}
    )
    assert saved.status_code == 201, saved.text
    return {"run_id": run.json()["run_id"], "answer": run.json()["answer"], "generation": run.json()["generation"]}


def check(server: Server, before: dict[str, str]) -> None:
    record = server.session.get(f"/runs/{before['run_id']}").json()
    assert (record["answer"], record["generation"]) == (before["answer"], before["generation"])
    messages = server.session.get("/sessions/may", params={"workspace": "alice"}).json()["messages"]
    assert messages[-1]["content"] == before["answer"]
    file = server.session.get("/sessions/may/files/notes.txt", params={"workspace": "alice"})
    assert file.content == b"tin melts at 231.9"
    tool = server.session.get("/workspaces/alice/files/tools/door_code.py")
    assert tool.text == CHANGED_TOOL
    replayed = server.session.post(f"/runs/{before['run_id']}/replay")
    assert replayed.status_code == 200, replayed.text
    assert replayed.json()["generation"] == before["generation"]


def test_a_backup_of_sqlite_becomes_a_server(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server(DATA_DIR=tmp_path / "data")
    before = fill(server)
    execute(commands("sqlite3"), DATA=tmp_path / "data", BACKUP=tmp_path / "backup")
    server.stop(signal.SIGKILL)
    execute(commands('hearth.db" "$DATA'), DATA=tmp_path / "restored", BACKUP=tmp_path / "backup")
    check(start_server(DATA_DIR=tmp_path / "restored"), before)


@pytest.mark.slow
def test_a_backup_of_postgresql_becomes_a_server(
    start_server: Callable[..., Server], tmp_path: Path, postgres: Postgres
) -> None:
    first, second = postgres.database(), postgres.database()
    server = start_server(DATA_DIR=tmp_path / "data", DATABASE_URL=first)
    before = fill(server)
    execute(commands("pg_dump"), DATA=tmp_path / "data", BACKUP=tmp_path / "backup", HEARTH_DATABASE_URL=first)
    server.stop(signal.SIGKILL)
    execute(
        commands("pg_restore"), DATA=tmp_path / "restored", BACKUP=tmp_path / "backup", HEARTH_DATABASE_URL=second
    )
    check(start_server(DATA_DIR=tmp_path / "restored", DATABASE_URL=second), before)
