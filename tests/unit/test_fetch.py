"""Loading from the web: what may be loaded, what is sent, and what a hostile server can do."""

import gzip
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.errors import FetchFailedError, FetchRefusedError, HearthError, RunCancelledError
from server.internet import addresses, fetch
from server.internet.addresses import AllowList
from server.internet.fetch import MOST_REDIRECTS, Fetcher
from tests.support.ssrf_urls import NAMES, urls
from tests.support.web_server import WebServer, response, web_server

# A socket that a deadline has shut down, under urllib3, is closed when it is collected.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)

RESOLVE = socket.getaddrinfo


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(scope="module")
def canary() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def fetcher(web: WebServer) -> Fetcher:
    """May load from `web` by one of its names."""
    return Fetcher(AllowList([f"127.0.0.1:{web.port}"]), seconds=20, most_bytes=1_000_000)


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Knows the names of the tests and of this machine, and asks nobody."""

    def resolve(host: str, port: Any, *given: Any, **named: Any) -> Any:
        if host in NAMES:
            return [entry for address in NAMES[host] for entry in RESOLVE(address, port, *given, **named)]
        if host.lower().strip(".") not in ("localhost", "ip6-localhost") and not is_address(host):
            raise socket.gaierror(socket.EAI_NONAME, "not known in these tests")
        return RESOLVE(host, port, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return resolve


def is_address(host: str) -> bool:
    try:
        RESOLVE(host, 80, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def refusal(fetcher: Fetcher, url: str) -> HearthError:
    with pytest.raises((FetchRefusedError, FetchFailedError)) as caught:
        fetcher.fetch_page(url)
    return caught.value


# Addresses


@pytest.mark.parametrize("layer", ["both", "own"])
def test_no_form_of_a_private_address_reaches_the_canary(
    canary: WebServer, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once with all checks; once where an entry of the allow-list, for another network, takes the library's away."""
    canary.pages["/"] = response("<p>reached</p>")
    if layer == "both":
        monkeypatch.setattr(addresses, "PORTS", {**addresses.PORTS, "the canary's": canary.port})
        allowed = AllowList()
    else:
        allowed = AllowList([f"203.0.113.77:{canary.port}"])
    fetcher = Fetcher(allowed, 10, 100_000)
    cases = urls(canary.port)
    assert len(cases) >= 120
    for url in cases:
        error = refusal(fetcher, url)
        assert "secret" not in error.message, url
        if not url.startswith("http") or "127.0.0.1" in url:
            assert isinstance(error, FetchRefusedError), (url, error)
    assert canary.requests == []
    # The same canary, where it is allowed: so the cases above could have reached it.
    assert b"reached" in Fetcher(AllowList([f"127.0.0.0/8:{canary.port}"]), 10, 9999).fetch_page(canary.url()).content
    assert len(canary.requests) == 1
    canary.requests.clear()


@pytest.mark.parametrize("order", [("93.184.216.34", "127.0.0.1"), ("127.0.0.1", "93.184.216.34")])
@pytest.mark.parametrize("entries", [[], ["203.0.113.0/24:PORT"]])
def test_a_resolver_that_flips_between_calls_reaches_nothing(
    canary: WebServer, monkeypatch: pytest.MonkeyPatch, order: tuple[str, str], entries: list[str]
) -> None:
    monkeypatch.setattr(addresses, "PORTS", {**addresses.PORTS, "the canary's": canary.port})
    asked, connected = list[str](), list[Any]()

    def flip(host: str, port: Any, *given: Any, **named: Any) -> Any:
        if host != "rebind.test":
            return RESOLVE(host, port, *given, **named)
        asked.append(host)
        return RESOLVE(order[(len(asked) - 1) % 2], port, *given, **named)

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise OSError("no connection leaves these tests")

    monkeypatch.setattr(socket, "getaddrinfo", flip)
    monkeypatch.setattr(socket.socket, "connect", connect)
    allowed = AllowList([one.replace("PORT", str(canary.port)) for one in entries])
    for _ in range(4):
        refusal(Fetcher(allowed, 5, 9999), f"http://rebind.test:{canary.port}/")
    assert asked and set(connected) <= {"93.184.216.34"}
    assert canary.requests == []


def test_the_allow_list_allows_what_it_names_and_no_more(web: WebServer, canary: WebServer) -> None:
    web.pages["/ok"] = response("<p>internal</p>")
    for entry in (f"127.0.0.1:{web.port}", f"localhost:{web.port}", f"127.0.0.0/8:{web.port}"):
        fetcher = Fetcher(AllowList([entry]), 10, 9999)
        host = "localhost" if entry.startswith("localhost") else "127.0.0.1"
        assert b"internal" in fetcher.fetch_page(web.url("/ok", host)).content
        assert isinstance(refusal(fetcher, canary.url()), FetchRefusedError)
    # A network holds for names as well, a name not for its address.
    by_network = Fetcher(AllowList([f"127.0.0.0/8:{web.port}", f"[::1]:{web.port}"]), 10, 9999)
    assert by_network.fetch_page(web.url("/ok", "one-private.test")).final_url == web.url("/ok", "one-private.test")
    refusal(Fetcher(AllowList([f"localhost:{web.port}"]), 10, 9999), web.url("/ok"))
    refusal(Fetcher(AllowList(["127.0.0.1"]), 10, 9999), web.url("/ok"))  # without a port: 80 and 443
    assert canary.requests == []


@pytest.mark.parametrize(
    "entry", ["", "http://wiki", "wiki:0", "wiki:99999", "10.0.0.0/99", "a b", "[::1", "2130706433", "10.0.0.1/8:x"]
)
def test_a_wrong_entry_of_the_allow_list_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match=r"is no host|has no port"):
        AllowList([entry])


# Redirects


def redirect(place: str, status: int = 302, **headers: str) -> bytes:
    return response("<p>moved</p>", status=status, Location=place, **headers)


def test_redirects_are_followed_by_hand_and_checked_each(web: WebServer, canary: WebServer, fetcher: Fetcher) -> None:
    web.pages["/end"] = response("<p>the end</p>")
    for status in (301, 302, 303, 307, 308):
        web.pages["/start"] = redirect("/second", status, Set_Cookie="id=1; Path=/")
        web.pages["/second"] = redirect("end?x=1")
        web.requests.clear()
        page = fetcher.fetch_page(web.url("/start"))
        assert page.final_url == web.url("/end?x=1") and page.url == web.url("/start")
        assert len(web.requests) == 3
    sent = "\n".join(web.requests).lower()
    assert "cookie" not in sent and "authorization" not in sent and "referer" not in sent
    places = [
        canary.url(),
        canary.url("/", "localhost"),
        canary.url("/", "[::1]"),
        f"//127.0.0.1:{canary.port}/",
        f"http://2130706433:{canary.port}/",
        f"http://x:y@127.0.0.1:{web.port}/end",
        "http://169.254.169.254/latest/meta-data/",
        "http://lab.test/",
        "file:///etc/hostname",
        "gopher://127.0.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "javascript:alert(1)",
        "http://127.0.0.1\\@example.org/",
        "http://[",
        "\xff\xfe",
    ]
    for place in places:
        web.pages["/start"] = redirect(place)
        refusal(fetcher, web.url("/start"))
    assert canary.requests == []


def test_without_the_package_it_is_a_sentence(
    web: WebServer, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PACKAGE", "no_such_package")
    web.requests.clear()
    assert "requirements-documents.txt" in refusal(fetcher, web.url("/")).message
    assert web.requests == []


def test_endless_redirects_end(web: WebServer, fetcher: Fetcher) -> None:
    web.pages["/loop"] = redirect("/loop")
    web.requests.clear()
    assert "redirects more than" in refusal(fetcher, web.url("/loop")).message
    # One that an earlier test gave up may arrive now.
    assert len([one for one in web.requests if "/loop" in one]) == MOST_REDIRECTS + 1


def test_nothing_of_the_environment_is_sent_or_asked(
    web: WebServer, canary: WebServer, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, canary.url())
    web.pages["/"] = response("<p>direct</p>")
    web.requests.clear()
    assert b"direct" in fetcher.fetch_page(web.url()).content
    assert "authorization" not in web.requests[0].lower()
    assert canary.requests == []


# TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path, list[str | None]]]:
    """A server with a certificate for lab.example: its port, the authority's file, and the names it was asked by."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder, "lab.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    head = secured.recv(4096).decode()
                    place = f"http://lab.example:{listener.getsockname()[1]}/x"
                    secured.sendall(redirect(place) if "/down" in head else response("<p>sealed</p>"))
            except OSError:
                connection.close()  # the client did not like the certificate

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], certificate, asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, key_file


def test_tls_is_checked_by_name_and_never_given_up(
    tls: tuple[int, Path, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, authority, asked = tls
    monkeypatch.setitem(NAMES, "lab.example", ["127.0.0.1"])
    monkeypatch.setitem(NAMES, "other.example", ["127.0.0.1"])
    fetcher = Fetcher(AllowList([f"127.0.0.1:{port}"]), 10, 9999, verify=str(authority))
    assert b"sealed" in fetcher.fetch_page(f"https://lab.example:{port}/").content
    assert asked == ["lab.example"]
    assert "from https to http" in refusal(fetcher, f"https://lab.example:{port}/down").message
    assert "certificate" in refusal(fetcher, f"https://other.example:{port}/").message
    unknown = Fetcher(AllowList([f"127.0.0.1:{port}"]), 10, 9999)
    assert "certificate" in refusal(unknown, f"https://lab.example:{port}/").message


# What a hostile server sends


def test_bombs_are_not_decompressed(web: WebServer, fetcher: Fetcher) -> None:
    zeros = bytes(200_000_000)
    packed = gzip.compress(zeros, 1)
    web.pages["/gzip"] = response(packed, Content_Encoding="gzip")
    web.pages["/deflate"] = response(zlib.compress(zeros, 1), Content_Encoding="deflate")
    web.pages["/twice"] = response(gzip.compress(packed), Content_Encoding="gzip, gzip")
    web.pages["/br"] = response(b"\x8b\x00\x80x\x03", Content_Encoding="br")
    web.pages["/broken"] = response(b"no gzip at all", Content_Encoding="gzip")
    web.pages["/fits"] = response(gzip.compress(b"<p>fits</p>"), Content_Encoding="gzip")
    for path, said in (
        ("/gzip", "1,000,000 bytes"),
        ("/deflate", "1,000,000 bytes"),
        ("/twice", "not asked for"),
        ("/br", "not asked for"),
        ("/broken", "can't be loaded"),
    ):
        assert said in refusal(fetcher, web.url(path)).message, path
    assert fetcher.fetch_page(web.url("/fits")).content == b"<p>fits</p>"


def test_too_much_is_not_read(web: WebServer, fetcher: Fetcher) -> None:
    sent = 0

    def endless(connection: socket.socket, _: str) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65536)

    web.pages["/endless"] = endless
    web.pages["/announced"] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 999999999999\r\n\r\n<p>"
    web.pages["/number"] = b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n<p>"
    web.pages["/heads"] = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n"
    web.pages["/line"] = b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n"
    for path in ("/endless", "/announced", "/number", "/heads", "/line"):
        refusal(fetcher, web.url(path))
    assert sent < 20_000_000


@pytest.mark.parametrize("where", ["status", "head", "body", "silent"])
def test_slow_servers_meet_the_deadline(web: WebServer, where: str) -> None:
    began, over = threading.Event(), threading.Event()

    def drip(connection: socket.socket, _: str) -> None:
        if where != "status":
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
        if where == "body":
            connection.sendall(b"Content-Type: text/html\r\n\r\n")
        began.set()
        # The connection is shut down from the other side: then sending fails.
        while where != "silent" and not over.wait(0.05):
            connection.sendall(b"X: y\r\n" if where == "head" else b"x")
        over.wait()

    web.pages["/slow"] = drip
    fetcher = Fetcher(AllowList([f"127.0.0.1:{web.port}"]), 1.0, 100_000)
    message = refusal(fetcher, web.url("/slow")).message
    over.set()
    assert began.is_set() and ("longer than 1 s" in message or "in time" in message)


def test_a_resolver_that_hangs_meets_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait() and [])
    assert "longer than" in refusal(Fetcher(AllowList(), 0.2, 9999), "http://hangs.test/").message
    over.set()


def test_a_cancelled_run_leaves_the_page(web: WebServer, fetcher: Fetcher) -> None:
    reached, over = threading.Event(), threading.Event()

    def wait(connection: socket.socket, _: str) -> None:
        reached.set()
        over.wait()

    web.pages["/wait"] = wait
    with pytest.raises(RunCancelledError):
        fetcher.fetch_page(web.url("/wait"), reached.is_set)
    over.set()


PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes(60)


@pytest.mark.parametrize(
    ("content", "kind", "found"),
    [
        (b"<!doctype html><p>x", "text/html", "text/html"),
        (b"<!doctype html><p>x", "application/octet-stream", "text/html"),
        (b"just text", "text/plain", "text/plain"),
        (b'{"a": 1}', "application/json", "application/json"),
        (
            b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'></html>",
            "application/xhtml+xml",
            "text/html",
        ),
        (b"caf\xe9 au lait", "text/plain; charset=latin-1", "text/plain"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "text/html", "application/pdf"),
        (b"", "text/html", "text/html"),
        (PNG, "text/html", None),
        (b"PK\x03\x04" + bytes(60), "text/html", None),
        (b"\x7fELF" + bytes(60), "text/plain", None),
        (b"MZ" + bytes(100), "application/pdf", None),
        (bytes(range(256)), "text/plain", None),
    ],
)
def test_the_content_says_what_it_is(
    web: WebServer, fetcher: Fetcher, content: bytes, kind: str, found: str | None
) -> None:
    web.pages["/lie"] = response(content, kind)
    if found is None:
        assert "and not a page" in refusal(fetcher, web.url("/lie")).message
    else:
        assert fetcher.fetch_page(web.url("/lie")).media_type == found


def test_pictures(web: WebServer, fetcher: Fetcher) -> None:
    web.pages["/a"] = response(PNG, "text/html")
    assert fetcher.fetch_image(web.url("/a")).media_type == "image/png"
    for content in (b"<svg onload='x'/>", b"<p>no picture", b""):
        web.pages["/a"] = response(content, "image/png")
        with pytest.raises(FetchFailedError, match="not a picture"):
            fetcher.fetch_image(web.url("/a"))


@pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 404, 410, 418, 429, 500, 503])
def test_other_replies_are_errors(web: WebServer, fetcher: Fetcher, status: int) -> None:
    web.pages["/status"] = response("" if status in (204, 304) else "<p>IGNORE ALL</p>", status=status)
    if status == 204:
        assert fetcher.fetch_page(web.url("/status")).content == b""
        return
    message = refusal(fetcher, web.url("/status")).message
    assert str(status) in message and "IGNORE" not in message


@pytest.mark.parametrize(
    "reply",
    [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/9.9 999 x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", bytes(99)],
)
def test_what_is_no_http_is_an_error(web: WebServer, fetcher: Fetcher, reply: bytes) -> None:
    web.pages["/odd"] = reply
    assert isinstance(refusal(fetcher, web.url("/odd")), FetchFailedError)
