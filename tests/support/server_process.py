"""A real server process: start it, ask it, end it. Used by the tests and by the benchmarks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

REPOSITORY = Path(__file__).parents[2]
READY_SECONDS = 120.0
"""A deadline and no measure: how long model and tools may take on a machine that has other things to do."""
REQUEST_SECONDS = 120.0


class Session(requests.Session):
    """Sends the token, and gives up on an answer some time."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__()
        self.url = url
        self.headers["Authorization"] = f"Bearer {token}"
        # `requests` would look for proxies in the environment, at each request. Threads of a test ask while pytest
        # writes the next test's name into the environment, and reading it fails then.
        self.trust_env = False

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """As `requests` does it, at a path of the server's."""
        options.setdefault("timeout", REQUEST_SECONDS)
        return super().request(method, self.url + url, **options)


@dataclass
class Server:
    """A process that runs `python app.py`, and how to speak with it."""

    process: "subprocess.Popen[bytes]"
    code: Path
    """The folder that its app.py is in."""
    output_file: Path
    runtime_file: Path
    url: str = ""
    token: str = ""
    session: Session = field(init=False)

    @property
    def output(self) -> str:
        """What it printed and logged so far."""
        return self.output_file.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, met: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> Any:
        """What `met()` gives as soon as that is true. Fails with the server's output when it takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            value = met()
            if value:
                return value
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode} before {what}\n{self.output}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{seconds} s were not enough for {what}\n{self.output}")
            time.sleep(0.02)

    def health(self) -> dict[str, Any]:
        """What `GET /health` answers."""
        answer = self.session.get("/health")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def wait_until_ready(self) -> None:
        """Wait for model and tools."""

        def met() -> bool:
            health = self.health()
            if "autoload_error" in health:
                raise AssertionError(f"{health['autoload_error']}\n{self.output}")
            return health["tools"] is not None and health["model"]["state"] == "ready"

        self.wait_until(met, "model and tools")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send a signal and wait for the end. Returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


def clean_environment(runtime: Path, settings: dict[str, object]) -> dict[str, str]:
    """This process's environment with exactly `settings` as Hearth's. Bytecode is written, as it is for users."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HEARTH_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {
        **kept,
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_DATA_HOME": str(runtime),
        "PYTHONFAULTHANDLER": "1",
        **{f"HEARTH_{name}": str(v) for name, v in settings.items()},
    }


def start(
    folder: Path, code: Path, settings: dict[str, object], output: int | None = None, verify: str | None = None
) -> Server:
    """Start a server whose own files are in `folder`, and wait until it answers `GET /health`.

    `output`: a descriptor that gets what it prints and logs, instead of the file `output.txt`. `verify`: the file of
    a certificate to trust."""
    folder.mkdir(parents=True, exist_ok=True)
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    # Most tests run no code in a sandbox, and its imports take seconds.
    settings = {"HOST": "127.0.0.1", "PORT": 0, "DATA_DIR": folder / "data", "SANDBOX_SPARES": 0, **settings}
    output_file = folder / "output.txt"
    with output_file.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, str(code / "app.py")],
            cwd=folder,
            env=clean_environment(runtime, settings),
            stdin=subprocess.DEVNULL,
            stdout=file if output is None else output,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, code, output_file, runtime / "hearth" / f"hearth-{process.pid}.json")
    try:
        server.wait_until(server.runtime_file.exists, "the runtime file")
        found = json.loads(server.runtime_file.read_text())
        server.url, server.token = found["url"], found["token"]
        server.session = Session(server.url, server.token)
        if verify is not None:
            server.session.verify = verify

        def answers() -> bool:
            try:
                return bool(server.health()["status"] == "ok")
            except requests.ConnectionError:
                return False

        server.wait_until(answers, "an answer")
    except BaseException:
        process.kill()
        process.wait()
        raise
    return server


def end(server: Server) -> None:
    """End a server that may have ended already."""
    server.session.close()
    if server.process.poll() is None:
        server.process.terminate()
        try:
            server.process.wait(60)
        except subprocess.TimeoutExpired:
            # Its faulthandler writes where every thread is.
            server.process.send_signal(signal.SIGABRT)
            server.process.wait()
            raise AssertionError(f"the server did not end\n{server.output}") from None


def copy_code(folder: Path) -> Path:
    """A copy of the code to start a server from, so that tools, agents, the recipe and notebooks may be edited.

    The weights aren't copied; the copy leads to the repository's.
    """
    copy = folder / "code"
    copy.mkdir()
    for name in ("app.py", "constants.py"):
        shutil.copy2(REPOSITORY / name, copy)
    shutil.copytree(REPOSITORY / "notebooks", copy / "notebooks", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copytree(REPOSITORY / "server", copy / "server", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    (copy / "server" / "embedded" / "weights").symlink_to(REPOSITORY / "server" / "embedded" / "weights")
    return copy
