"""Speaking with a server's WebSocket port, as a client does."""

import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.server_process import Server

SECONDS = 60.0
"""A deadline and no measure."""

Message = dict[str, Any]


def address(server: Server) -> str:
    """The URL that the server has printed."""
    found = re.search(r"^WebSocket clients connect to (\S+)$", server.output, re.M)
    assert found is not None, server.output
    return found[1]


class Client:
    """An open connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        self.connection.send(json.dumps({"type": kind, **fields}))

    def hear(self) -> Message:
        """The next message."""
        message: Message = json.loads(self.connection.recv(SECONDS))
        return message

    def hear_until(self, met: Callable[[Message], bool]) -> list[Message]:
        """The next messages, up to the first one for which `met` is true."""
        heard: list[Message] = []
        while not heard or not met(heard[-1]):
            heard.append(self.hear())
        return heard

    def ask(self, key: str, question: str, **more: Any) -> str:
        """Ask a question. Returns the id of its run."""
        self.say("ask", key=key, body={"question": question, **more})
        asked = self.hear_until(lambda message: message.get("key") == key)[-1]
        assert asked["type"] == "asked", asked
        run_id: str = asked["run_id"]
        return run_id

    def events_of(self, key: str) -> list[Message]:
        """The events of a topic until it ends."""
        heard = self.hear_until(lambda message: message["type"] == "ended" and message["key"] == key)
        return [message for message in heard if message["type"] == "event" and message["key"] == key]


@contextmanager
def open_client(server: Server, token: str | None = None, context: ssl.SSLContext | None = None) -> Iterator[Client]:
    """A connection that has said who it is; by default with the server's token."""
    with connect(address(server), ssl=context, open_timeout=SECONDS, max_size=None) as connection:
        client = Client(connection)
        client.say("auth", token=server.token if token is None else token)
        ready = client.hear()
        assert ready["type"] == "ready", ready
        yield client
