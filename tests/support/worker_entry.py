"""A worker that does what a test says: it executes the code that it receives, and sends back `answer`."""

import json
import socket
from typing import Any

from server.workers.template import Process

ENTRY = "tests.support.worker_entry:main"


def main(sock: socket.socket) -> None:
    names: dict[str, Any] = {"sock": sock}
    with sock.makefile("rwb") as stream:
        for line in stream:
            names["answer"] = None
            try:
                exec(json.loads(line), names)
            except SystemExit:
                raise
            except BaseException as error:
                names["answer"] = f"{type(error).__name__}: {error}"
            stream.write(json.dumps(names["answer"]).encode() + b"\n")
            stream.flush()


def send(process: Process, code: str) -> None:
    """Have the code executed; don't wait for it."""
    process.socket.sendall(json.dumps(code).encode() + b"\n")


def execute(process: Process, code: str, seconds: float = 30) -> Any:
    """Execute the code in the worker. What `answer` is then, or None if the worker has ended."""
    process.socket.settimeout(seconds)
    send(process, code)
    line = b""
    while not line.endswith(b"\n"):
        try:
            data = process.socket.recv(1 << 16)
        except ConnectionResetError:
            return None
        if not data:
            return None
        line += data
    return json.loads(line)
