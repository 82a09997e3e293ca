"""TLS in front of waitress, which has none: an event loop accepts and decrypts connections, and hands each one to
waitress as one end of a pair of sockets.

The encryption and its flow control are asyncio's. A client that leaves closes its pair, so waitress sees that as it
does without TLS."""

import asyncio
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
GOODBYE_SECONDS = 30.0
"""Maximum time for what is left to send, and for the end of TLS, which many clients never answer."""
CHUNK_BYTES = 64 * 1024
DESCRIPTORS = 3
"""Of this process, for each connection."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Admit = Callable[[socket.socket, Any], None]
"""Gets a plain connection and the address of its client."""


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What servers of this certificate speak: TLS 1.2 and 1.3. Raises `OSError` with a message for the person who
    starts the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])

    def refuse() -> str:
        # Otherwise OpenSSL would ask for it at the console.
        raise OSError("the key is encrypted; `openssl pkey -in KEY -out PLAIN_KEY` decrypts it")

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, ssl.SSLError):
            reason = f"they are no certificate in PEM and its key ({error.reason or error})"
        raise OSError(
            f"TLS can't be used with HEARTH_TLS_CERT={certificate} and HEARTH_TLS_KEY={key}: {reason}."
        ) from error
    return context


class TlsFront:
    """Accepts TLS connections at a bound socket, on a thread of its own."""

    def __init__(self, bound: socket.socket, context: ssl.SSLContext, most: int, admit: Admit) -> None:
        """`most`: the maximum number of connections, those that only shake hands not counted."""
        self._bound = bound
        self._context = context
        self._most = most
        self._admit = admit
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to accept."""
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="tls", daemon=True).start()
        ready.wait()

    def stop(self, seconds: float) -> bool:
        """Wait until all connections, whose other ends are closed, have sent what is left. Returns whether they
        have."""
        loop = self._loop
        if loop is None or not self._tasks:
            return True

        async def wait() -> bool:
            _, left = await asyncio.wait(list(self._tasks), timeout=seconds)
            return not left

        return asyncio.run_coroutine_threadsafe(wait(), loop).result(seconds + 1.0) if self._tasks else True

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_report)
        server = await asyncio.start_server(
            self._relay,
            sock=self._bound,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=GOODBYE_SECONDS,
            limit=CHUNK_BYTES,
        )
        ready.set()
        await server.serve_forever()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")
        if address is None or len(self._tasks) >= self._most:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None, "it is called in one"
        self._tasks.add(task)
        try:
            ours, theirs = socket.socketpair()
            try:
                inner_reader, inner_writer = await asyncio.open_connection(sock=ours, limit=CHUNK_BYTES)
            except BaseException:
                ours.close()
                theirs.close()
                raise
            self._admit(theirs, address)
            try:
                # The first end of either side is the connection's: in HTTP no client closes its half and reads on.
                both = [
                    asyncio.create_task(_copy(reader, inner_writer)),
                    asyncio.create_task(_copy(inner_reader, writer)),
                ]
                _, left = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for one in left:
                    one.cancel()
                await asyncio.wait(both)
            finally:
                inner_writer.close()
                writer.close()
                await writer.wait_closed()
        except OSError as error:
            level = logging.ERROR if error.errno in _EXHAUSTED else logging.DEBUG
            log.log(level, "a TLS connection has ended: %s", error)
            writer.transport.abort()
        finally:
            self._tasks.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError) as error:
        log.debug("a TLS connection has ended: %s", error)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong with one connection, such as a client that speaks no TLS, is the client's trouble. That no more
    can be accepted is ours."""
    error = context.get("exception")
    level = logging.ERROR if isinstance(error, OSError) and error.errno in _EXHAUSTED else logging.DEBUG
    log.log(level, "TLS: %s", error or context["message"])
