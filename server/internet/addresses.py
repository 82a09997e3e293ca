"""Which URLs and which addresses may be loaded."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from server.errors import FetchRefusedError

LONGEST_URL = 2048
"""Characters."""
PORTS = {"http": 80, "https": 443}
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029]")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What `is_global` of some Python versions takes for public, and what leads to another address inside of it.
_SPECIAL: tuple[Network, ...] = tuple(
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "168.63.129.16/32",  # a cloud's own services
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "::/8",  # also addresses of IPv4 in old forms
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",  # Teredo, ORCHID, benchmarks
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/9",  # link-local and site-local
        "ff00::/8",
    )
)


@dataclass(frozen=True)
class Target:
    """A URL that may be loaded, as far as it says itself: its address is checked when it is connected to."""

    scheme: str
    host: str
    """In lower case, in ASCII, without brackets and without a dot at the end."""
    port: int
    url: str
    """The same, without a fragment."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port


@dataclass(frozen=True)
class Allowed:
    """An entry of a lab's allow-list: a host's name or a network, and a port. None: 80 and 443."""

    host: str | None
    network: Network | None
    port: int | None

    def has_port(self, port: int) -> bool:
        """Whether it allows the port."""
        return port in PORTS.values() if self.port is None else port == self.port


class AllowList:
    """The internal servers that a lab lets Hearth load from. Only these may have a private address, or another port
    than 80 and 443."""

    def __init__(self, entries: Sequence[str] = ()) -> None:
        """`entries`: `host`, `host:port`, an address or a network such as `10.1.0.0/16`, `10.1.0.0/16:8080`,
        `[fd00::/8]:8080`. Raises `ValueError`, which names the entry."""
        self.entries = [_entry(one) for one in entries]

    def names(self, host: str, port: int) -> bool:
        """Whether it has this host's name, or the network of an address that is written as the host."""
        address = _literal(host)
        if address is not None:
            return self.has(address, port)
        return any(one.host == host and one.has_port(port) for one in self.entries)

    def has(self, address: Address, port: int) -> bool:
        """Whether the address is in one of its networks."""
        return any(one.network is not None and address in one.network and one.has_port(port) for one in self.entries)

    def has_port_of_network(self, port: int) -> bool:
        """Whether some network allows the port: then only the address can decide."""
        return any(one.network is not None and one.has_port(port) for one in self.entries)


def check_url(url: str, allowed: AllowList) -> Target:
    """The URL in its parts. Raises `FetchRefusedError`, which says what is wrong and what to do."""
    if len(url) > LONGEST_URL:
        raise FetchRefusedError(f"The URL has {len(url):,} characters; {LONGEST_URL:,} are the most.")
    shown = _shown(url)
    if not url or _FORBIDDEN.search(url):
        raise FetchRefusedError(f"{shown} is no URL: it has spaces, control characters or backslashes, or is empty.")
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.lower(), parts.port
    except ValueError as error:
        raise FetchRefusedError(f"{shown} is no URL: {error}.") from None
    if scheme not in PORTS:
        raise FetchRefusedError(f"{shown} can't be loaded: only http:// and https:// are.")
    if "@" in parts.netloc:
        raise FetchRefusedError(f"{scheme}://…@… can't be loaded: a URL may have no user name and no password.")
    host = _host(parts.netloc, parts.hostname or "", shown)
    port = PORTS[scheme] if port is None else port
    if port not in PORTS.values() and not allowed.names(host, port) and not allowed.has_port_of_network(port):
        raise FetchRefusedError(
            f"{shown} can't be loaded: only the ports 80 and 443 are. The server's owner may allow others by "
            "HEARTH_FETCH_ALLOW."
        )
    written = f"[{host}]" if ":" in host else host
    place = written if port == PORTS[scheme] else f"{written}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return Target(scheme, host, port, f"{scheme}://{place}{parts.path or '/'}{query}")


def check_address(address: Address, target_host: str, port: int, allowed: AllowList) -> None:
    """Raises `FetchRefusedError` if nothing may be loaded from the address: it is not public, and no entry of the
    allow-list has it or the host's name. Without an entry the port must be 80 or 443."""
    if allowed.names(target_host, port) or allowed.has(address, port):
        return
    if not is_public(address) or port not in PORTS.values():
        raise FetchRefusedError(
            f"{target_host} can't be loaded: its address {address} is not public, or the port {port} is not allowed. "
            "The server's owner may allow internal servers by HEARTH_FETCH_ALLOW."
        )


def is_public(address: Address) -> bool:
    """Whether the address is one of the public Internet, and stands for no other one."""
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _host(netloc: str, host: str, shown: str) -> str:
    """The host as it is looked up. Raises `FetchRefusedError` for one that different programs read differently."""
    if netloc.startswith("["):
        address = _literal(host)
        if not isinstance(address, ipaddress.IPv6Address) or address.scope_id is not None:
            raise FetchRefusedError(f"{shown} is no URL: its address is not one of IPv6.")
        return str(address)
    if not host.isascii():
        host = _in_ascii(host, shown)
    host = host.lower().removesuffix(".")
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise FetchRefusedError(f"{shown} is no URL: its host is no name and no address.")
    if _NUMBER.fullmatch(host.rpartition(".")[2]) and _literal(host) is None:
        # Resolvers read 2130706433, 0x7f.1 and 017700000001 as 127.0.0.1.
        raise FetchRefusedError(f"{shown} can't be loaded: write the address as four decimal numbers.")
    return host


def _in_ascii(host: str, shown: str) -> str:
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise FetchRefusedError(f"{shown} is no URL: its host is no name: {str(error)[:200]}.") from None


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _entry(text: str) -> Allowed:
    found = re.fullmatch(r"\[(?P<six>[^\[\]]+)\](?::(?P<port6>\d+))?|(?P<host>[^:\[\]]+)(?::(?P<port>\d+))?", text)
    place = text if found is None else found["six"] or found["host"]
    number = None if found is None else found["port6"] or found["port"]
    port = None if number is None else int(number)
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    try:
        return Allowed(None, ipaddress.ip_network(place), port)
    except ValueError:
        host = place.lower().removesuffix(".")
    if found is None or not _HOST.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise ValueError(f"{text!r} is no host, no host:port and no network such as 10.1.0.0/16")
    return Allowed(host, None, port)


def _shown(url: str) -> str:
    """For messages, without what may be a password."""
    text = url if len(url) <= 200 else url[:199] + "…"
    return repr(re.sub(r"//[^/?#]*@", "//…@", text))
