"""Console logs: one line for each event, coloured on a terminal, with the id of its request.

A log line never contains the token: a request's line has its path without the query. It never contains a provider's
key either: code that reads a secret registers it with `hide`.
"""

import logging
import os
from contextvars import ContextVar
from typing import ClassVar

import colorama

from server.observability.log_writer import LogHandler

STANDARD_ERROR = 2
SHORTEST_SECRET = 8
"""Shorter texts are words and not secrets, such as EMPTY for a server that needs no key."""
SECRET_SHOWN = "(secret)"

_secrets: set[str] = set()

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that the current thread works for; `-` without one."""


def hide(secret: str) -> None:
    """Leave `secret` out of log lines and of errors of providers from now on."""
    if len(secret) >= SHORTEST_SECRET:
        _secrets.add(secret)


def redacted(text: str) -> str:
    """`text` without registered secrets."""
    # The longest first: one may be a prefix of another.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, SECRET_SHOWN)
    return text


class ConsoleFormatter(logging.Formatter):
    """`12:00:00.123 INFO  1f2e3d4c server.host: message`."""

    COLOURS: ClassVar[dict[int, str]] = {
        logging.DEBUG: colorama.Style.DIM,
        logging.INFO: colorama.Fore.GREEN,
        logging.WARNING: colorama.Fore.YELLOW,
        logging.ERROR: colorama.Fore.RED,
        logging.CRITICAL: colorama.Fore.RED + colorama.Style.BRIGHT,
    }

    def __init__(self, coloured: bool) -> None:
        level = "%(colour)s%(levelname)-7s%(plain)s" if coloured else "%(levelname)-7s"
        super().__init__(
            f"%(asctime)s.%(msecs)03d {level} %(request_id)-8s %(name)s: %(message)s", datefmt="%H:%M:%S"
        )

    def format(self, record: logging.LogRecord) -> str:
        record.colour = self.COLOURS.get(record.levelno, "")
        record.plain = colorama.Style.RESET_ALL
        record.request_id = request_id.get()
        return redacted(super().format(record))


def configure(level: str) -> None:
    """Log to standard error from `level` on, Python's warnings included.

    In colour if that is a terminal and `NO_COLOR` isn't set. Replaces an earlier configuration.
    """
    colorama.just_fix_windows_console()
    console: logging.Handler
    try:
        console = LogHandler(STANDARD_ERROR)
    except OSError:  # it is closed
        console = logging.NullHandler()
    console.setFormatter(ConsoleFormatter(coloured=_is_terminal() and "NO_COLOR" not in os.environ))
    logging.basicConfig(level=level, handlers=[console], force=True)
    logging.captureWarnings(True)
    # waitress warns whenever a request waits for a thread, torchao when it is imported without a GPU, and PyTorch
    # about torchao. None of this needs action.
    for name in ("waitress.queue", "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # alembic logs each step of a migration; the store logs the result.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for client in ("httpx", "httpx2"):
        # A line for each request to a model behind an API.
        logging.getLogger(client).setLevel(logging.WARNING)


def _is_terminal() -> bool:
    try:
        return os.isatty(STANDARD_ERROR)
    except OSError:
        return False
