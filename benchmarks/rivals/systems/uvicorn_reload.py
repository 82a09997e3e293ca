"""`uvicorn --reload`: watches the files, and starts a new process when one is saved."""

import sys
from pathlib import Path

import psutil

from benchmarks.rivals.system import App, Ask, System, free_port, http_asker, prepare


class UvicornReload(System):
    """Saving is all that the author does."""

    name = "uvicorn --reload"
    patience = 60.0
    settling = 15.0
    restarts = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()
        self._app: App

    def start(self) -> None:
        """See `System`."""
        prepare(self.folder, "uvicorn_app.py")
        command = [sys.executable, "-m", "uvicorn", "app:app", "--reload", "--port", str(self._port)]
        self._app = App(self.folder, command)
        self._app.wait_until_answered(self.asker(60))

    def apply(self) -> None:
        """See `System`."""

    def asker(self, seconds: float) -> Ask:
        """See `System`."""
        return http_asker(f"http://127.0.0.1:{self._port}/ask", seconds)

    def console(self) -> str:
        """See `System`."""
        return self._app.output()

    def processes(self) -> list[psutil.Process]:
        """See `System`."""
        return self._app.processes()

    def stop(self) -> None:
        """See `System`."""
        self._app.stop()
