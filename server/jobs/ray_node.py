"""What runs on a node of a Ray cluster: an actor that starts one job's worker as the server starts its own, and
carries the bytes between them.

It imports the standard library and Ray alone, since it travels to nodes where Hearth is not installed: Hearth's own
files come with the job. People's code runs in the worker, never in Ray's processes.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 18
UNUSED_SECONDS = 31 * 86_400.0
"""Age after which what is cached on a node is removed: no job may take longer."""
KEEPER_SECONDS = 10.0
"""Maximum time for the job's processes to end, once nothing holds them."""
STREAMS = ("protocol", "channel", "output", "stacks")
"""What the server and a worker have between them; see `server.workers.inside.isolation.Ends`."""


class Node:
    """The worker of one job. All methods may run at the same time, after `start`."""

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}
        self._sockets: dict[str, socket.socket] = {}

    def start(
        self, cache: str, archives: dict[str, Any], settings: dict[str, Any], environment: dict[str, str | None]
    ) -> None:
        """Start a worker. `cache`: the folder for what this node has of earlier jobs. `archives`: references to zip
        files, by the folder in the cache that they belong in: the first is Hearth's. `settings`: those of the
        worker, without its working folder. `environment`: what differs from the node's; None: not there. Raises
        `OSError`."""
        folder = _own_folder(Path(cache))
        _remove_unused(folder)
        for name, archive in archives.items():
            _unpack(folder / name, archive)
        self._scratch = tempfile.mkdtemp(prefix="job-", dir=folder)
        keeper, keepers_channel = socket.socketpair()
        control, templates_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._keeper, self._control = keeper, control
        theirs = self._make_ends()
        try:
            given = {
                "settings": {**settings, "folder": self._scratch},
                "control": templates_control.fileno(),
                "channel": keepers_channel.fileno(),
            }
            # Not `--once`: with a keeper in between, the guard outlives a kill of this actor's children.
            self._program = subprocess.Popen(
                [sys.executable, "-m", "server.workers.inside.template", json.dumps(given)],
                cwd=folder / next(iter(archives)),
                env={name: value for name, value in {**os.environ, **environment}.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[templates_control.fileno(), keepers_channel.fileno()],
                start_new_session=True,
            )
            socket.send_fds(control, [json.dumps({"do": "worker"}).encode()], theirs)
        finally:
            templates_control.close()
            keepers_channel.close()
            for end in theirs:
                os.close(end)

    def _make_ends(self) -> list[int]:
        """Make the streams. Returns the worker's ends, in the order of `STREAMS`."""
        theirs = []
        for name in STREAMS:
            if name in ("protocol", "channel"):
                self._sockets[name], other = socket.socketpair()
                self._ends[name] = self._sockets[name].fileno()
                theirs.append(other.detach())
            else:
                self._ends[name], writing = os.pipe()
                theirs.append(writing)
        return theirs

    def receive(self, stream: str) -> bytes:
        """What the worker has sent, or printed, as soon as there is something; empty at the end."""
        try:
            return os.read(self._ends[stream], CHUNK_BYTES)
        except ConnectionResetError:
            return b""

    def send(self, stream: str, data: bytes) -> None:
        """Send the worker `data`; empty: that was all."""
        with suppress(OSError):  # it has ended, as its reader finds out
            if data:
                self._sockets[stream].sendall(data)
            else:
                self._sockets[stream].shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End what is left, and remove the job's working folder."""
        self._keeper.shutdown(socket.SHUT_RDWR)
        self._control.close()
        with suppress(subprocess.TimeoutExpired):  # Ray ends it with this actor
            self._program.wait(KEEPER_SECONDS)
        shutil.rmtree(self._scratch, ignore_errors=True)


def _own_folder(folder: Path) -> Path:
    """A folder that nobody else may write to. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} on the node belongs to somebody else, or others may open it. Remove it.")
    return folder


def _unpack(folder: Path, archive: Any) -> None:
    """Have the files of `archive` in `folder`: completely, or an error. Fetches them only if they are not there."""
    if not folder.is_dir():
        import ray

        folder.parent.mkdir(mode=0o700, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder.parent))
        try:
            with zipfile.ZipFile(io.BytesIO(ray.get(archive))) as packed:
                packed.extractall(draft)
            with suppress(OSError):  # another job was faster
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} can't be made on the node")
    os.utime(folder)


def _remove_unused(cache: Path) -> None:
    oldest = time.time() - UNUSED_SECONDS
    for one in (*cache.glob("job-*"), *cache.glob("code/*"), *cache.glob("hearth/*")):
        with suppress(FileNotFoundError):  # another job removes it
            if one.stat().st_mtime < oldest:
                shutil.rmtree(one, ignore_errors=True)
