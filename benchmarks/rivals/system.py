"""What the measuring knows of a system."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests

from benchmarks.rivals import user_code
from tests.support.server_process import REPOSITORY

APPS = Path(__file__).parent / "apps"
START_SECONDS = 240.0
Ask = Callable[[], tuple[int, int]]
"""Asks the question; gives the numbers of the tool's edit and of the wording's. Raises where no answer comes."""


class RefusedError(Exception):
    """A question got an HTTP answer that is an error."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__(shown(answer))
        self.status = answer.status_code


class System(ABC):
    """Something that serves the model with the agent and the user's code in `tools`."""

    name: str
    patience = 0.0
    """Seconds after which an author who still sees old code saves again. 0: it should answer when `apply` returns."""
    settling = 4.0
    """Seconds that it is asked for after a broken edit."""
    restarts = False
    """An edit makes a new process."""

    def __init__(self, folder: Path) -> None:
        """`folder` is empty and the system's own."""
        self.folder = folder
        self.tools = folder / "tools"
        self.reported = ""
        """What was last reported to the author, by `apply` or beside an answer."""

    @abstractmethod
    def start(self) -> None:
        """Write edit 0, start, and return when questions are answered."""

    @abstractmethod
    def apply(self) -> None:
        """What an author does after saving so that the code is loaded; nothing where saving is all. `reported` is
        set to what comes back. A refusal is no error."""

    @abstractmethod
    def asker(self, seconds: float) -> Ask:
        """A way to ask for one more thread, which gives up after `seconds`."""

    @abstractmethod
    def console(self) -> str:
        """What has been printed so far where an author would see it."""

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """Those that hold the system's code and model; what is merely around them is left out."""

    @abstractmethod
    def stop(self) -> None:
        """End it."""


class App:
    """A process of a rival's, in the folder where its app.py and the user's code are."""

    def __init__(self, folder: Path, command: list[str], **environment: str) -> None:
        """Start `command` with these environment variables added."""
        self._output = folder / "output.txt"
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=app_environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        """What it printed."""
        return self._output.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """It and its children."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def wait_until_answered(self, ask: Ask) -> None:
        """Wait for the first answer. Fails with what the process printed."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                ask()
                return
            except Exception as error:  # boundary: each client has its own errors for a server that isn't there yet
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"it does not answer: {error!r}\n{self.output()}") from error
            time.sleep(0.1)

    def stop(self) -> None:
        """End it and its children."""
        processes = self.processes() if self.process.poll() is None else []
        self.process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            process.kill()
        self.process.wait()


def prepare(folder: Path, app: str) -> None:
    """Put the application `app` and edit 0 of the user's code into `folder`."""
    shutil.copy2(APPS / app, folder / "app.py")
    user_code.write_all(folder / "tools")


def app_environment() -> dict[str, str]:
    """This process's environment, with the repository's packages in reach. Bytecode is written, as for users."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    bin_folder = str(Path(sys.executable).parent)
    return kept | {"PYTHONPATH": str(REPOSITORY), "PATH": bin_folder + os.pathsep + kept["PATH"]}


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def http_asker(url: str, seconds: float) -> Ask:
    """Asks by a POST of the question to `url`, over a connection of its own."""
    session = requests.Session()
    return lambda: numbers(post_question(session, url, seconds))


def post_question(session: requests.Session, url: str, seconds: float) -> dict[str, Any]:
    """What the question is answered with. Raises `RefusedError`, and what `requests` raises."""
    answer = session.post(url, json={"question": user_code.QUESTION}, timeout=seconds)
    if not answer.ok:
        raise RefusedError(answer)
    result: dict[str, Any] = answer.json()
    return result


def numbers(result: dict[str, Any]) -> tuple[int, int]:
    """The two edits' numbers in the agent's result."""
    return user_code.read(result["steps"][0]["observation"])


def shown(answer: requests.Response) -> str:
    """An HTTP answer as a person sees it who sent the request by hand."""
    try:
        return f"HTTP {answer.status_code} {json.dumps(answer.json(), indent=1)}"
    except ValueError:
        return f"HTTP {answer.status_code} {answer.text}"
