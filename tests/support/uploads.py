"""Uploads as clients send them, and as no client should; and the folder that they end in."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from server.files.folders import SessionFolders
from tests.support.server_process import Server

BOUNDARY = "xyz"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
WATCH_SECONDS = 0.005


def upload(server: Server, session: str, *files: tuple[str, bytes], **options: object) -> requests.Response:
    """Upload files of these names and contents."""
    parts = [("files", file) for file in files]
    return server.session.post(f"/sessions/{session}/files", files=parts, **options)  # type: ignore[arg-type]


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    """A part of a form with the boundary `BOUNDARY`."""
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def connection_to(server: Server) -> socket.socket:
    """A connection for bytes that no HTTP client would send."""
    found = re.fullmatch(r"http://(.+):(\d+)", server.url)
    assert found is not None
    return socket.create_connection((found[1], int(found[2])), timeout=60)


def data_folder(server: Server) -> Path:
    """The server's data folder."""
    return server.output_file.parent / "data"


def folder_of(server: Server, session: str, workspace: str = "main") -> Path:
    """The folder that the session's code works in."""
    return SessionFolders(data_folder(server) / "sessions").of(workspace, session).files


def unfinished(server: Server) -> list[str]:
    """What is left of uploads and of deleted sessions."""
    sessions = data_folder(server) / "sessions"
    return [file.name for folder in ("incoming", "removed") for file in (sessions / folder).iterdir()]


def open_files_below(server: Server, folder: Path) -> list[str]:
    """Files that the server has open in `folder`, those without a name too."""
    found = []
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # closed since it was listed
        if target.startswith(f"{folder}/"):
            found.append(target)
    return found


@contextmanager
def peak_memory(server: Server) -> Iterator[list[int]]:
    """The most that the server's resident memory grew within the block, in bytes: the only item of the list."""
    process, growth, ended = psutil.Process(server.process.pid), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(WATCH_SECONDS):
            growth[0] = max(growth[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield growth
    finally:
        ended.set()
        thread.join()
