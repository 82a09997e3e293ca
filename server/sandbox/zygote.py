"""The zygote, seen from the server: one process from which all sandboxes are forked."""

import array
import contextlib
import json
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from server.errors import SandboxUnavailableError
from server.sandbox.inside.settings import Settings
from server.sandbox.inside.zygote import READY
from server.sandbox.isolation import Isolation, environment
from server.sandbox.process import SandboxProcess

log = logging.getLogger(__name__)

READY_SECONDS = 120.0
"""For the imports of the zygote, on a slow machine with a cold disk."""
LONGEST_COMPLAINT = 2000


class Zygote:
    """Starts sandboxes. Safe for any number of threads. Starting it takes seconds: see the constructor."""

    def __init__(self, isolation: Isolation, sessions: Path, settings: Callable[[int], Settings]) -> None:
        """Starts the process, and waits until it is ready. `settings`: makes them, given the descriptor of the
        control socket. Raises `SandboxUnavailableError`, whose message has what the process said."""
        self.isolation = isolation
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        reading, writing = os.pipe()
        try:
            with theirs:
                self._popen = subprocess.Popen(
                    isolation.command(settings(theirs.fileno()), sessions),
                    stdin=subprocess.DEVNULL,
                    stdout=writing,
                    stderr=writing,
                    env=environment(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            self._control.close()
            os.close(reading)
            raise SandboxUnavailableError(f"The sandbox can't be started: {error}.") from error
        finally:
            os.close(writing)
        self._complaints = _Complaints(reading)
        self._control.settimeout(READY_SECONDS)
        try:
            said = self._control.recv(1 << 16)
        except OSError:
            said = b""
        if not said:
            self.close()
            reason = self._complaints.text.strip() or "it has ended without a word"
            raise SandboxUnavailableError(f"The sandbox can't be started with {isolation.mode.value}: {reason}")
        self._control.settimeout(None)
        ready = json.loads(said)
        log.info("The sandbox is ready after %.1f s, with %s", ready[READY], isolation.mode.value)
        for name, why in ready["left_out"].items():
            log.warning("The sandbox can't import %s: %s", name, why)

    @property
    def is_alive(self) -> bool:
        """Whether it can start sandboxes."""
        return self._popen.poll() is None

    def start(self) -> SandboxProcess:
        """A new sandbox, which waits for its session. Raises `SandboxUnavailableError`."""
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        descriptors = array.array("i", [theirs.fileno(), writing])
        try:
            with self._lock:
                self._control.sendmsg(
                    [b'{"do": "start"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors.tobytes())]
                )
        except OSError as error:
            ours.close()
            os.close(reading)
            raise SandboxUnavailableError(
                f"The sandbox's zygote has ended: {self._complaints.text or error}"
            ) from error
        finally:
            theirs.close()
            os.close(writing)
        return SandboxProcess(ours, reading)

    def close(self) -> None:
        """End it, and all sandboxes."""
        self._control.close()
        try:
            self._popen.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class _Complaints:
    """What zygote and sandboxes write before code runs in them: reasons why they could not start."""

    def __init__(self, pipe: int) -> None:
        self.text = ""
        self._pipe = pipe
        threading.Thread(target=self._read, name="sandbox zygote output", daemon=True).start()

    def _read(self) -> None:
        with open(self._pipe, errors="replace") as file, contextlib.suppress(OSError):
            for line in file:
                self.text = (self.text + line)[-LONGEST_COMPLAINT:]
                log.warning("Sandbox: %s", line.rstrip()[:LONGEST_COMPLAINT])
