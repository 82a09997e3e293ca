"""Connections that are checked when they are made, and that end at a deadline.

`requests-hardened` resolves a host once, refuses addresses that are not public, and connects to the address and not
to the name, so that a second answer of the resolver changes nothing. The connections below check the address again,
by the stricter rules of `addresses.py`; they are also what allows a lab's internal servers.
"""

import ipaddress
import os
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.poolmanager import PoolManager

from server.internet.addresses import AllowList, check_address

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
"""Maximum time without a byte."""
MOST_ADDRESSES = 4
"""Of a host, that are tried one after the other."""


class Guard:
    """One fetch: its allow-list, its deadline, and its connections. Safe for any number of threads."""

    def __init__(self, allowed: AllowList, seconds: float) -> None:
        self.allowed = allowed
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._ended = False
        self._sockets: list[socket.socket] = []

    @property
    def left(self) -> float:
        """Seconds until the deadline. Raises `TimeoutError` after it."""
        left = self._deadline - time.monotonic()
        if left <= 0 or self._ended:
            raise TimeoutError("the time of the fetch is up")
        return left

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to `host`, all of whose addresses may be loaded from. Raises `FetchRefusedError`, and
        `OSError`."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A name with public and private addresses is as good as one with private ones.
        for *_, address in found:
            check_address(ipaddress.ip_address(str(address[0])), host, port, self.allowed)
        failure: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in found[:MOST_ADDRESSES]:
            connected = socket.socket(family, kind, protocol)
            try:
                connected.settimeout(min(CONNECT_SECONDS, self.left))
                connected.connect(address)
                self._watch(connected)
                return connected
            except OSError as error:
                connected.close()
                failure = error
        raise failure

    def end(self) -> None:
        """End its connections, whatever waits for them, and let none begin."""
        with self._lock:
            self._ended = True
            for one in self._sockets:
                with suppress(OSError):  # it has ended already
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give back what `end` needs. After the last use of a connection."""
        with self._lock:
            self._ended = True
            for one in self._sockets:
                one.close()
            self._sockets.clear()

    def _watch(self, connected: socket.socket) -> None:
        # A second descriptor of the same connection: TLS takes the first one away from its socket.
        with self._lock:
            if self._ended:
                raise TimeoutError("the time of the fetch is up")
            self._sockets.append(socket.socket(fileno=os.dup(connected.fileno())))


class _Guarded:
    """Makes the socket of a connection of urllib3."""

    guard: Guard
    _dns_host: str
    port: int

    def _new_conn(self) -> socket.socket:
        try:
            return self.guard.connect(self._dns_host, self.port)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error  # type: ignore[arg-type]


class _Http(_Guarded, HTTPConnection):
    def __init__(self, *given: Any, guard: Guard, **named: Any) -> None:
        super().__init__(*given, **named)
        self.guard = guard


class _Https(_Guarded, HTTPSConnection):
    def __init__(self, *given: Any, guard: Guard, **named: Any) -> None:
        super().__init__(*given, **named)
        self.guard = guard


class _Adapter(IPFilterAdapter):
    """Checks and pins the address as `requests-hardened` does, unless the lab's allow-list may decide otherwise."""

    def __init__(self, guard: Guard, is_https: bool) -> None:
        self._guard = guard
        super().__init__(is_https_proto=is_https)

    def init_poolmanager(self, *given: Any, **named: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*given, **named)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": self._http_pool, "https": self._https_pool}  # type: ignore[dict-item]

    def _http_pool(self, *given: Any, **named: Any) -> HTTPConnectionPool:
        pool = HTTPConnectionPool(*given, **named)
        pool.ConnectionCls = partial(_Http, guard=self._guard)  # type: ignore[assignment]
        return pool

    def _https_pool(self, *given: Any, **named: Any) -> HTTPSConnectionPool:
        pool = HTTPSConnectionPool(*given, **named)
        pool.ConnectionCls = partial(_Https, guard=self._guard)  # type: ignore[assignment]
        return pool

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """See `HTTPAdapter`."""
        parts = urlsplit(request.url)
        host, port = parts.hostname or "", parts.port or (443 if self._is_https_proto else 80)
        allowed = self._guard.allowed
        if allowed.names(host, port) or allowed.has_port_of_network(port):
            return HTTPAdapter.build_connection_pool_key_attributes(self, request, verify, cert)
        return super().build_connection_pool_key_attributes(request, verify, cert)


def session(guard: Guard, user_agent: str) -> requests.Session:
    """A session for one request: no cookies, no proxies, no passwords of the environment, no redirects."""
    made: requests.Session = HTTPSession(
        Config(
            ip_filter_enable=False,  # by the adapters below
            ip_filter_allow_loopback_ips=False,
            never_redirect=True,
            default_timeout=(CONNECT_SECONDS, READ_SECONDS),
            user_agent_override=user_agent,
        )
    )
    made.trust_env = False
    made.mount("http://", _Adapter(guard, is_https=False))
    made.mount("https://", _Adapter(guard, is_https=True))
    return made
