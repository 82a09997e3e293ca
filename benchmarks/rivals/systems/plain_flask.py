"""A Flask server of one's own, with a route that runs `importlib.reload` over the modules, ordered by name."""

import sys
from pathlib import Path

import psutil
import requests

from benchmarks.rivals.system import App, Ask, System, free_port, http_asker, prepare, shown


class PlainFlask(System):
    """The author sends `/reload`."""

    name = "Flask, importlib.reload"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._url = f"http://127.0.0.1:{free_port()}"
        self._app: App

    def start(self) -> None:
        """See `System`."""
        prepare(self.folder, "plain_flask.py")
        self._app = App(self.folder, [sys.executable, "app.py", self._url.rpartition(":")[2]])
        self._app.wait_until_answered(self.asker(60))

    def apply(self) -> None:
        """See `System`."""
        self.reported = shown(requests.post(f"{self._url}/reload", timeout=60))

    def asker(self, seconds: float) -> Ask:
        """See `System`."""
        return http_asker(f"{self._url}/ask", seconds)

    def console(self) -> str:
        """See `System`."""
        return self._app.output()

    def processes(self) -> list[psutil.Process]:
        """See `System`."""
        return self._app.processes()

    def stop(self) -> None:
        """See `System`."""
        self._app.stop()
