"""The interpreter of a session: runs cells, one after the other, with the variables of the earlier ones.

The server sends `run`, `analyse`, `texts`, `preview`, `export`. Each gets one reply; before the one to `run` comes
`ended`, at the end of the code. What it prints goes through the output pipe.
"""

import contextlib
import datetime
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import display, saved_index
from .cell import Cell
from .channel import Channel
from .exports import export
from .files import Listing
from .limits import limit_memory
from .variables import Variables

ANALYSIS_BYTES = 256 * 2**20
"""What an analysis may allocate."""
TEXTS = "texts"
"""The file with the text of a document, in the session's state."""
SAVED_CODE = "code"
"""The folder of the cells' code, in the session's state."""


class Interpreter:
    """For one session. Everything in it is at the mercy of the session's code."""

    def __init__(self, channel: Channel, figure_dpi: int) -> None:
        self._channel = channel
        self._figure_dpi = figure_dpi
        self._is_running = False
        signal.signal(signal.SIGINT, self._interrupt)

    def open(self, folder: str, state: str, set_aside: bool) -> None:
        """Continue the session whose files and state are in these folders. `set_aside`: move its variables aside."""
        self._folder = Path(folder)
        self._state = Path(state)
        os.environ["HOME"] = os.environ["TMPDIR"] = "/tmp" if self._state == Path("/state") else state
        sys.path.insert(0, folder)
        if set_aside:
            saved_index.set_aside(self._state / "variables")
        self._variables = Variables(self._state / "variables")
        self._number = _count(self._state / SAVED_CODE)
        self._channel.send({"variables": self._variables.catalogue(), "damaged": self._variables.damaged})

    def serve(self) -> None:
        """Answer the server until it closes the channel."""
        does: dict[str, Callable[..., dict[str, Any]]] = {
            "run": self._run,
            "analyse": self._analyse,
            "texts": self._texts,
            "preview": self._preview,
            "export": self._export,
        }
        while (message := self._channel.receive()) is not None:
            reply = does[message.pop("do")](**message)
            self._channel.send(reply)

    def _interrupt(self, number: int, frame: object) -> None:
        """SIGINT ends a cell, and nothing else."""
        if self._is_running:
            self._is_running = False
            raise KeyboardInterrupt

    def _run(self, code: str, name: str) -> dict[str, Any]:
        """Run a cell. `name`: of the file in which its code is saved."""
        self._number += 1
        number = self._number
        before = Listing(self._folder)
        cell = Cell(code, number)
        self._is_running = True
        try:
            outcome = cell.run(self._variables.values)
        except KeyboardInterrupt:  # it came when the cell had already ended
            outcome = cell.interrupted()
        finally:
            self._is_running = False
        # The cell's time is over; what follows has time of its own.
        self._channel.send({"ended": number})
        figures = display.save_figures(self._folder, f"figure_{number}", self._figure_dpi)
        _flush()
        unsaved = self._variables.save(code)
        self._save_code(name, code)
        return {
            "number": number,
            "result": outcome.result,
            "error": outcome.error,
            "figures": figures,
            "files": before.changes(),
            "variables": self._variables.catalogue(),
            "unsaved": unsaved,
        }

    def _save_code(self, name: str, code: str) -> None:
        with contextlib.suppress(OSError):  # the session's folder is full, or its code has removed the folder
            folder = self._state / SAVED_CODE
            folder.mkdir(exist_ok=True)
            moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
            (folder / f"{name}_{moment}.py").write_text(code)

    def _preview(self, name: str) -> dict[str, Any]:
        """What is shown of a variable."""
        return self._of_variable(name, lambda value: {"shown": display.shown(value)})

    def _export(self, name: str) -> dict[str, Any]:
        """The name of a file with a variable."""
        return self._of_variable(name, lambda value: {"file": export(name, value, self._state)})

    def _of_variable(self, name: str, reply: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        try:
            value = self._variables.values[name]
        except KeyError:
            return {"unknown": name}
        except Exception as error:  # boundary: what was saved of it may be anything
            return {"failed": f"{type(error).__name__}: {error}"[:2000]}
        try:
            return reply(value)
        except Exception as error:  # boundary: the value's class may be anything
            return {"failed": f"{error}"[:2000]}

    def _analyse(self, file: str) -> dict[str, Any]:
        """The analysis of a file. This process does nothing else."""

        def analyse(analysis: Any) -> dict[str, Any]:
            found = analysis.analyse(file)
            return {"analysis": found, "profile": analysis.profile(found)}

        return self._read(analyse)

    def _texts(self, file: str) -> dict[str, Any]:
        """Write the text of a file's pages into the state. This process does nothing else."""
        return self._read(lambda analysis: analysis.write_page_texts(file, self._state / TEXTS))

    def _read(self, read: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """What `read` makes of the package that reads files, or why the file is refused."""
        analysis = importlib.import_module(".analysis", __package__)
        limit_memory(ANALYSIS_BYTES)
        try:
            return read(analysis)
        except analysis.Refused as error:
            return {"refused": str(error)[:2000]}
        except Exception as error:  # boundary: a hostile file makes any library fail
            return {"refused": f"It can't be read: {type(error).__name__}: {error}"[:2000]}


def _count(folder: Path) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:  # there were no cells yet
        return 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # boundary: code may have replaced it
            stream.flush()
