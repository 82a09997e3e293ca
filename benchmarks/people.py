"""What accounts cost: checking an API key, and what a wave of logins does to people who ask."""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.tables import milliseconds, p95, print_table
from constants import Settings
from server.audit.log import AuditLog
from server.people.accounts import Accounts
from server.people.credentials import CredentialCheck
from server.store import Database
from server.store.people import PeopleStore
from tests.support.server_process import REPOSITORY, REQUEST_SECONDS, Server, Session, end, start

PASSWORD = "a long password"
QUESTION = "Plan this: what is 37 * 52, and which weekday is 2026-12-25, and convert 3 miles to km?"


def report(folder: Path, few: bool) -> None:
    """Print both tables."""
    checks = 100 if few else 100_000
    rows = [[what, f"{seconds * 1e6:.1f} µs"] for what, seconds in _checks(checks).items()]
    print_table(("a check of", "mean"), rows)
    server = start(folder, REPOSITORY, {})
    try:
        server.wait_until_ready()
        _report_wave(server, times=1 if few else 20)
    finally:
        end(server)


def _checks(times: int) -> dict[str, float]:
    """Mean seconds of a check of each credential."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(TOKEN="secret", DATA_DIR=Path(folder))
        database = Database(Path(folder))
        check = CredentialCheck(settings, PeopleStore(database))
        accounts = Accounts(PeopleStore(database), check, AuditLog(database), "auto")
        accounts.register("ann", PASSWORD, None, check.of_bearer("secret"))
        given = accounts.log_in("ann", PASSWORD)
        principal = check.of_bearer(given.access_token)
        assert principal is not None, "she has logged in"
        key, _ = accounts.make_key(principal, "x", None, None)
        found = {}
        for what, secret in (("an API key", key), ("an access token", given.access_token), ("the token", "secret")):
            started = time.perf_counter()
            for _ in range(times):
                check.of_bearer(secret)
            found[what] = (time.perf_counter() - started) / times
        accounts.close()
        database.close()
    return found


def _report_wave(server: Server, times: int) -> None:
    body = {"username": "ann", "password": PASSWORD}
    assert server.session.post("/auth/register", json=body).ok
    rows = []
    for clients in (0, 8, 64):
        with _logging_in(server, clients) as count:
            seconds, tokens, began = [], 0, time.perf_counter()
            for _ in range(times):
                started = time.perf_counter()
                usage = server.session.post("/run_script", json={"question": QUESTION}).json()["usage"]
                seconds.append(time.perf_counter() - started)
                tokens += usage["completion_tokens"] + usage["forced_tokens"]
            spent = time.perf_counter() - began
            figures = (statistics.median(seconds), p95(seconds))
            rows.append(
                [str(clients), f"{count[0] / spent:.0f}", *map(milliseconds, figures), f"{tokens / spent:.0f}"]
            )
    print_table(("clients that log in", "logins/s", "a question p50", "p95", "tokens/s"), rows)


@contextmanager
def _logging_in(server: Server, clients: int) -> Iterator[list[int]]:
    """Clients that log in all the time, and the number of their logins."""
    stop, count, counting = threading.Event(), [0], threading.Lock()

    def log_in() -> None:
        with Session(server.url, "") as session:
            while not stop.is_set():
                body = {"username": "ann", "password": PASSWORD}
                if session.post("/auth/login", json=body, timeout=REQUEST_SECONDS).ok:
                    with counting:
                        count[0] += 1

    threads = [threading.Thread(target=log_in) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield count
    finally:
        stop.set()
        for thread in threads:
            thread.join()
