"""IPython's autoreload 2: a notebook's kernel, a cell a question; it looks for saved modules before each cell."""

import json
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import LocalProvisioner

from benchmarks.rivals import user_code
from benchmarks.rivals.system import Ask, System, app_environment, numbers

SETUP = """
%load_ext autoreload
%autoreload 2
import json
from dataclasses import asdict

import tools

from benchmarks.rivals.model import load_engine
from server.agent import CustomAgentGuidance

engine = load_engine()
"""
# The tools are collected anew in each cell: autoreload 2 changes modules, and no tool that somebody holds.
CELL = f"""
agent = CustomAgentGuidance(engine, tools.load_tools(None), max_steps=6)
print(json.dumps(asdict(agent({user_code.QUESTION!r}))))
"""


class IPythonAutoreload(System):
    """Saving is all that the author does."""

    name = "IPython, autoreload 2"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._kernel = KernelManager()
        self._errors: list[str] = []
        """What stood below the cells in place of an answer, or beside it."""

    def start(self) -> None:
        """See `System`."""
        user_code.write_all(self.tools)
        self._kernel.start_kernel(cwd=str(self.folder), env=app_environment())
        self._run(self._client(), SETUP, 120)
        self.asker(60)()

    def apply(self) -> None:
        """See `System`."""

    def _client(self) -> Any:
        client = self._kernel.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=120)
        return client

    def _run(self, client: Any, code: str, seconds: float) -> str:
        """What a cell prints. Raises RuntimeError with the traceback where it fails."""
        printed: list[str] = []
        errors: list[str] = []

        def output(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                (printed if content["name"] == "stdout" else errors).append(content["text"])
            elif message["msg_type"] == "error":
                errors.append("\n".join(content["traceback"]))

        reply = client.execute_interactive(code, output_hook=output, timeout=seconds, stop_on_error=False)
        self._errors.extend(errors)
        if reply["content"]["status"] != "ok":
            raise RuntimeError("".join(errors))
        return "".join(printed)

    def asker(self, seconds: float) -> Ask:
        """See `System`."""
        client = self._client()
        return lambda: numbers(json.loads(self._run(client, CELL, seconds)))

    def console(self) -> str:
        """See `System`."""
        return "".join(self._errors)

    def processes(self) -> list[psutil.Process]:
        """See `System`."""
        provisioner = self._kernel.provisioner
        assert isinstance(provisioner, LocalProvisioner)
        return [psutil.Process(provisioner.pid)]

    def stop(self) -> None:
        """See `System`."""
        self._kernel.shutdown_kernel(now=True)
