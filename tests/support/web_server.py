"""A web server on loopback whose replies a test writes, and which counts what reaches it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HEAD_BYTES = 64 * 1024


@dataclass
class WebServer:
    """`pages`: by path, the bytes of a whole response, or a function that gets the connection and the request.
    `requests`: what has come, one text for each connection."""

    port: int
    pages: "dict[str, bytes | Callable[[socket.socket, str], None]]" = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """The address of a page."""
        return f"http://{host}:{self.port}{path}"


def response(
    content: bytes | str = b"", kind: str = "text/html; charset=utf-8", status: int = 200, **headers: str
) -> bytes:
    """A response as it goes over the line. `headers`: with _ in place of -."""
    body = content.encode() if isinstance(content, str) else content
    lines = [f"HTTP/1.1 {status} Reply", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextmanager
def web_server() -> Iterator[WebServer]:
    """A server on all addresses of the machine: whatever form of a loopback address is asked, it is reached."""
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("0.0.0.0", 0))
    server = WebServer(listener.getsockname()[1])

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the test is over
                return
            threading.Thread(target=_serve, args=(server, connection), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        # `close` alone would leave the thread in `accept`.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(server: WebServer, connection: socket.socket) -> None:
    with connection:
        connection.settimeout(60)
        data = b""
        try:
            while b"\r\n\r\n" not in data and len(data) < HEAD_BYTES:
                part = connection.recv(4096)
                if not part:
                    break
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    while len(body) < int(line.partition(b":")[2]) and (part := connection.recv(4096)):
                        body += part
            text = (head + b"\r\n\r\n" + body).decode("latin-1")
            server.requests.append(text)
            path = text.split(" ", 2)[1].partition("?")[0] if text.count(" ") > 1 else ""
            page = server.pages.get(path, response("nothing here", status=404))
            if callable(page):
                page(connection, text)
            else:
                connection.sendall(page)
        except OSError:
            pass  # the other side has closed it: what many tests are about
