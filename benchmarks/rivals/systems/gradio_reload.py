"""Gradio's reload mode: watches the files, drops their modules when one is saved, and runs app.py again."""

import json
from pathlib import Path

import psutil
import requests

from benchmarks.rivals import user_code
from benchmarks.rivals.system import App, Ask, System, free_port, numbers, prepare


class GradioReload(System):
    """Saving is all that the author does."""

    name = "Gradio, reload mode"
    patience = 3.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()
        self._app: App

    def start(self) -> None:
        """See `System`."""
        prepare(self.folder, "gradio_app.py")
        settings = {"GRADIO_SERVER_PORT": str(self._port), "GRADIO_ANALYTICS_ENABLED": "False"}
        self._app = App(self.folder, ["gradio", "app.py"], **settings)
        self._app.wait_until_answered(self.asker(60))

    def apply(self) -> None:
        """See `System`."""

    def asker(self, seconds: float) -> Ask:
        """See `System`."""
        session = requests.Session()
        url = f"http://127.0.0.1:{self._port}/gradio_api/call/ask"

        def ask() -> tuple[int, int]:
            sent = session.post(url, json={"data": [user_code.QUESTION]}, timeout=seconds)
            sent.raise_for_status()
            events = session.get(f"{url}/{sent.json()['event_id']}", timeout=seconds)
            events.raise_for_status()
            event, _, data = events.text.strip().rpartition("\n")
            if not event.endswith("event: complete"):
                raise RuntimeError(events.text)
            return numbers(json.loads(data.removeprefix("data: "))[0])

        return ask

    def console(self) -> str:
        """See `System`."""
        return self._app.output()

    def processes(self) -> list[psutil.Process]:
        """See `System`."""
        return self._app.processes()

    def stop(self) -> None:
        """See `System`."""
        self._app.stop()
