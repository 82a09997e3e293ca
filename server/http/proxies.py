"""What a proxy says of a request: where it came from, and whether the client speaks HTTPS."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

from flask import Flask
from waitress.proxy_headers import proxy_headers_middleware

BELIEVED = frozenset({"x-forwarded-for", "x-forwarded-proto"})
"""Not X-Forwarded-Host: many proxies pass it as a client has sent it. They pass the header Host as it is."""
FORWARDED_FOR = "HTTP_X_FORWARDED_FOR"
_MAPPED = re.compile(r"::ffff:(?=\d+\.)", re.IGNORECASE)
"""What comes before an address of IPv4 that is written as one of IPv6."""


class Proxied:
    """A WSGI application that believes the headers of the proxies in `trusted`, of one proxy for each request. It
    never sees such headers of others."""

    def __init__(self, app: Flask, trusted: Sequence[str]) -> None:
        self._trusted = [ipaddress.ip_network(one) for one in trusted]
        self._believing = proxy_headers_middleware(
            app, trusted_proxy="*", trusted_proxy_headers=BELIEVED, clear_untrusted=True
        )
        self._doubting = proxy_headers_middleware(app, clear_untrusted=True)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """See PEP 3333."""
        believes = self._trusted and self._is_trusted(environ["REMOTE_ADDR"])
        if believes and FORWARDED_FOR in environ:
            # waitress takes the rest of such an address for a port.
            environ[FORWARDED_FOR] = _MAPPED.sub("", environ[FORWARDED_FOR])
        chosen = self._believing if believes else self._doubting
        answer: Iterable[bytes] = chosen(environ, start_response)
        return answer

    def _is_trusted(self, address: str) -> bool:
        try:
            known = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if known.version == 6 and known.ipv4_mapped is not None:
            known = known.ipv4_mapped
        return any(known in network for network in self._trusted)
