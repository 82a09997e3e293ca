"""Hearth: with reloads that are asked for, with those that come by themselves before a question, and restarted."""

import json
from pathlib import Path

import psutil
import requests

from benchmarks.rivals import user_code
from benchmarks.rivals.system import Ask, System, free_port, numbers, post_question, shown
from tests.support.server_process import Server, copy_code, end, start

TOKEN = "rivals"


class HearthExplicit(System):
    """The author sends `/reload_modules`."""

    name = "Hearth, /reload_modules"
    mode = "explicit"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._code = copy_code(folder)
        self.tools = self._code / "server" / "tools"
        self._port = free_port()
        self._starts = 0
        self._server: Server

    def start(self) -> None:
        """See `System`."""
        user_code.write_all(self.tools)
        self._start()
        self._server.wait_until_ready()
        self.asker(60)()

    def _start(self) -> None:
        self._starts += 1
        settings = {"PORT": self._port, "TOKEN": TOKEN, "RELOAD": self.mode, "DATA_DIR": self.folder / "data"}
        self._server = start(self.folder / f"start-{self._starts}", self._code, settings)

    def apply(self) -> None:
        """See `System`."""
        self.reported = shown(self._server.session.post("/reload_modules"))

    def asker(self, seconds: float) -> Ask:
        """See `System`."""
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {TOKEN}"

        def ask() -> tuple[int, int]:
            answer = post_question(session, f"http://127.0.0.1:{self._port}/run_script", seconds)
            if "not_reloaded" in answer:
                self.reported = f'an answer with "not_reloaded": {json.dumps(answer["not_reloaded"], indent=1)}'
            return numbers(answer)

        return ask

    def console(self) -> str:
        """See `System`."""
        starts = (self.folder / f"start-{number}" for number in range(1, self._starts + 1))
        return "".join((start / "output.txt").read_text() for start in starts)

    def processes(self) -> list[psutil.Process]:
        """See `System`."""
        return [psutil.Process(self._server.process.pid)]

    def stop(self) -> None:
        """See `System`."""
        end(self._server)


class HearthOnRequest(HearthExplicit):
    """Saving is all that the author does."""

    name = "Hearth, on_request"
    mode = "on_request"

    def apply(self) -> None:
        """See `System`."""


class HearthRestarted(HearthExplicit):
    """The author ends the server and starts it again."""

    name = "Hearth, restarted"
    settling = 15.0
    restarts = True

    def apply(self) -> None:
        """See `System`."""
        end(self._server)
        self._start()

        self.reported = ""

        def ended_loading() -> bool:
            health = self._server.health()
            if "autoload_error" in health:
                self.reported = f'/health with "autoload_error": {json.dumps(health["autoload_error"], indent=1)}'
            return bool(self.reported) or (health["tools"] is not None and health["model"]["state"] == "ready")

        self._server.wait_until(ended_loading, "model and tools")
