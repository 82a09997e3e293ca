"""Limits for logins: guesses of passwords are counted, by the address that they come from and by the name."""

import ipaddress
import math
import time
from typing import Any

from flask import Flask, request
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from server.errors import HearthError, TooManyAttemptsError

PATHS = frozenset(f"{prefix}/auth/{act}" for prefix in ("", "/api") for act in ("login", "register"))
"""Not those that only take a secret of 256 bits, which nobody guesses: a lab's tabs refresh from one address."""
CHANGE = ("PUT", "/auth/password")
"""The old password can be guessed there, by who has found an open browser."""
PER_ADDRESS = RateLimitItemPerMinute(60)
"""Behind a proxy that is not in HEARTH_TRUSTED_PROXIES, all people have one address."""
PER_NAME = RateLimitItemPerMinute(10)
NAMES = ("username", "email")
"""Fields that say who logs in."""
LONGEST_NAME = 200


def register(app: Flask) -> None:
    """Count each attempt, successful or not, before anything looks at it."""
    limiter = MovingWindowRateLimiter(MemoryStorage())

    def hit(limit: RateLimitItem, kind: str, who: str, whose: str) -> None:
        if limiter.hit(limit, kind, who):
            return
        free = limiter.get_window_stats(limit, kind, who).reset_time
        seconds = max(math.ceil(free - time.time()), 1)
        raise TooManyAttemptsError(
            f"{limit.amount} attempts within a minute came from {whose}, the maximum. Try again in {seconds} s.",
            retry_after=seconds,
        )

    def before() -> None:
        path = request.path.rstrip("/")
        if (request.method, path) != CHANGE and (request.method != "POST" or path not in PATHS):
            return
        hit(PER_ADDRESS, "address", _network(request.remote_addr or ""), "your address")
        if name := _name():
            hit(PER_NAME, "name", name, "all addresses for this name")

    app.before_request(before)


def _network(address: str) -> str:
    """An address; of IPv6 the first half, since whoever has one of these has all of it."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return address
    # An address of IPv4 as a server sees it that listens to both. All have the same first half.
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((int(known), 64), strict=False))


def _name() -> str:
    """Who wants to log in; empty if the body does not say."""
    try:
        body: dict[str, Any] = request.get_json()
    except HearthError:
        return ""  # the view reports what is wrong with the body
    given = next((body[field] for field in NAMES if isinstance(body.get(field), str)), "")
    return given.strip().casefold()[:LONGEST_NAME]
