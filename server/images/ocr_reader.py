"""Text and facts of stored pictures, for models that take none: one process in the sandbox, which reads pixels."""

import io
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import SandboxUnavailableError
from server.files.folders import SessionFolders
from server.images.reading import Facts, Reading
from server.images.scratch import Scratch
from server.sandbox.process import NoReplyError, SandboxEndedError, SandboxProcess
from server.sandbox.sandboxes import Sandboxes

log = logging.getLogger(__name__)

OCR_SECONDS = 180.0
"""For one picture, on a machine that has other things to do, the import of the libraries included."""
IDLE_SECONDS = 300.0
"""After that the process ends: it holds some 300 MB."""
NOTICE_SECONDS = 0.2
MOST_SAVED = 256


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(max_length=20_000)
    facts: Facts
    missing: str = Field(max_length=200)


@dataclass
class _Process:
    process: SandboxProcess
    folder: Scratch
    used: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        self.process.close()
        try:
            self.folder.remove()
        except OSError:
            log.exception("the folder of OCR can't be removed")


class OcrReader:
    """Idle until the first picture. Safe for any number of threads, which read one after the other."""

    def __init__(self, sandboxes: Sandboxes, folders: SessionFolders) -> None:
        self._sandboxes = sandboxes
        self._folders = folders
        self._lock = threading.Lock()
        self._running: _Process | None = None
        self._saved: OrderedDict[str, Reading] = OrderedDict()
        self._closed = threading.Event()
        self._tidying: threading.Thread | None = None

    def read(self, sha256: str, content: bytes, check: Callable[[], None]) -> Reading:
        """What is read of `content`, a picture that Hearth has made, with that hash. The same picture is read once.

        `check` is called while this waits, and raises to end it. What goes wrong is the reading's `problem`.
        """
        while not self._lock.acquire(timeout=NOTICE_SECONDS):
            check()
        try:
            if sha256 not in self._saved:
                reading = self._read(content, check)
                if reading.facts is None:
                    return reading
                self._saved[sha256] = reading
                while len(self._saved) > MOST_SAVED:
                    self._saved.popitem(last=False)
            self._saved.move_to_end(sha256)
            return self._saved[sha256]
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process."""
        self._closed.set()
        running = self._running
        if running is not None:
            running.process.kill("the server is ending")
        with self._lock:
            self._drop()

    def _read(self, content: bytes, check: Callable[[], None]) -> Reading:
        from PIL import Image

        # It was encoded by this server, from pixels.
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            size, pixels = image.size, image.convert("RGB").tobytes()
        try:
            running = self._ready()
            running.folder.write("pixels", pixels)
            running.process.tell({"do": "ocr", "file": "pixels", "width": size[0], "height": size[1]})
            reply = _Reply.model_validate(self._answer(running, check))
        except SandboxUnavailableError as error:
            return Reading(problem=f"OCR runs in the sandbox, and there is none: {error.message}")
        except (SandboxEndedError, NoReplyError) as error:
            self._drop()
            reason = str(error) or f"it takes longer than {OCR_SECONDS:g} s"
            return Reading(problem=f"OCR has failed: {reason}.")
        except ValidationError:
            self._drop()
            return Reading(problem="OCR has failed: its process has sent nonsense.")
        except BaseException:  # the run was stopped: nobody waits for the reply any more
            self._drop()
            raise
        problem = ""
        if reply.missing:
            problem = (
                "OCR is not installed. Where the server runs: pip install -r requirements-documents.txt "
                f"({reply.missing})"
            )
        return Reading(reply.text.strip(), reply.facts, problem)

    def _answer(self, running: _Process, check: Callable[[], None]) -> dict[str, Any]:
        deadline = time.monotonic() + OCR_SECONDS
        while True:
            try:
                reply = running.process.reply(NOTICE_SECONDS, lambda data: None)
            except NoReplyError:
                check()
                if time.monotonic() > deadline:
                    raise
                continue
            finally:
                running.used = time.monotonic()
            if "refused" in reply:
                raise SandboxEndedError(str(reply["refused"])[:500])
            return reply

    def _ready(self) -> _Process:
        if self._closed.is_set():
            raise SandboxUnavailableError("The server is ending.")
        if self._running is not None and self._running.process.is_alive:
            return self._running
        self._drop()
        folder = Scratch(self._folders.root)
        try:
            self._running = _Process(self._sandboxes.start_alone(folder.name), folder)
        except BaseException:
            folder.remove()
            raise
        if self._tidying is None:
            self._tidying = threading.Thread(target=self._tidy, name="OCR tidying", daemon=True)
            self._tidying.start()
        return self._running

    def _tidy(self) -> None:
        while not self._closed.wait(IDLE_SECONDS / 4):
            if not self._lock.acquire(blocking=False):
                continue
            try:
                if self._running is not None and time.monotonic() - self._running.used > IDLE_SECONDS:
                    self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.close()
