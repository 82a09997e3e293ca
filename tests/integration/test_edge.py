"""What a server promises to browsers and proxies: headers, cookies of one's own pages only, names, logins, TLS."""

import ipaddress
import json
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from constants import Settings
from server import create_app
from server.host import Host
from server.http.listener import FEWEST_CONNECTIONS, MOST_CONNECTIONS
from tests.support.event_stream import EVENT_STREAM, read
from tests.support.server_process import REPOSITORY, Server, clean_environment, end, start
from tests.support.websocket_client import address, open_client

COOKIE = {"Cookie": "hearth_session=stolen"}
JSON = {"Content-Type": "application/json"}


def ask(server: Server, method: str, path: str, data: bytes | None = None, /, **headers: str) -> requests.Response:
    """A request without the token."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, server.url + path, headers=named, data=data, timeout=20)


# Headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/health"), ("GET", "/no/such/route"), ("POST", "/run_script"), ("GET", "/metrics")],
)
def test_every_response_has_the_headers(empty_server: Server, method: str, path: str) -> None:
    for answer in (empty_server.session.request(method, path), ask(empty_server, method, path)):
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "camera=()" in answer.headers["Permissions-Policy"]
        assert "Strict-Transport-Security" not in answer.headers


def test_what_the_parser_refuses_has_the_headers_too(empty_server: Server) -> None:
    answer = empty_server.session.post("/run_script", headers={"Transfer-Encoding": "gzip"}, data=b"")
    assert answer.status_code in (400, 501)
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_that_may_call_gets_no_resource_policy(empty_server: Server) -> None:
    answer = empty_server.session.get("/", headers={"Origin": "http://localhost:8888"})
    assert "Cross-Origin-Resource-Policy" not in answer.headers


def test_a_download_keeps_its_sandbox(empty_server: Server) -> None:
    session = empty_server.session
    session.post("/sessions/edge/files", files={"files": ("page.html", b"<script>alert(1)</script>")})
    answer = session.get("/sessions/edge/files/page.html")
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    session.delete("/sessions/edge")


# Cookies


def test_a_cookie_counts_on_own_pages_only(empty_server: Server) -> None:
    own = empty_server.url
    for headers in (
        {"Sec-Fetch-Site": "cross-site", "Origin": own},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine, such as a notebook server's
        {"Origin": "https://evil.example"},
        {"Origin": own.replace("127.0.0.1", "localhost")},
        {"Origin": f"{own}1"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {},
    ):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = ask(empty_server, method, "/unload_model", **COOKIE, **headers)
            assert answer.status_code == 403, (method, headers)
            assert answer.json()["error"]["type"] == "cross_site"
            assert "Authorization: Bearer" in answer.json()["error"]["message"]
    # Any page can write this into an address, and the browser adds the cookie.
    for token in ("wrong", empty_server.token):
        answer = ask(empty_server, "POST", f"/unload_model?token={token}", **COOKIE, Origin="https://evil.example")
        assert answer.json()["error"]["type"] == "cross_site"
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": own}):
        # It goes on to the check of the cookie, which is nobody's.
        assert ask(empty_server, "POST", "/unload_model", **COOKIE, **headers).status_code == 401


def test_reading_with_a_cookie_is_not_checked(empty_server: Server) -> None:
    assert ask(empty_server, "GET", "/", **COOKIE, Origin="https://evil.example").status_code == 401


def test_with_a_token_no_cookie_counts(empty_server: Server) -> None:
    headers = {**COOKIE, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = empty_server.session.post("/unload_model", headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "text/plain; application/json"]
)
def test_a_body_that_a_form_can_send_is_refused_with_a_cookie(empty_server: Server, kind: str) -> None:
    answer = ask(
        empty_server, "POST", "/unload_model", b"{}", **COOKIE, Sec_Fetch_Site="same-origin", Content_Type=kind
    )
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]
    answer = ask(empty_server, "POST", "/unload_model", b"{}", **COOKIE, **JSON, Sec_Fetch_Site="same-origin")
    assert answer.status_code == 401


def test_no_page_logs_a_browser_in(empty_server: Server) -> None:
    for path in ("/auth/login", "/api/auth/login"):
        foreign = ask(empty_server, "POST", path, b"{}", **JSON, Origin="https://evil.example")
        assert foreign.json()["error"]["type"] == "cross_site"
        # A script sends neither an origin nor a cookie.
        assert ask(empty_server, "POST", path, b"{}", **JSON).status_code != 403


# Names


def test_other_names_are_refused_before_anything_is_read(empty_server: Server) -> None:
    for host in ("evil.example", "evil.example:5001", "localhost.evil.example", "127.0.0.1.evil.example", "x" * 300):
        for headers in ({}, COOKIE):
            answer = ask(empty_server, "GET", "/", **headers, Host=host)
            assert answer.status_code == 421, host
            assert answer.json()["error"]["type"] == "wrong_host"
            assert "HEARTH_HOSTS" in answer.json()["error"]["message"]
            assert len(answer.json()["error"]["message"]) < 500


def test_own_names_and_addresses_are_answered(empty_server: Server) -> None:
    own = socket.gethostname()
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:5001", "[::1]:5001", "10.1.2.3", own, f"{own}:80", f"{own}."):
        assert ask(empty_server, "GET", "/", Host=host).status_code == 401, host
    short = own.partition(".")[0]
    assert ask(empty_server, "GET", "/", Host=f"{short}.local").status_code == 401


def test_scripts_and_probes_may_use_any_name(empty_server: Server) -> None:
    headers = {"Host": "hearth.default.svc.cluster.local"}
    assert empty_server.session.get("/", headers=headers).status_code == 200
    assert ask(empty_server, "GET", "/health", **headers).status_code == 200


# Logins


def test_guesses_of_a_password_are_counted_by_name_and_by_address(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD=0, HOSTS="hearth.example.org")
    # The name is one that was set.
    assert ask(server, "GET", "/", Host="hearth.example.org:443").status_code == 401

    def guess(name: str, **headers: str) -> requests.Response:
        body = f'{{"username": "{name}", "password": "x"}}'
        return server.session.post("/auth/login", data=body, headers=headers)

    assert [guess(name).status_code for name in ("alice", " Alice ") * 5] == [409] * 10
    refused = guess("ALICE")
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["retry_after"]) == ("too_many_attempts", int(refused.headers["Retry-After"]))
    assert 1 <= error["retry_after"] <= 60
    # A header that anybody can send makes no other address.
    for number in range(49):
        guess(f"name{number}", **{"X-Forwarded-For": f"10.0.0.{number}", "X-Real-IP": "10.0.0.1"})
    refused = server.session.post("/api/auth/register")
    assert refused.status_code == 429
    assert "your address" in refused.json()["error"]["message"]
    assert server.session.post("/unload_model").status_code == 200


# Proxies


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that believes this machine's IPv4 addresses, as if a proxy were there."""
    folder = tmp_path_factory.mktemp("proxied")
    shared = start(folder / "server", REPOSITORY, {"AUTOLOAD": 0, "TRUSTED_PROXIES": "127.0.0.0/8, 10.0.0.0/8"})
    yield shared
    end(shared)


def test_a_trusted_proxy_says_where_a_request_comes_from(proxied: Server) -> None:
    https = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    answer = proxied.session.get("/", headers={**https, "Host": "hearth.example.org"})
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    # Browsers would want TLS of a notebook server under the same name.
    assert "Strict-Transport-Security" not in proxied.session.get("/", headers=https).headers
    own = {"Host": "127.0.0.1", "Origin": "https://127.0.0.1"}
    assert ask(proxied, "POST", "/unload_model", **COOKIE, **https, **own).status_code == 401
    # The host that a client has made up is not believed.
    forged = {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}
    assert ask(proxied, "POST", "/unload_model", **COOKIE, **https, **forged).status_code == 403
    for number in range(70):
        # The first address is the client's own invention, the last one the proxy's word.
        headers = {"X-Forwarded-For": f"10.9.9.{number}, 192.0.2.8"}
        last = proxied.session.post("/auth/register", headers=headers).status_code
    assert last == 429
    assert proxied.session.post("/auth/register", headers={"X-Forwarded-For": "192.0.2.9"}).status_code == 422


@pytest.mark.parametrize(
    ("first", "second"),
    [("::ffff:192.0.2.50", "::ffff:192.0.2.51"), ("2001:db8::{:x}", "2001:db8:0:1::1")],
    ids=["IPv4 in IPv6", "IPv6"],
)
def test_a_network_of_ipv6_is_one_address_and_all_of_ipv4_is_not(proxied: Server, first: str, second: str) -> None:
    def attempt(address: str) -> int:
        return proxied.session.post("/auth/register", headers={"X-Forwarded-For": address}).status_code

    assert [attempt(first.format(number)) for number in range(1, 62)] == [422] * 60 + [429]
    assert attempt(second) == 422


def test_a_server_without_a_token_that_has_accounts_answers_to_its_names_only(tmp_path: Path) -> None:
    before = Host(Settings(TOKEN="secret", DATA_DIR=tmp_path))
    before.accounts.register("ann", "a long password", None, before.credentials.of_bearer("secret"))
    before.close()
    host = Host(Settings(TOKEN="", HOST="127.0.0.1", DATA_DIR=tmp_path))
    client = create_app(host).test_client()
    assert client.get("/ui/login", base_url="http://evil.example").status_code == 421
    assert client.get("/ui/login").status_code == 200
    host.close()


@pytest.mark.parametrize("header", ["X-Forwarded-Proto: gopher", "X-Forwarded-Proto: http,https"])
def test_nonsense_of_a_proxy_is_refused(proxied: Server, header: str) -> None:
    name, _, value = header.partition(": ")
    assert proxied.session.get("/", headers={name: value}).status_code == 400


def test_nobody_else_is_believed(empty_server: Server) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7", "Forwarded": "proto=https"}
    answer = empty_server.session.get("/", headers=headers)
    assert answer.status_code == 200
    assert "Strict-Transport-Security" not in answer.headers


# TLS


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """The files of a certificate that has signed itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with TLS and the model, and the file of its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = certificate(folder)
    shared = start(folder / "server", REPOSITORY, {"TLS_CERT": cert, "TLS_KEY": key, "WS_PORT": 0}, verify=str(cert))
    try:
        shared.wait_until_ready()
        yield shared, cert
    finally:
        end(shared)


def test_questions_streams_and_uploads_over_tls(tls_server: tuple[Server, Path]) -> None:
    server, _ = tls_server
    assert server.url.startswith("https://127.0.0.1:")
    assert f"Hearth is at {server.url}" in server.output
    assert server.session.post("/run_script", json={"question": "What is 37 * 52?"}).json()["answer"] == "1924"
    events = read(
        server.session.post("/run_script", json={"question": "What is 6 * 7?"}, headers=EVENT_STREAM, stream=True)
    )
    assert list(events)[-1].data["answer"] == "42"
    data = random.Random(7).randbytes(20_000_000)
    server.session.post("/sessions/tls/files", files={"files": ("large.bin", data)})
    assert server.session.get("/sessions/tls/files/large.bin").content == data
    server.session.delete("/sessions/tls")


def test_websocket_over_tls(tls_server: tuple[Server, Path]) -> None:
    server, cert = tls_server
    assert address(server).startswith("wss://127.0.0.1:")
    with open_client(server, context=ssl.create_default_context(cafile=cert)) as client:
        client.ask("a", "What is 37 * 52?")
        assert client.events_of("a")[-1]["data"]["answer"] == "1924"


def test_many_connections_over_tls(tls_server: tuple[Server, Path]) -> None:
    server, cert = tls_server

    def get(number: int) -> int:
        return requests.get(server.url + "/health", verify=str(cert), timeout=60).status_code

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(get, range(100))) == {200}


@pytest.mark.parametrize("shakes_hands", [False, True])
def test_idle_connections_make_room_over_tls(tls_server: tuple[Server, Path], shakes_hands: bool) -> None:
    server, cert = tls_server
    context = ssl.create_default_context(cafile=cert)
    port = int(server.url.rpartition(":")[2])
    with ExitStack() as opened:
        for _ in range(MOST_CONNECTIONS + 3 * FEWEST_CONNECTIONS):
            plain = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            if shakes_hands:
                opened.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
        assert requests.get(server.url + "/health", verify=str(cert), timeout=20).status_code == 200


def test_who_leaves_over_tls_is_noticed(tls_server: tuple[Server, Path]) -> None:
    server, cert = tls_server
    context = ssl.create_default_context(cafile=cert)
    port = int(server.url.rpartition(":")[2])
    body = json.dumps({"model": "embedded", "prompt": ["One, two, "] * 8, "n": 4, "max_tokens": 1000}).encode()
    before = {run["run_id"] for run in server.session.get("/runs").json()["runs"]}
    with socket.create_connection(("127.0.0.1", port)) as plain:
        connection = context.wrap_socket(plain, server_hostname="localhost")
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

        def new() -> list[str]:
            shown = server.session.get("/runs").json()["runs"]
            return [run["state"] for run in shown if run["run_id"] not in before]

        server.wait_until(new, "the run")
        connection.close()
    server.wait_until(lambda: new()[0] == "cancelled", "its end", 60)


def test_who_speaks_no_tls_harms_nobody(tls_server: tuple[Server, Path]) -> None:
    server, _ = tls_server
    port = int(server.url.rpartition(":")[2])
    for sent in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x00\x00", b""):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            plain.sendall(sent)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(4096):
                pass
    assert server.health()["status"] == "ok"
    assert "Traceback" not in server.output


@pytest.mark.parametrize("broken", ["absent", "no certificate", "another key"])
def test_a_certificate_that_can_not_be_used_stops_the_start(tmp_path: Path, broken: str) -> None:
    cert, key = certificate(tmp_path)
    if broken == "absent":
        cert.unlink()
    elif broken == "no certificate":
        cert.write_text("nothing")
    else:
        other = tmp_path / "other"
        other.mkdir()
        key = certificate(other)[1]
    settings = {"TLS_CERT": cert, "TLS_KEY": key, "HOST": "127.0.0.1", "PORT": 0, "DATA_DIR": tmp_path / "data"}
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "app.py")],
        cwd=tmp_path,
        env=clean_environment(tmp_path, settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    assert str(cert) in ended.stderr and "HEARTH_TLS_KEY" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_is_being_sent_over_tls_at_the_end_is_sent(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    settings: dict[str, object] = {"AUTOLOAD": 0, "TLS_CERT": cert, "TLS_KEY": key}
    server = start(tmp_path / "server", REPOSITORY, settings, verify=str(cert))
    try:
        data = random.Random(7).randbytes(5_000_000)
        server.session.post("/sessions/tls/files", files={"files": ("large.bin", data)})
        answer = server.session.get("/sessions/tls/files/large.bin", stream=True)
        # The session's other connections are open and idle, as a browser's are.
        assert requests.get(f"{server.url}/health", verify=str(cert), timeout=60).status_code == 200
        server.process.terminate()
        assert answer.raw.read() == data
        assert server.process.wait(60) == 0
        assert "could not be sent" not in server.output
    finally:
        end(server)
