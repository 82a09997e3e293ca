"""`python app.py`: make the app, serve it."""

import logging
import os
import signal
import socket
import ssl
import sys
import threading
from functools import partial
from types import FrameType
from typing import NoReturn
from urllib.parse import quote

from constants import Settings, SettingsError, read_settings
from server import VERSION, create_app
from server.errors import StoreError
from server.host import Host
from server.http.auth import may_send_body
from server.http.listener import Listener, bind
from server.http.runtime_file import runtime_file
from server.http.tls import tls_context
from server.jobs.ray_cluster import RayMissingError
from server.observability import logs, tracing
from server.observability.tracing import TelemetryError

log = logging.getLogger("app")

FAILED = 1
BAD_SETTINGS = 2
INTERRUPTED = 130
SIGNAL_SECONDS = 1.0
"""Maximum delay until a signal is noticed."""


def main() -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    try:
        settings = read_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return BAD_SETTINGS
    logs.configure(settings.LOG_LEVEL)
    context = None
    if settings.TLS_CERT is not None and settings.TLS_KEY is not None:
        try:
            context = tls_context(settings.TLS_CERT, settings.TLS_KEY)
        except OSError as error:
            print(error, file=sys.stderr)
            return BAD_SETTINGS
    sockets = []
    for name, port in (("HEARTH_PORT", settings.PORT), ("HEARTH_WS_PORT", settings.WS_PORT)):
        if port is None:
            continue
        try:
            sockets.append(bind(settings.HOST, port))
        except OSError as error:
            print(
                f"Can't listen on {settings.HOST} port {port}: {error}. "
                f"HEARTH_HOST and {name} choose another address.",
                file=sys.stderr,
            )
            return FAILED
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        return serve(settings, sockets[0], sockets[1] if len(sockets) > 1 else None, context)
    except KeyboardInterrupt:
        return INTERRUPTED


def serve(
    settings: Settings,
    bound: socket.socket,
    bound_for_websocket: socket.socket | None = None,
    context: ssl.SSLContext | None = None,
) -> int:
    """Serve on the socket `bound`, and WebSocket on the other one if there is one, over TLS of `context` if there is
    one, until a signal, then shut down. Returns the exit code."""
    try:
        if settings.OTLP_ENDPOINT is not None:
            tracing.start(settings.OTLP_ENDPOINT, settings.OTLP_CONTENT == "on", VERSION)
        host = Host(settings)
    except StoreError as error:
        print(error.message, file=sys.stderr)
        return FAILED
    except (RayMissingError, TelemetryError) as error:
        print(error, file=sys.stderr)
        return FAILED
    host.jobs.settle()  # before anybody can ask
    app = create_app(host)
    listener = Listener(app, bound, settings, host.session_folders.incoming, partial(may_send_body, host), context)
    urls = reachable_at(bound, "http" if context is None else "https")
    websocket = None
    if bound_for_websocket is not None:
        # Imported here, because few servers have it.
        from server.http.websocket import PATH, WebSocketServer

        websocket = WebSocketServer(app, host, bound_for_websocket, bound.getsockname()[1], context)
    with runtime_file(urls[0], settings.TOKEN):
        try:
            ended = listener.start()
            for url in urls:
                link = f"{url}/?token={quote(settings.TOKEN)}" if settings.TOKEN else url
                print(f"Hearth is at {link}", flush=True)
            if bound_for_websocket is not None and websocket is not None:
                websocket.start()
                for url in reachable_at(bound_for_websocket, "ws" if context is None else "wss"):
                    print(f"WebSocket clients connect to {url}{PATH}", flush=True)
            host.open()
            if settings.RELOAD == "watch":
                threading.Thread(
                    target=host.code_loader.watch, args=(host.closing,), name="watch", daemon=True
                ).start()
            # With a timeout: a signal that the kernel delivers to another thread does not wake this one.
            while not ended.wait(SIGNAL_SECONDS):
                pass
            return FAILED
        except KeyboardInterrupt:
            log.info("shutting down; Ctrl-C ends at once")
            host.close()
            if websocket is not None:
                websocket.stop()
            listener.stop()
            tracing.stop()
            return 0


def reachable_at(bound: socket.socket, scheme: str = "http") -> list[str]:
    """The URLs of a socket, the one for this machine first. A certificate is for the machine's name."""
    address, port = bound.getsockname()[:2]
    if address in ("0.0.0.0", "::"):
        names = ["127.0.0.1" if address == "0.0.0.0" else "[::1]", socket.gethostname()]
        if scheme in ("https", "wss"):
            names.reverse()
    else:
        names = [f"[{address}]" if ":" in address else address]
    return [f"{scheme}://{name}:{port}" for name in names]


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    # The shutdown takes a while; only Ctrl-C may interrupt it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Everything is saved. A thread that still runs must not keep the process alive.
    os._exit(code)
