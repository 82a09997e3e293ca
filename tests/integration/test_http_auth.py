"""Who may come in."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.support.server_process import Server

ROUTES = [
    ("GET", "/"),
    ("GET", "/tools"),
    ("GET", "/openapi.json"),
    ("POST", "/load_model"),
    ("POST", "/unload_model"),
    ("POST", "/load_tools"),
    ("POST", "/run_script"),
    ("POST", "/reload_modules"),
    ("POST", "/health"),
    ("OPTIONS", "/tools"),
    ("GET", "/no/such/route"),
]


def assert_unauthorized(answer: requests.Response) -> None:
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "unauthorized"
    assert "Authorization: Bearer" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_without_the_token_gets_in(empty_server: Server, method: str, path: str) -> None:
    assert_unauthorized(requests.request(method, empty_server.url + path, timeout=10))


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "token wrong",
        "Bearer",
        "Bearer ",
        "",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer \xe9",
    ],
)
def test_a_wrong_token_is_refused(empty_server: Server, header: str) -> None:
    headers = {"Authorization": header.format(token=empty_server.token).encode("latin-1")}
    assert_unauthorized(requests.get(empty_server.url + "/tools", headers=headers, timeout=10))


@pytest.mark.parametrize("value", ["wrong", "", "%ff", "%00", "é"])
def test_a_wrong_token_in_the_query_is_refused(empty_server: Server, value: str) -> None:
    assert_unauthorized(requests.get(f"{empty_server.url}/?token={value}", timeout=10))


@pytest.mark.parametrize("scheme", ["Bearer", "token", "bearer", "Token"])
def test_the_token_in_a_header_opens(empty_server: Server, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {empty_server.token}"}
    answer = requests.get(empty_server.url + "/", headers=headers, timeout=10)
    assert answer.status_code == 200
    assert answer.json()["name"] == "hearth"


def test_the_token_in_the_link_becomes_a_cookie(empty_server: Server) -> None:
    with requests.Session() as browser:
        link = f"{empty_server.url}/?token={empty_server.token}"
        answer = browser.get(link, allow_redirects=False, timeout=10)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        assert answer.headers["Referrer-Policy"] == "no-referrer" and answer.headers["Cache-Control"] == "no-store"
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
        assert browser.get(empty_server.url + "/runs", timeout=10).status_code == 200
        # The link works again, and makes no second login.
        assert browser.get(link, timeout=10).status_code == 200
        assert len(browser.get(empty_server.url + "/auth/logins", timeout=10).json()["logins"]) == 1
        assert _log_out(browser, empty_server) == {"logged_out": True}
        assert_unauthorized(browser.get(empty_server.url + "/runs", timeout=10))


@pytest.mark.parametrize("path", ["/tools", "/runs", "/openapi.json", "/hearth.py", "/no/such/route"])
def test_the_token_in_the_query_of_another_route_opens_nothing(empty_server: Server, path: str) -> None:
    assert_unauthorized(requests.get(empty_server.url + path, params={"token": empty_server.token}, timeout=10))


def test_health_needs_no_token(empty_server: Server) -> None:
    assert requests.get(empty_server.url + "/health", timeout=10).json()["status"] == "ok"
    assert requests.head(empty_server.url + "/health", timeout=10).status_code == 200


def test_the_token_is_never_logged(empty_server: Server) -> None:
    answer = requests.get(
        empty_server.url + "/seen",
        params={"token": empty_server.token},
        headers={"Authorization": f"Bearer {empty_server.token}"},
        timeout=10,
    )
    line = f"{answer.headers['X-Request-Id']} server.http.request_log: GET /seen 404"
    empty_server.wait_until(lambda: line in empty_server.output, "the request's line in the log", 10)
    log = [line for line in empty_server.output.splitlines() if not line.startswith("Hearth is at ")]
    assert empty_server.token not in "\n".join(log)


def test_a_path_can_not_write_lines_of_its_own_into_the_log(empty_server: Server) -> None:
    empty_server.session.get("/first%0Asecond line")
    empty_server.wait_until(lambda: "/first%0Asecond%20line 404" in empty_server.output, "the line", 10)


@pytest.fixture
def open_server(start_server: Callable[..., Server]) -> Server:
    """A server that asks for no token."""
    return start_server(ready=False, AUTOLOAD=0, TOKEN="")


def test_without_a_token_this_machine_gets_in(open_server: Server) -> None:
    assert requests.get(open_server.url + "/", timeout=10).status_code == 200
    assert open_server.token == ""
    port = open_server.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"[::1]:{port}", "localhost"):
        assert requests.get(open_server.url + "/", headers={"Host": host}, timeout=10).status_code == 200


def test_without_a_token_foreign_web_pages_stay_out(open_server: Server) -> None:
    url = open_server.url + "/unload_model"

    def post(**headers: str) -> requests.Response:
        return requests.post(url, headers=headers, timeout=10)

    assert post(Origin="http://localhost:8888").status_code == 200
    for foreign in ("https://evil.example", "http://localhost.evil.example", "http://localhost:80.evil", "null"):
        assert post(Origin=foreign).json()["error"]["type"] == "forbidden"
    # A name of somebody else's that leads to this machine.
    for host in ("evil.example", "evil.example:5001", "localhost.evil.example", "["):
        answer = requests.get(open_server.url + "/", headers={"Host": host}, timeout=10)
        assert answer.status_code in (400, 403), host


def preflight(server: Server, origin: str, path: str = "/run_script") -> requests.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    return requests.options(server.url + path, headers=headers, timeout=10)


@pytest.mark.parametrize("path", ["/run_script", "/no/such/route"])
def test_local_pages_may_call(empty_server: Server, path: str) -> None:
    for origin in ("http://localhost:8888", "http://127.0.0.1", "https://localhost"):
        answer = preflight(empty_server, origin, path)
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]


def test_a_refused_page_can_read_why(empty_server: Server) -> None:
    answer = requests.get(empty_server.url + "/", headers={"Origin": "http://localhost:8888"}, timeout=10)
    assert_unauthorized(answer)
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:8888"


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost.evil.example", "null"])
def test_other_pages_may_not_call(empty_server: Server, origin: str) -> None:
    assert "Access-Control-Allow-Origin" not in preflight(empty_server, origin).headers
    answer = empty_server.session.get("/", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers


ORIGINS = (
    "https://lab.example.org",
    "https://other.example:*",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "app://obsidian.md",
)


def test_origins_are_a_setting(start_server: Callable[..., Server]) -> None:
    server = start_server(ready=False, AUTOLOAD=0, CORS_ORIGINS=", ".join(ORIGINS))
    for origin in (ORIGINS[0], "https://other.example:8443", "https://other.example", *ORIGINS[2:]):
        answer = preflight(server, origin)
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Access-Control-Max-Age"] == "600"
    for origin in ("https://labXexample.org", "http://localhost:8888", "https://lab.example.org:1"):
        assert "Access-Control-Allow-Origin" not in preflight(server, origin).headers


def _log_out(browser: requests.Session, server: Server) -> Any:
    # A browser says where its request comes from.
    return browser.post(server.url + "/auth/logout", headers={"Origin": server.url}, timeout=10).json()
