"""The messages between a child and the process that asks it, over a socket.

First the child sends an empty line. Then it gets the grammar, up to the end of the stream, and answers with the
verdict as JSON. A child that exceeds a bound ends without a verdict.
"""

import json
import socket
from typing import NamedTuple


class Verdict(NamedTuple):
    """`reason`: why llguidance refuses the grammar; None if it does not. `seconds`: the CPU time that it took."""

    reason: str | None
    seconds: float


class NoChildError(Exception):
    """No child has begun."""


def ask(connection: socket.socket, grammar: str) -> Verdict | None:
    """The child's verdict; None if it ended without one. Raises `NoChildError`."""
    try:
        if connection.recv(1) != b"\n":
            raise NoChildError
        connection.sendall(grammar.encode("utf-8", "surrogatepass"))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            answer = file.read()
    except OSError:
        return None
    return Verdict(**json.loads(answer)) if answer else None
