"""The template, from which the processes of workers are forked, and the keeper above it.

```
server ── keeper ── template
                 ├─ guard ── worker ── what it starts
                 └─ guard ── worker
```
The server starts the keeper. Where there is no fork from a template (not Linux), each worker is a program started
anew, with a guard above it and nothing else. server/workers/inside/ holds what runs in these processes.

Over 400 lines: starting and ending a process depend on the same state.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NamedTuple

from server.workers.event_loop import EventLoop
from server.workers.inside import guard
from server.workers.inside.isolation import Settings
from server.workers.output import CHUNK_BYTES, OutputLog
from server.workers.process import End, Process, Usage

__all__ = ["DEFAULT_PRELOAD", "End", "Process", "Template", "Usage", "WorkerStartError"]

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
TEMPLATE = "server.workers.inside.template"
ENTRY = "server.workers.inside.worker:main"
DEFAULT_PRELOAD = (
    "server.workers.inside.warm_up",
    # What the shipped tools and agents rest on.
    "dateutil.parser",
    "json_repair",
    "jsonschema",
    "pint",
    "simpleeval",
)
ENVIRONMENT = {
    # Asking whether there is a GPU must not initialise CUDA, which no fork survives.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # Tokenizers warns about forks, and would stop using threads anyway.
    "TOKENIZERS_PARALLELISM": "false",
}
NEVER_LEARNED = {
    "bitsandbytes": "it initialises CUDA",
    "faiss": "it hangs after a fork",
}
START_SECONDS = 120.0
RESTART_SECONDS = 30.0
"""A template that ends after a longer life is replaced at once; one that ends sooner, when a worker is needed."""
SUCCESSOR_SECONDS = 180.0
CLOSE_SECONDS = 3.0


class WorkerStartError(Exception):
    """No worker could be started."""


class _Root:
    """A keeper with the template below it, as the server sees them."""

    def __init__(self, popen: subprocess.Popen[bytes], channel: socket.socket, control: socket.socket, pipe: int):
        self.popen = popen
        self.channel = channel
        self.control: socket.socket | None = control
        """None when the template has ended."""
        self.pipe = pipe
        self.began = time.monotonic()
        self.is_ready = False


class Template:
    """Starts workers, and has a spare one, so that the next worker is ready at once. Safe for any number of threads.

    The template is started at once, in the background: nothing heavy happens in the server's process.
    """

    def __init__(
        self,
        *,
        memory_bytes: int | None,
        hidden: Collection[str] = (),
        method: Literal["fork", "spawn"] | None = None,
        entry: str = ENTRY,
        preload: Sequence[str] = DEFAULT_PRELOAD,
        import_seconds: float = 60.0,
    ) -> None:
        """`memory_bytes`: what each process of a worker may allocate, in addition to its memory at the start.
        `hidden`: environment variables that workers don't get. `method`: `fork` from a template (only on Linux), or
        `spawn`: each worker is a new Python process. `import_seconds`: the maximum for each module that `learn`
        imports.
        """
        self.method = method or ("fork" if sys.platform == "linux" else "spawn")
        self._settings = Settings(entry, list(preload), os.getcwd(), memory_bytes, import_seconds)
        self._environment = {name: value for name, value in os.environ.items() if name not in hidden} | ENVIRONMENT
        self._output = OutputLog("template")
        self._loop = EventLoop()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._roots: list[_Root] = []
        self._root: _Root | None = None
        self._live: set[Process] = set()
        self._programs: dict[Process, subprocess.Popen[bytes]] = {}
        self._spare: Process | None = None
        self._learned: list[str] = []
        self._left_out: dict[str, str] = {}
        self._to_learn: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._learner: threading.Thread | None = None
        with self._lock:
            self._make_spare()

    @property
    def learned(self) -> list[str]:
        """Modules that the template has imported because of `learn`."""
        with self._lock:
            return list(self._learned)

    @property
    def left_out(self) -> dict[str, str]:
        """Modules that it doesn't import, and why."""
        with self._lock:
            return dict(self._left_out)

    def spawn(self) -> Process:
        """A new worker, which calls its entry. Waits for the template's imports if they are not done.

        Raises `WorkerStartError`. A template that has ended is replaced.
        """
        deadline = time.monotonic() + START_SECONDS
        for _ in range(3):
            with self._lock:
                process, self._spare = self._spare or self._request(), None
            process.started.wait(max(deadline - time.monotonic(), 0))
            if process.pid and not process.ended.is_set():
                with self._lock:
                    self._make_spare()
                process.started_at = time.time()
                return process
            _drop(process)
            if time.monotonic() >= deadline:
                raise WorkerStartError(f"No worker has started within {START_SECONDS:.0f} s.")
        lines = process.end.output if process.end else []
        with self._lock:
            lines = lines or list(self._output.tail)
        raise WorkerStartError("\n".join(["Workers end before they have started.", *lines]))

    def learn(self, modules: Sequence[str]) -> None:
        """Let the template import `modules` in the background, for later workers. Returns at once.

        Names that were learned or left out before are skipped. With the method `spawn` nothing is learned.
        """
        with self._lock:
            if self._closed.is_set() or self.method == "spawn":
                return
            names = [name for name in dict.fromkeys(modules) if not self._is_settled(name)]
            if not names:
                return
            self._to_learn.put(names)
            if self._learner is None:
                learner = threading.Thread(target=self._learn_all, name="template learning", daemon=True)
                learner.start()
                self._learner = learner

    def close(self) -> None:
        """End the template, the spare and all other workers. Waits a few seconds at most."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            spare, self._spare = self._spare, None
            live = list(self._live)
            roots = list(self._roots)
        if spare is not None:
            _drop(spare)
        for process in live:
            process.kill()
        deadline = time.monotonic() + CLOSE_SECONDS
        for process in live:
            if process.pid or self.method == "spawn":
                process.ended.wait(max(deadline - time.monotonic(), 0))
        self._to_learn.put(None)
        for root in roots:  # with its channel closed, a keeper kills what is left
            with contextlib.suppress(OSError):
                root.channel.shutdown(socket.SHUT_RDWR)
        for root in roots:
            _wait_for(root.popen)
        for process in live:  # their guards are gone now, also of those that were still starting
            process.ended.wait(1)
        if self._learner is not None and self._learner is not threading.current_thread():
            self._learner.join(CLOSE_SECONDS)
        self._loop.stop()
        for root in roots:
            self._release(root)

    # Starting

    def _make_spare(self) -> None:
        """With the lock held."""
        if self._spare is None and not self._closed.is_set():
            try:
                self._spare = self._request()
            except WorkerStartError as error:
                log.warning("There is no spare worker: %s", error)

    def _request(self) -> Process:
        """A process that the template is starting. With the lock held."""
        if self._closed.is_set():
            raise WorkerStartError("The server is ending.")
        try:
            process = Process(self._loop, self._finished)
        except OSError as error:
            raise WorkerStartError(f"No worker can be started: {error}") from error
        self._live.add(process)
        try:
            if self.method == "spawn":
                self._programs[process] = self._start_program(process)
            else:
                self._send_request(process)
        except (OSError, WorkerStartError) as error:
            _drop(process)
            raise WorkerStartError(f"No worker can be started: {error}") from error
        finally:
            process.begin()
        return process

    def _send_request(self, process: Process) -> None:
        for _ in range(2):
            root = self._root
            if root is None or root.control is None:
                root = self._start_root()
            assert root.control is not None
            try:
                socket.send_fds(root.control, [json.dumps({"do": "worker"}).encode()], list(process.ends))
                return
            except (BrokenPipeError, ConnectionResetError):
                self._control_lost(root, root.control)
        raise WorkerStartError("the template ends as soon as it has started")

    def _program(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", TEMPLATE, *arguments]

    def _start_program(self, process: Process) -> "subprocess.Popen[bytes]":
        given = {"settings": asdict(self._settings), "ends": process.ends._asdict()}
        return subprocess.Popen(
            self._program("--once", json.dumps(given)),
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=process.ends.output,
            stderr=process.ends.output,
            pass_fds=process.ends,
            start_new_session=True,
        )

    def _start_root(self) -> _Root:
        """Start a keeper with a template. With the lock held."""
        control, templates_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel, keepers_channel = socket.socketpair()
        pipe, writing = os.pipe()
        with templates_control, keepers_channel:
            given = {
                "settings": asdict(self._settings),
                "control": templates_control.fileno(),
                "channel": keepers_channel.fileno(),
            }
            try:
                popen = subprocess.Popen(
                    self._program(json.dumps(given)),
                    cwd=ROOT,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=writing,
                    stderr=writing,
                    pass_fds=[templates_control.fileno(), keepers_channel.fileno()],
                    start_new_session=True,
                )
            except OSError:
                control.close()
                channel.close()
                os.close(pipe)
                raise
            finally:
                os.close(writing)
        os.set_blocking(pipe, False)
        root = _Root(popen, channel, control, pipe)
        self._roots.append(root)
        self._root = root

        def listen() -> None:
            self._loop.watch(channel.fileno(), lambda: self._keeper_ended(root))
            self._loop.watch(pipe, lambda: self._read_template(root))
            self._watch_control(root, control)

        self._loop.call(listen)
        if self._learned:  # not with the others at the start: one of them may have been the reason
            again, self._learned = self._learned, []
            self.learn(again)
        return root

    # What follows runs in the loop's thread.

    def _watch_control(self, root: _Root, control: socket.socket) -> None:
        if control.fileno() >= 0:
            self._loop.watch(control.fileno(), lambda: self._read_control(root, control))

    def _read_control(self, root: _Root, control: socket.socket) -> None:
        try:
            message = control.recv(4096)
        except OSError:
            message = b""
        if message:
            root.is_ready = True
            log.info("The template of the workers is ready after %.1f s", json.loads(message)["ready"])
            return
        self._loop.forget(control.fileno())
        with self._lock:
            if root.control is control and not self._closed.is_set():
                self._control_lost(root, control)
                if root.is_ready and time.monotonic() - root.began > RESTART_SECONDS:
                    with contextlib.suppress(OSError):
                        self._start_root()

    def _control_lost(self, root: _Root, control: socket.socket) -> None:
        """With the lock held."""
        if root.control is control:
            log.warning("The template of the workers has ended")
            root.control = None
            self._close_control(control)

    def _close_control(self, control: socket.socket) -> None:
        """Close it in the loop's thread, which watches it: otherwise a new descriptor with its number would be
        watched."""

        def close() -> None:
            self._loop.forget(control.fileno())
            control.close()

        with contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_WR)
        self._loop.call(close)

    def _read_template(self, root: _Root) -> None:
        try:
            data = os.read(root.pipe, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(root.pipe)
            self._output.end()
        else:
            self._output.feed(data)

    def _keeper_ended(self, root: _Root) -> None:
        self._loop.forget(root.channel.fileno())
        with self._lock:
            if self._closed.is_set():
                return
            self._roots.remove(root)
            if self._root is root:
                self._root = None
        self._loop.forget(root.pipe)
        self._output.end()
        if root.control is not None:
            self._loop.forget(root.control.fileno())
        self._release(root)
        _wait_for(root.popen)

    def _release(self, root: _Root) -> None:
        root.channel.close()
        os.close(root.pipe)
        if root.control is not None:
            root.control.close()

    def _finished(self, process: Process, reported: bool) -> None:
        with self._lock:
            self._live.discard(process)
            program = self._programs.pop(process, None)
            if not process.pid:  # the template has ended, or can't fork: it may have said why
                for root in self._roots:
                    self._read_template(root)
            roots = [] if reported or not process.pid or self._closed.is_set() else list(self._roots)
        for root in roots:  # the guard was killed: the keeper has what it leaves
            with contextlib.suppress(OSError):
                root.channel.send(guard.SWEEP)
        if program is not None:
            _wait_for(program)

    # Learning, in a thread of its own

    def _is_settled(self, name: str) -> bool:
        """Whether it was learned or left out. With the lock held."""
        if name in self._learned:
            return True
        parts = name.split(".")
        if parts[0] in NEVER_LEARNED:
            self._left_out.setdefault(name, NEVER_LEARNED[parts[0]])
        return any(".".join(parts[:length]) in self._left_out for length in range(1, len(parts) + 1))

    def _learn_all(self) -> None:
        while (names := self._to_learn.get()) is not None:
            with self._lock:
                names = [name for name in names if not self._is_settled(name)]
            try:
                while names:
                    names = self._learn_some(names)
            except OSError as error:
                log.warning("The template can't learn %s: %s", ", ".join(names), error)

    def _learn_some(self, names: list[str]) -> list[str]:
        """Fork a successor of the template, which imports `names`. Returns the names that it did not import because
        one of them ended it: try them with another successor."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)
            with self._lock:
                root = self._root
                if self._closed.is_set() or root is None or root.control is None:
                    return []
                old = root.control
                socket.send_fds(old, [json.dumps({"do": "learn", "modules": names}).encode()], [theirs.fileno()])
            theirs.close()
            outcome = _follow(ours, self._settings.import_seconds)
            with self._lock:
                if self._closed.is_set():
                    return []
                for name, reason in outcome.left_out.items():
                    self._left_out[name] = reason
                    log.info("The template leaves out %s: %s", name, reason)
                if outcome.state == "ended":
                    with contextlib.suppress(OSError):
                        root.channel.send(guard.SWEEP)
                    # If no module is to blame, the template itself has ended, and nothing is tried again.
                    return [name for name in names if name not in outcome.left_out] if outcome.left_out else []
                if outcome.state == "ready" and root.control is not old:  # it has ended meanwhile
                    return []
                self._learned += [name for name in names if name not in outcome.left_out]
                if outcome.state == "nothing" or not outcome.imported:
                    return []
                undo.pop_all()
                root.control = ours
                self._close_control(old)
                self._loop.call(lambda: self._watch_control(root, ours))
                log.info("The template of the workers has learned %s", ", ".join(outcome.imported))
                spare, self._spare = self._spare, None
                self._make_spare()
        if spare is not None:
            _drop(spare)
        return []


class _Outcome(NamedTuple):
    """The result of a successor."""

    state: Literal["ready", "nothing", "ended"]
    """`nothing`: all modules had been imported before. `ended`: the successor has ended, or must end."""
    imported: list[str]
    left_out: dict[str, str]


def _follow(control: socket.socket, import_seconds: float) -> _Outcome:
    """Read what a successor reports, until it is the template or has ended."""
    imported: list[str] = []
    left_out: dict[str, str] = {}
    importing = ""
    began = 0.0
    control.settimeout(SUCCESSOR_SECONDS)
    while True:
        try:
            data = control.recv(1 << 16)
        except OSError:  # the kernel ends an import after its time limit; anything else has the socket's timeout
            data = b""
        message = json.loads(data) if data else {}
        if "importing" in message:
            importing = message["importing"]
            began = message["at"]
            control.settimeout(import_seconds + 30)
        elif "imported" in message:
            imported.append(message["imported"])
        elif "left_out" in message:
            left_out[message["left_out"]] = message["why"]
        elif "unfit" in message:
            left_out[message["unfit"]] = message["why"]
            return _Outcome("ended", imported, left_out)
        elif "nothing" in message:
            return _Outcome("nothing", imported, left_out)
        elif "ready" in message:
            control.settimeout(None)
            return _Outcome("ready", imported, left_out)
        else:
            if importing and time.monotonic() - began >= import_seconds:
                left_out[importing] = f"its import takes longer than {import_seconds:g} s"
            elif importing:
                left_out[importing] = "its import ends the process"
            return _Outcome("ended", imported, left_out)


def _drop(process: Process) -> None:
    """End a process that no caller has received."""
    process.kill()
    process.socket.close()


def _wait_for(program: "subprocess.Popen[bytes]") -> None:
    """Reap a program that has closed its descriptors, and so ends soon."""
    try:
        program.wait(timeout=5)
    except subprocess.TimeoutExpired:
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
