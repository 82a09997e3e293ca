"""The names that the server answers to, against DNS rebinding: a page under a name of its own that leads here would
be the server's own page to the browser. https://www.rfc-editor.org/rfc/rfc9110#section-15.5.20"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from flask import Flask, request

from server.errors import WrongHostError
from server.http.credential import has_bearer

if TYPE_CHECKING:
    from server.host import Host

OPEN_PATH = "/health"
"""Clusters ask for it under names that they have given the server."""


def register(app: Flask, host: "Host") -> None:
    """Refuse requests under another name, unless they have a token: no page knows it, and a wrong one is refused. A
    server that asks for no credential has a stricter rule; see `auth`."""
    names = HostNames([*host.settings.HOSTS, host.settings.HOST])

    def before() -> None:
        if host.credentials.of_this_machine() is not None:
            return
        if request.path == OPEN_PATH or "Host" not in request.headers:
            return
        if has_bearer(request) or "token" in request.args:
            return
        if request.host not in names:
            raise WrongHostError(
                f"The server does not answer to the name {request.host[:100]!r}. If it is the server's name, add it "
                "to HEARTH_HOSTS. Requests with `Authorization: Bearer <token>` may use any name."
            )

    app.before_request(before)


class HostNames:
    """Names of this machine: those that are given, its own, `localhost` and all addresses. An address can't be given
    to another machine as a name can."""

    def __init__(self, given: Iterable[str]) -> None:
        self._given = {_plain(name) for name in given}

    def __contains__(self, host: str) -> bool:
        """Whether `host`, as in a header `Host`, is one of them; its port does not count."""
        name = _plain(re.sub(r":\d*$", "", host))
        if name == "localhost" or name.endswith(".localhost") or name in self._given:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return name in self._own
        return True

    @cached_property
    def _own(self) -> set[str]:
        # Late and once, because a broken name server may answer after seconds.
        name, full = _plain(socket.gethostname()), _plain(socket.getfqdn())
        short = name.partition(".")[0]
        return {name, full, short, f"{short}.local"} - {""}


def _plain(name: str) -> str:
    return name.strip().lower().removesuffix(".")
