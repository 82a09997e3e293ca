"""The process that is connected to a Ray cluster for the server: `python -m server.jobs.ray_driver`.

Ray ends a process that loses its cluster, and the server must not end. So the server starts this one, and sends it
the descriptors of each worker, as it sends them to its template (`server.workers.template`). For each the driver
creates an actor and carries the bytes. When either process ends, the job's processes end.

The control socket carries one JSON message a packet. To the server: `{"ready": true}` or `{"failed": reason}`. From
the server: a `_Order` with the descriptors of `Ends`. To the server's end of a worker's `channel` it adds, for one
that no node has reported the end of, `{"exit_code": null, "signal": null, "lost": reason}`.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import select
import socket
import sys
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import ray
from ray import cloudpickle
from ray.exceptions import RayError

from server.jobs import ray_node
from server.workers.inside.isolation import Ends

log = logging.getLogger(__name__)

MESSAGE_BYTES = 1 << 17
LOOK_SECONDS = 0.2
NOTE_SECONDS = 5.0
"""After this time the log of a job that waits says why."""
DRAIN_SECONDS = 5.0
"""Maximum time for a worker's last output after its end."""
CLOSE_SECONDS = 15.0
MOST_ARCHIVES = 16
"""Maximum number of generations in the cluster's object store."""
LONGEST_REASON = 500


class Order(TypedDict):
    """A worker that the server wants. `code`: the folder of the generation `generation`. `resources`: the arguments
    of a Ray actor. `environment`: variables of the worker, None for those that it must not have."""

    generation: str
    code: str
    cache: str
    resources: dict[str, float]
    settings: dict[str, Any]
    environment: dict[str, str | None]


def main(arguments: list[str]) -> None:
    """Serve until the server closes the control socket."""
    given = json.loads(arguments[0])
    control = socket.socket(fileno=given["control"])
    try:
        ray.init(address=given["address"], namespace="hearth", log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # boundary: Ray raises errors of many kinds
        control.send(json.dumps({"failed": _reason(error)}).encode())
        return
    cloudpickle.register_pickle_by_value(ray_node)
    archives = _Archives(Path(given["root"]))
    control.send(json.dumps({"ready": True}).encode())
    while True:
        message, received, _, _ = socket.recv_fds(control, MESSAGE_BYTES, len(Ends._fields))
        if not message:
            break
        work = _Job(json.loads(message), Ends(*received), archives).run
        threading.Thread(target=work, name="job", daemon=True).start()
    # Ray kills the actors of a driver that has ended, and their guards the rest.
    ray.shutdown()


class _Archives:
    """Files in the cluster's object store: a node fetches each at most once. Safe for any number of threads."""

    def __init__(self, root: Path) -> None:
        """`root`: the folder that Hearth is installed in."""
        data = _packed(root, _hearths_files(root))
        self._hearth = f"hearth/{hashlib.sha256(data).hexdigest()[:12]}", ray.put(data)
        self._code: OrderedDict[str, Any] = OrderedDict()
        self._changing = threading.Lock()

    def of(self, generation: str, folder: Path) -> dict[str, Any]:
        """References to Hearth's files and a generation's, by their folders in a node's cache."""
        with self._changing:
            if generation not in self._code:
                self._code[generation] = ray.put(_packed(folder, _generations_files(folder)))
            self._code.move_to_end(generation)
            found = {self._hearth[0]: self._hearth[1], f"code/{generation}": self._code[generation]}
            while len(self._code) > MOST_ARCHIVES:
                self._code.popitem(last=False)
        return found


def _hearths_files(root: Path) -> Iterator[Path]:
    """What a worker imports: no weights, and nothing that a generation has itself."""
    left_out = [root / "server" / name for name in ("tools", "agent", "model.py", "embedded/weights")]
    yield root / "constants.py"
    for place in sorted((root / "server").rglob("*")):
        if place.is_file() and place.suffix != ".pyc" and not any(map(place.is_relative_to, left_out)):
            yield place


def _generations_files(folder: Path) -> Iterator[Path]:
    """Its read-only files. What else is in the folder was written by its tools."""
    return (one for one in sorted(folder.rglob("*")) if one.is_file() and not one.stat().st_mode & 0o222)


def _packed(root: Path, files: Iterator[Path]) -> bytes:
    """A zip archive, the same for the same files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(str(file.relative_to(root))), file.read_bytes())
    return data.getvalue()


class _Job:
    """One job's worker: the descriptors of the server's end, and the actor on a node."""

    def __init__(self, order: Order, ends: Ends, archives: _Archives) -> None:
        self._order = order
        self._archives = archives
        self._ends = ends
        self._sockets = {name: socket.socket(fileno=getattr(ends, name)) for name in ("protocol", "channel")}
        self._over = {name: threading.Event() for name in ray_node.STREAMS}
        self._reporting = threading.Lock()
        self._is_lost = False
        self._actor: Any = None

    def run(self) -> None:
        """Carry the job's bytes until its processes have ended. On a thread of its own."""
        threads: list[threading.Thread] = []
        try:
            if self._start():
                threads = [_thread(self._up, name) for name in self._sockets]
                threads += [_thread(self._down, name) for name in ("protocol", "output", "stacks")]
                self._down("channel")
                if not self._is_lost:
                    self._end_actor()
        except Exception as error:  # boundary: the thread's end; the server must read of it
            self._lose(error)
        finally:
            if self._actor is not None:
                with contextlib.suppress(RayError):
                    ray.kill(self._actor)
            for one in self._sockets.values():
                with contextlib.suppress(OSError):  # the server has closed it
                    one.shutdown(socket.SHUT_RDWR)
            for thread in threads:  # before the numbers of its descriptors are used again
                thread.join()
            for one in self._sockets.values():
                one.close()
            os.close(self._ends.output)
            os.close(self._ends.stacks)

    def _start(self) -> bool:
        """Start the worker on a node that has what it needs. Returns False if the server gives up waiting."""
        order = self._order
        archives = self._archives.of(order["generation"], Path(order["code"]))
        kind = ray.remote(ray_node.Node).options(max_concurrency=8, max_restarts=0, **order["resources"])
        self._actor = kind.remote()
        given = order["cache"], archives, order["settings"], order["environment"]
        started = self._actor.start.remote(*given)
        note_at = time.monotonic() + NOTE_SECONDS
        while not ray.wait([started], timeout=LOOK_SECONDS)[0]:
            if select.select([self._sockets["channel"]], [], [], 0)[0]:
                return False
            if time.monotonic() > note_at:
                note_at = float("inf")
                _write(self._ends.output, _why_it_waits(order["resources"]).encode())
        ray.get(started)
        return True

    def _end_actor(self) -> None:
        try:
            ray.get(self._actor.close.remote(), timeout=CLOSE_SECONDS)
        except RayError as error:  # the job itself has ended, and Ray's kill does the rest
            log.warning("what a job has left on a node may not be removed: %s", _reason(error))

    def _up(self, stream: str) -> None:
        """From the server to the worker, one part after the other."""
        data = b"-"
        while data:
            try:
                data = self._sockets[stream].recv(ray_node.CHUNK_BYTES)
            except OSError:
                data = b""
            try:
                ray.get(self._actor.send.remote(stream, data))
            except RayError as error:
                if not self._over["channel"].is_set():
                    self._lose(error)
                return

    def _down(self, stream: str) -> None:
        """From the worker to the server."""
        try:
            while data := ray.get(self._actor.receive.remote(stream)):
                if stream in self._sockets:
                    self._sockets[stream].sendall(data)
                else:
                    _write(getattr(self._ends, stream), data)
        except RayError as error:
            self._lose(error)
        except OSError:  # the server reads no more: it knows the job's end
            pass
        self._over[stream].set()
        # The server reads the channel's end last: all that the worker has sent is there before.
        if stream == "channel":
            for name in ("output", "stacks"):
                self._over[name].wait(DRAIN_SECONDS)
        elif stream == "protocol":
            self._over["channel"].wait(DRAIN_SECONDS)
        if stream in self._sockets:
            with contextlib.suppress(OSError):  # the server has closed it
                self._sockets[stream].shutdown(socket.SHUT_WR)

    def _lose(self, error: Exception) -> None:
        """Report, once, that the node or the cluster is lost."""
        with self._reporting:
            if self._is_lost:
                return
            self._is_lost = True
            report = {"exit_code": None, "signal": None, "lost": _reason(error)}
            with contextlib.suppress(OSError):  # the server has ended
                self._sockets["channel"].sendall(json.dumps(report).encode() + b"\n")
                self._sockets["channel"].shutdown(socket.SHUT_WR)


def _thread(work: Callable[[str], None], stream: str) -> threading.Thread:
    thread = threading.Thread(target=work, args=(stream,), name=f"job {stream}", daemon=True)
    thread.start()
    return thread


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _why_it_waits(resources: dict[str, float]) -> str:
    wanted = {"CPU": resources["num_cpus"], "GPU": resources.get("num_gpus", 0), "memory": resources.get("memory", 0)}
    wanted = {name: amount for name, amount in wanted.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = sum(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes)
    shown = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items())
    return f"The job waits for {shown} on the Ray cluster; {fit} of its {len(nodes)} nodes are large enough.\n"


def _reason(error: Exception) -> str:
    """The first line of what Ray says, without colours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if "Traceback" in str(error) else lines[0] if lines else type(error).__name__)[:LONGEST_REASON]


if __name__ == "__main__":
    main(sys.argv[1:])
