"""Messages between server and interpreter: JSON after its length, in 4 bytes."""

import json
import socket
import struct
from typing import Any

MOST_BYTES = 16 * 2**20
"""Of one message."""
_LENGTH = struct.Struct(">I")


class Channel:
    """The interpreter's end. For one thread."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._message_id: object = None
        """Of the last message that was received."""
        self.close = connected.close

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; after the first one received, it is the reply to the last one. Raises ValueError if it is
        too long, and OSError if the server has ended."""
        data = json.dumps({**message, "in_reply_to": self._message_id}, allow_nan=False).encode()
        if len(data) > MOST_BYTES:
            raise ValueError(f"A message of {len(data)} bytes is too long.")
        self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> dict[str, Any] | None:
        """The next message; None: the server has closed the channel."""
        head = self._read(_LENGTH.size)
        if head is None:
            return None
        data = self._read(_LENGTH.unpack(head)[0])
        if data is None:
            return None
        message: dict[str, Any] = json.loads(data)
        self._message_id = message.pop("message_id")
        return message

    def _read(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(min(size - len(data), 1 << 20))
            if not part:
                return None
            data += part
        return bytes(data)
