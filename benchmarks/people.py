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
ATTEMPTS_A_SECOND = 200
CLIENTS = 8
QUESTIONS = 5
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
    figures: dict[int, tuple[list[float], list[int], list[int]]] = {0: ([], [], []), ATTEMPTS_A_SECOND: ([], [], [])}
    for _ in range(times):
        for attempts, (seconds, tokens, made) in figures.items():
            with _guessing(server, attempts) as count:
                began = time.perf_counter()
                for _ in range(QUESTIONS):
                    usage = server.session.post("/run_script", json={"question": QUESTION}).json()["usage"]
                    tokens.append(usage["completion_tokens"] + usage["forced_tokens"])
                seconds.append((time.perf_counter() - began) / QUESTIONS)
                made.append(count[0])
    rows = [
        [
            f"{sum(made) / (QUESTIONS * sum(seconds)):.0f}",
            *map(milliseconds, (statistics.median(seconds), p95(seconds))),
            f"{sum(tokens) / (QUESTIONS * sum(seconds)):.0f}",
        ]
        for seconds, tokens, made in figures.values()
    ]
    print_table(("wrong logins/s", "a question p50", "p95", "tokens/s"), rows)


@contextmanager
def _guessing(server: Server, attempts: int) -> Iterator[list[int]]:
    """Clients that try wrong passwords so often a second in all, and the number of their attempts so far."""
    stop, count, counting = threading.Event(), [0], threading.Lock()

    def guess() -> None:
        due = time.monotonic()
        with Session(server.url, "") as session:
            while not stop.wait(max(0.0, due - time.monotonic())):
                due += CLIENTS / attempts
                session.post("/auth/login", json={"username": "ann", "password": "wrong"}, timeout=REQUEST_SECONDS)
                with counting:
                    count[0] += 1

    threads = [threading.Thread(target=guess) for _ in range(CLIENTS if attempts else 0)]
    for thread in threads:
        thread.start()
    try:
        yield count
    finally:
        stop.set()
        for thread in threads:
            thread.join()
