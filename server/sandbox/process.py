"""One sandbox, seen from the server: its channel, its output, its end."""

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from server.errors import SandboxUnavailableError
from server.sandbox.inside.channel import MOST_BYTES
from server.sandbox.limits import Limits, ProcessGroup

START_SECONDS = 30.0
KILL_SECONDS = 10.0
CHUNK_BYTES = 1 << 16
MOST_PARTS = 500_000
"""Values in one message: parsing more would hold the server up."""
MOST_CHUNKS = 16
"""How many chunks of output are read before the channel is checked again."""
_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")


class SandboxEndedError(Exception):
    """The processes of the sandbox have ended, or were ended. The message says why."""


class NoReplyError(Exception):
    """The sandbox has not replied in time; it is still there."""


class SandboxProcess:
    """A sandbox. For one thread at a time, except `interrupt` and `kill`, which may come from any."""

    def __init__(self, channel: socket.socket, output: int) -> None:
        """Not started yet: see `wait_until_started`."""
        self._channel = channel
        self._output = output
        os.set_blocking(output, False)
        channel.setblocking(False)
        self._received = bytearray()
        self._pids: dict[str, tuple[int, int]] = {}
        """Process id, and a descriptor that stands for the process, of `init` and `interpreter`."""
        self._asked = ""
        """The id of the last message. A reply has it, so that none is taken for another's."""
        self._group: ProcessGroup | None = None
        self._reason = ""
        self._is_closed = False
        self.ran_out_of_memory = False
        """Known when it is closed."""

    def wait_until_started(self, limits: Limits) -> None:
        """Wait until its processes run, and limit them. Raises `SandboxUnavailableError`."""
        try:
            for role in ("init", "interpreter"):
                message, pid = self._first_message(role)
                if message.get("role") != role:
                    raise SandboxEndedError(f"it says {message!r}")
                self._pids[role] = (pid, os.pidfd_open(pid))
            self._group = limits.group(self._pids["init"][0], self._pids["interpreter"][0])
        except (SandboxEndedError, OSError) as error:
            self.close()
            raise SandboxUnavailableError(
                f"A sandbox could not be started: {error}. The log may say more."
            ) from error

    def open(self, folder: str, set_aside: bool = False) -> dict[str, Any]:
        """Give it its session's folder. From now on it has no rights any more. `set_aside`: whether to move the saved
        variables aside. Returns `variables` and, if they are damaged, `damaged`: why. Raises `SandboxEndedError`, and
        `NoReplyError`."""
        return self.ask({"folder": folder, "set_aside": set_aside}, START_SECONDS, lambda data: None)

    def ask(self, message: dict[str, Any], seconds: float, on_output: Callable[[bytes], None]) -> dict[str, Any]:
        """The reply to a message. `on_output` gets what the code prints meanwhile. Raises `NoReplyError` after so
        many `seconds`; then `reply` waits on. Raises `SandboxEndedError`."""
        self.tell(message)
        return self.reply(seconds, on_output)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message. Raises `SandboxEndedError`."""
        self._asked = secrets.token_hex(8)
        data = json.dumps({**message, "message_id": self._asked}).encode()
        self._send(_LENGTH.pack(len(data)) + data)

    def reply(self, seconds: float, on_output: Callable[[bytes], None]) -> dict[str, Any]:
        """The next message of the sandbox; see `ask`. Kills one that replies to no message, or to an earlier one."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._output, select.POLLIN)
        has_output = True
        while True:
            found = self._take_message()
            if found is not None:
                if has_output:
                    self._read_output(on_output)
                if found.pop("in_reply_to", None) == self._asked:
                    return found
                self.kill("it has sent a reply that was not asked for")
                self._received.clear()
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise NoReplyError
            ready = dict(poll.poll(left * 1000))
            if self._output in ready and has_output and not self._read_output(on_output):
                poll.unregister(self._output)
                has_output = False
            if self._channel.fileno() in ready and not self._read_channel():
                if has_output:
                    self._read_output(on_output)
                self.close()
                raise SandboxEndedError(self._reason or self._why_ended())

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the code that runs."""
        self._signal("interpreter", signal.SIGINT)

    def kill(self, reason: str) -> None:
        """Kill all its processes. `reason`: what its `SandboxEndedError` says, if none was given before."""
        self._reason = self._reason or reason
        # Its init then ends all others, and ends last.
        self._signal("interpreter", signal.SIGKILL)

    @property
    def is_alive(self) -> bool:
        """Whether its processes run, and were not killed."""
        return not self._is_closed and not self._reason and not _has_ended(self._pids["interpreter"][1])

    @property
    def group(self) -> ProcessGroup:
        """Its processes."""
        assert self._group is not None, "it was started"
        return self._group

    def close(self) -> None:
        """End it, and wait until none of its processes is left."""
        if self._is_closed:
            return
        self._is_closed = True
        self._signal("interpreter", signal.SIGKILL)
        if "init" in self._pids and not _has_ended(self._pids["init"][1], KILL_SECONDS):
            self._signal("init", signal.SIGKILL)
        if self._group is not None:
            self.ran_out_of_memory = self._group.ran_out_of_memory()
            self._group.close()
        for _, descriptor in self._pids.values():
            os.close(descriptor)
        self._pids.clear()
        self._channel.close()
        os.close(self._output)

    def _signal(self, role: str, number: signal.Signals) -> None:
        known = self._pids.get(role)
        if known is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(known[1], number)

    def _first_message(self, role: str) -> tuple[dict[str, Any], int]:
        """A message with the process id of its sender, which the kernel gives: no namespace hides it."""
        pid = 0
        deadline = time.monotonic() + START_SECONDS
        while (found := self._take_message()) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._channel], [], [], left)[0]:
                raise SandboxEndedError(f"its {role} says nothing")
            # Not more than one message: the next one has another sender.
            need = _LENGTH.size if len(self._received) < _LENGTH.size else _LENGTH.unpack_from(self._received)[0] + 4
            data, ancillary, _, _ = self._channel.recvmsg(
                need - len(self._received), socket.CMSG_SPACE(_CREDENTIALS.size)
            )
            if not data:
                raise SandboxEndedError(f"its {role} has ended")
            self._received += data
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
        return found, pid

    def _send(self, data: bytes) -> None:
        """Everything, as the sandbox reads it."""
        sent, deadline = 0, time.monotonic() + START_SECONDS
        while sent < len(data):
            try:
                sent += self._channel.send(data[sent:])
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self.kill("it does not read what it is sent")
                select.select([], [self._channel], [], 1)
            except OSError:
                self.close()
                raise SandboxEndedError(self._reason or "its processes have ended") from None

    def _read_channel(self) -> bool:
        """Take what has arrived. Returns False at the channel's end."""
        try:
            data = self._channel.recv(1 << 20)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._received += data
        return bool(data)

    def _take_message(self) -> dict[str, Any] | None:
        """The next whole message. Kills a sandbox that sends something else."""
        if len(self._received) < _LENGTH.size:
            return None
        length = _LENGTH.unpack_from(self._received)[0]
        if length > MOST_BYTES:
            self._received.clear()
            self.kill("it has sent nonsense")
            return None
        if len(self._received) < _LENGTH.size + length:
            return None
        data = bytes(self._received[_LENGTH.size : _LENGTH.size + length])
        del self._received[: _LENGTH.size + length]
        message = None
        if data.count(b",") + data.count(b"[") + data.count(b"{") <= MOST_PARTS:
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(data)
        if not isinstance(message, dict):
            self.kill("it has sent nonsense")
            return None
        return message

    def _read_output(self, on_output: Callable[[bytes], None]) -> bool:
        """Give what there is to `on_output`. Returns False at the output's end."""
        for _ in range(MOST_CHUNKS):
            try:
                data = os.read(self._output, CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            on_output(data)
        return True

    def _why_ended(self) -> str:
        return "its interpreter has ended: it crashed, was killed, or left by os._exit"


def _has_ended(descriptor: int, seconds: float = 0) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])
