"""Sandboxes that are ready for the next sessions, and the zygote that makes them."""

import logging
import threading
from collections import deque
from functools import partial
from pathlib import Path

from constants import Settings
from server.errors import SandboxUnavailableError
from server.observability import metrics
from server.sandbox import isolation
from server.sandbox.inside import settings as inside
from server.sandbox.limits import Limits
from server.sandbox.process import SandboxProcess
from server.sandbox.zygote import Zygote

log = logging.getLogger(__name__)

OPEN_FILES = 512
SCRATCH_BYTES = 64 * 2**20
FIGURE_DPI = 100
CLOSE_SECONDS = 5.0
MADE_AT_ONCE = 2
"""Spare sandboxes. Most of the work is done in their own processes."""


class Pool:
    """Gives sandboxes. Idle until the first call. Safe for any number of threads."""

    def __init__(self, settings: Settings, sessions: Path) -> None:
        """`sessions`: the folder of all sessions' folders."""
        self._settings = settings
        self._sessions = sessions
        self.limits = Limits(int(settings.SANDBOX_MEMORY_GB * 2**30), settings.SANDBOX_PROCESSES)
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._zygote: Zygote | None = None
        self._spares: deque[SandboxProcess] = deque()
        self._makers: set[threading.Thread] = set()
        """Each makes one spare sandbox."""
        self._is_closed = False
        self._chosen: isolation.Isolation | None = None

    def take(self) -> SandboxProcess:
        """A sandbox that waits for its session. Raises `SandboxUnavailableError`."""
        while True:
            with self._lock:
                if self._is_closed:
                    raise SandboxUnavailableError("The server is ending.")
                process = self._spares.popleft() if self._spares else None
                self._fill()
            if process is None:
                return self._start()
            if process.is_alive:
                return process
            process.close()

    @property
    def separated_by(self) -> str:
        """How sandboxes are separated from the machine; empty: none was started yet."""
        return "" if self._chosen is None else self._chosen.mode.value

    def open(self) -> None:
        """Make the spare ones now, in the background."""
        with self._lock:
            self._fill()

    def close(self) -> None:
        """End the zygote and with it all sandboxes."""
        with self._lock:
            self._is_closed = True
            spares = list(self._spares)
            self._spares.clear()
            makers = list(self._makers)
        for process in spares:
            process.close()
        for maker in makers:
            maker.join(CLOSE_SECONDS)
        with self._starting:
            if self._zygote is not None:
                self._zygote.close()

    def _fill(self) -> None:
        """With the lock held: start what is missing, each in a thread of its own."""
        if self._is_closed:
            return
        missing = self._settings.SANDBOX_SPARES - len(self._spares) - len(self._makers)
        for _ in range(min(missing, MADE_AT_ONCE - len(self._makers))):
            maker = threading.Thread(target=self._make_spare, name="spare sandbox", daemon=True)
            self._makers.add(maker)
            maker.start()

    def _make_spare(self) -> None:
        process = None
        try:
            process = self._start()
        except SandboxUnavailableError as error:
            log.warning("There is no spare sandbox: %s", error)
        with self._lock:
            self._makers.discard(threading.current_thread())
            is_wanted = process is not None and not self._is_closed
            if process is not None and is_wanted:
                self._spares.append(process)
                self._fill()
        if process is not None and not is_wanted:
            process.close()

    def _start(self) -> SandboxProcess:
        process = self._ready_zygote().start()
        process.wait_until_started(self.limits)
        metrics.SANDBOX_STARTS.inc()
        return process

    def _ready_zygote(self) -> Zygote:
        with self._starting:
            if self._is_closed:
                raise SandboxUnavailableError("The server is ending.")
            if self._zygote is not None and self._zygote.is_alive:
                return self._zygote
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None
            self._zygote = self._started_zygote()
            return self._zygote

    def _started_zygote(self) -> Zygote:
        """With the strongest isolation that works here. The first sandbox shows whether one does."""
        self._sessions.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = self._chosen
        candidates = [known] if known is not None else isolation.candidates(self._settings.SANDBOX)
        reasons = []
        for candidate in candidates:
            try:
                program = self._filter(candidate)
                zygote = Zygote(candidate, self._sessions, partial(self._inside, candidate, program))
                try:
                    trial = zygote.start()
                    trial.wait_until_started(self.limits)
                    trial.close()
                except SandboxUnavailableError:
                    zygote.close()
                    raise
            except SandboxUnavailableError as error:
                reasons.append(f"{candidate.mode.value}: {error}")
                log.warning("No sandbox with %s: %s", candidate.mode.value, error)
                continue
            self._chosen = candidate
            return zygote
        raise SandboxUnavailableError(_why_not(self._settings.SANDBOX, reasons))

    def _filter(self, chosen: isolation.Isolation) -> bytes:
        """The filter of system calls. Raises `SandboxUnavailableError`."""
        if chosen.mode is inside.Mode.UNSAFE:
            return b""
        try:
            # Imported here: without libseccomp it can't be, and the server does without a sandbox.
            from server.sandbox import system_calls
        except (ImportError, OSError, RuntimeError) as error:
            raise SandboxUnavailableError(
                f"the filter of system calls needs libseccomp ({error}). Install it: apt-get install libseccomp2"
            ) from error
        return system_calls.program(has_namespaces=chosen.mode is inside.Mode.NAMESPACES)

    def _inside(self, chosen: isolation.Isolation, program: bytes, control: int) -> inside.Settings:
        return inside.Settings(
            mode=chosen.mode,
            control=control,
            preload=list(self._settings.SANDBOX_PRELOAD),
            sessions=chosen.sessions or str(self._sessions),
            filter=program,
            readable=isolation.readable(),
            scratch_bytes=SCRATCH_BYTES,
            file_bytes=self._settings.SESSION_FILES_BYTES,
            open_files=OPEN_FILES,
            processes=self._settings.SANDBOX_PROCESSES,
            process_memory_bytes=0 if self.limits.held_by == "cgroup" else self.limits.memory_bytes,
            figure_dpi=FIGURE_DPI,
        )


def _why_not(wanted: str, reasons: list[str]) -> str:
    if wanted == "off":
        return "The sandbox is turned off: HEARTH_SANDBOX=off."
    tried = "; ".join(reasons) or "neither bubblewrap nor Landlock is here"
    return (
        f"Code can't be run here, because nothing separates it from the machine ({tried}). docs/sandbox.md says what "
        "the sandbox needs."
    )
