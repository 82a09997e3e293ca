"""Jobs on a Ray cluster: workers on its nodes, which the server uses as its own.

A job there differs from one here only in who starts its processes. The server makes the same descriptors for both
(`server.workers.process`). Those of a job on the cluster go to the driver (`ray_driver.py`), which carries the bytes
to a node (`ray_node.py`). So model calls, shared values, progress, logs and cancelling are the same code.
"""

import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import WorkerUnavailableError
from server.workers.event_loop import EventLoop
from server.workers.inside.isolation import Settings as WorkerSettings
from server.workers.kept_values import KeptStore
from server.workers.pool import Workers
from server.workers.process import Process
from server.workers.template import DEFAULT_PRELOAD, ENTRY, ENVIRONMENT, ROOT
from server.workers.worker import Worker

if TYPE_CHECKING:
    from server.jobs.ray_driver import Order
    from server.reload import Generation

log = logging.getLogger(__name__)

RAY = "2.60.0"
"""The version that is tested."""
CONNECT_SECONDS = 45.0
LOOK_SECONDS = 0.1
CLOSE_SECONDS = 10.0
LOST = {"exit_code": None, "signal": None, "lost": "the connection to the Ray cluster has ended"}


class RayMissingError(Exception):
    """Ray is not installed. The message says how to install it."""


class RayCluster:
    """Starts workers on the nodes of one cluster. Connects when the first one is needed, and again after the
    connection was lost. Safe for any number of threads."""

    def __init__(
        self, address: str, workers: Workers, folder: Path, hidden: frozenset[str], import_seconds: float = 60.0
    ) -> None:
        """`address`: as `ray.init` takes it. `folder`: of this server, for values that are not saved. `hidden`:
        environment variables that workers don't get. Raises `RayMissingError`."""
        if importlib.util.find_spec("ray") is None:
            raise RayMissingError(
                f"HEARTH_RAY_ADDRESS is set, and Ray is not installed. Install it, in the version of the cluster: "
                f'pip install "ray=={RAY}"'
            )
        self._address = address
        self._workers = workers
        self._kept = KeptStore(folder)
        self._cache = f"/tmp/hearth-{os.getuid()}"
        self._settings = asdict(
            WorkerSettings(ENTRY, list(DEFAULT_PRELOAD), "", workers.memory_bytes, import_seconds)
        )
        self._environment: dict[str, str | None] = {**dict.fromkeys(hidden), **ENVIRONMENT}
        self._loop = EventLoop()
        self._driver: _Driver | None = None
        self._is_closed = False
        self._changing = threading.Lock()

    def start_worker(
        self,
        generation: "Generation",
        workspace: str,
        resources: Mapping[str, float],
        seconds: float,
        check: Callable[[], None],
        on_output: Callable[[bytes], object],
    ) -> Worker:
        """A worker on a node that has the `resources`, see `server.sdk.jobs.resources`; one processor, unless they
        name another number. Its code is not loaded yet. The caller closes it.

        Waits for such a node for `seconds` at most. `check` is called meanwhile, and may raise. `on_output` gets a
        note why it waits. Raises `WorkerUnavailableError`.
        """
        driver = self._connected(check)
        process = Process(self._loop, lambda process, reported: None, LOST)
        process.copy_output(on_output)
        order: Order = {
            "generation": generation.hash,
            "code": str(generation.folder),
            "cache": self._cache,
            "resources": {"num_cpus": 1.0, **resources},
            "settings": self._settings,
            "environment": self._environment,
        }
        try:
            try:
                driver.send(order, process)
            finally:
                process.begin()
            deadline = time.monotonic() + seconds
            while not process.started.wait(LOOK_SECONDS):
                check()
                if time.monotonic() > deadline:
                    wanted = _shown(order["resources"])
                    raise WorkerUnavailableError(
                        f"No node of the Ray cluster had {wanted} free within {seconds:g} seconds."
                    )
            if not process.pid:
                reason = process.end.lost if process.end is not None else None
                output = "".join(f"\n{line}" for line in process.end.output) if process.end is not None else ""
                raise WorkerUnavailableError(f"No worker can be started on the Ray cluster: {reason}.{output}")
        except BaseException:
            process.kill()
            process.socket.close()
            raise
        process.copy_output(lambda data: None)
        process.started_at = time.time()
        folder = f"{self._cache}/code/{generation.hash}"
        # A folder that is not there: each job builds the values of `keep` itself.
        not_saved = Path(self._cache, "not-saved")
        return self._workers.over(process, folder, workspace, generation.hash, self._kept, not_saved)

    def close(self) -> None:
        """End the connection, and with it all workers on the cluster."""
        with self._changing:
            self._is_closed = True
            driver = self._driver
        if driver is not None:
            driver.close()
        self._loop.stop()

    def _connected(self, check: Callable[[], None]) -> "_Driver":
        with self._changing:
            if self._is_closed:
                raise WorkerUnavailableError("The server is shutting down.")
            if self._driver is None or self._driver.has_ended.is_set():
                try:
                    self._driver = _Driver(self._address)
                except OSError as error:
                    raise WorkerUnavailableError(f"Ray's driver can't be started: {error}") from error
            driver = self._driver
        deadline = time.monotonic() + CONNECT_SECONDS
        while not driver.is_ready.wait(LOOK_SECONDS):
            check()
            if driver.has_ended.is_set() or time.monotonic() > deadline:
                driver.close()
                reason = driver.failure or f"it does not answer within {CONNECT_SECONDS:.0f} seconds"
                raise WorkerUnavailableError(
                    f"The Ray cluster at {self._address} can't be reached: {reason}. Check "
                    "HEARTH_RAY_ADDRESS, and that its versions of Ray and Python are this server's."
                )
        return driver


class _Driver:
    """The process that is connected to the cluster."""

    def __init__(self, address: str) -> None:
        """Starts it. Raises `OSError`."""
        self.is_ready = threading.Event()
        self.has_ended = threading.Event()
        self.failure: str | None = None
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = {"address": address, "control": theirs.fileno(), "root": str(ROOT)}
        with theirs:
            try:
                self._program = subprocess.Popen(
                    [sys.executable, "-m", "server.jobs.ray_driver", json.dumps(given)],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError:
                self._control.close()
                raise
        threading.Thread(target=self._read, name="ray driver", daemon=True).start()

    def _read(self) -> None:
        while data := self._control.recv(1 << 16):
            message = json.loads(data)
            self.failure = message.get("failed")
            if "ready" in message:
                self.is_ready.set()
        self._control.close()
        code = self._program.wait()
        self.failure = self.failure or f"Ray's driver has ended with code {code}"
        log.warning("the connection to the Ray cluster has ended: %s", self.failure)
        self.has_ended.set()

    def send(self, order: "Order", process: Process) -> None:
        """Let it start a worker with the descriptors of `process`. Raises `WorkerUnavailableError`."""
        try:
            socket.send_fds(self._control, [json.dumps(order).encode()], list(process.ends))
        except OSError as error:
            raise WorkerUnavailableError(f"The connection to the Ray cluster has ended: {error}") from error

    def close(self) -> None:
        """End it."""
        with suppress(OSError):  # it has ended, and the socket is closed
            self._control.shutdown(socket.SHUT_WR)
        try:
            self._program.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()


def _shown(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={amount:g}" for name, amount in resources.items())
