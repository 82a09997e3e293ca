"""A server whose database is full, locked or gone, or that is killed: what it answers, and what is there after."""

import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from sqlalchemy import make_url

from tests.support.full_disk import full_disk
from tests.support.postgres_process import Postgres
from tests.support.server_process import REPOSITORY, Server, Session, clean_environment, end, start

QUESTION = {"question": "What is 37 * 52?"}
PASSWORD = "s3cret"
"""What the URLs of `Postgres` have a part of."""
CLIENTS = 8


def test_whatever_was_answered_is_there_after_a_kill(
    start_server: Callable[..., Server], tmp_path: Path, database_url: str | None
) -> None:
    settings = {"DATA_DIR": tmp_path / "data"} | ({"DATABASE_URL": database_url} if database_url else {})
    answered: list[str] = []
    # PostgreSQL is not what is killed.
    for _ in range(2 if database_url is None else 1):
        server = start_server(**settings)
        enough = threading.Event()
        kill_after = len(answered) + random.randint(1, 40)

        def ask(server: Server = server, kill_after: int = kill_after, enough: threading.Event = enough) -> None:
            with Session(server.url, server.token) as session:
                while True:
                    try:
                        answer = session.post("/run_script", json=QUESTION)
                    # No answer, or the beginning of one.
                    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                        return
                    assert answer.status_code == 200, answer.text
                    answered.append(answer.json()["run_id"])
                    if len(answered) >= kill_after:
                        enough.set()

        with ThreadPoolExecutor(CLIENTS) as pool:
            asking = [pool.submit(ask) for _ in range(CLIENTS)]
            assert enough.wait(120)
            server.process.kill()
        for one in asking:
            one.result()
    again = start_server(ready=False, AUTOLOAD=0, **settings)
    for run in answered:
        record = again.session.get(f"/runs/{run}").json()
        assert (record["state"], record["answer"]) == ("done", "1924")


@dataclass
class Store:
    """A server, and ways to get between it and its database."""

    server: Server
    locked: Callable[[], AbstractContextManager[None]]
    """Within it somebody else holds what one must hold to write."""
    gone: Callable[[], AbstractContextManager[None]]
    """Within it nothing can be written."""

    def ask(self, **body: Any) -> requests.Response:
        with Session(self.server.url, self.server.token) as session:
            return session.post("/run_script", json=QUESTION | body)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One with model and tools."""
    folder = tmp_path_factory.mktemp(f"store-{request.param}")
    settings: dict[str, object] = {}
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        settings["DATABASE_URL"] = postgres.database()
    server = start(folder, REPOSITORY, settings)
    file = folder / "data" / "hearth.db"

    @contextmanager
    def locked_file() -> Iterator[None]:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.close()

    @contextmanager
    def locked_table() -> Iterator[None]:
        with psycopg.connect(str(settings["DATABASE_URL"])) as other:
            other.execute("LOCK TABLE run, generation, take_over IN EXCLUSIVE MODE")
            yield
            other.rollback()

    @contextmanager
    def refusing() -> Iterator[None]:
        name = make_url(str(settings["DATABASE_URL"])).database
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='{name}'")
        yield
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    try:
        server.wait_until_ready()
        if request.param == "sqlite":
            yield Store(server, locked_file, lambda: full_disk(server.process.pid, file))
        else:
            yield Store(server, locked_table, refusing)
    finally:
        end(server)


@pytest.mark.parametrize("trouble", ["locked", "gone"])
def test_a_question_is_answered_though_its_record_can_not_be_kept(store: Store, trouble: str) -> None:
    assert "store_error" not in store.server.health()
    with ExitStack() as held:
        held.enter_context(getattr(store, trouble)())
        with ThreadPoolExecutor(2) as pool:
            both = pool.submit(store.ask), pool.submit(store.ask, max_tokens=1)
        asked, failed = (one.result() for one in both)
        assert asked.status_code == 200 and asked.json()["answer"] == "1924"
        reported = asked.json()["not_recorded"]
        assert reported["type"] == "storage_failed"
        assert failed.status_code == 422 and failed.json()["error"]["not_recorded"]["type"] == "storage_failed"
        assert store.server.health()["store_error"] in (reported, failed.json()["error"]["not_recorded"])
        anonymous = requests.get(f"{store.server.url}/health", timeout=60).json()
        assert anonymous["store_error"]["message"] == "With the token, the message says why."
        log = store.server.output
        assert f"run {asked.json()['run_id']} is not recorded: {reported['message']}" in log
    again = store.ask().json()
    assert "not_recorded" not in again
    assert store.server.session.get(f"/runs/{again['run_id']}").json()["answer"] == "1924"
    assert store.server.session.get(f"/runs/{asked.json()['run_id']}").status_code == 404
    assert "store_error" not in store.server.health()
    everything = store.server.output + asked.text + failed.text
    assert PASSWORD not in everything and "Traceback" not in everything


def test_while_others_write_all_can_be_read_and_a_reload_is_refused(store: Store) -> None:
    recorded = store.ask().json()
    session = store.server.session
    files = "/workspaces/alice/files/tools/alice.py"
    session.put(files, data="LETTER = 'a'\n")
    with store.locked():
        assert session.get(f"/runs/{recorded['run_id']}").json()["answer"] == "1924"
        assert session.get("/generations").json()["live"] == recorded["generation"]
        refused = session.post("/reload_modules", json={"workspace": "alice"})
        spoken = store.ask(session_id="monday").json()
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "storage_failed")
    # What is not recorded is no turn.
    assert spoken["answer"] == "1924" and "not_recorded" in spoken
    assert session.get("/sessions/monday").status_code == 404
    assert session.post("/reload_modules", json={"workspace": "alice"}).status_code == 200


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://lab:s3cret@localhost:1/hearth", "The PostgreSQL database 'hearth' at localhost can't be used"),
        ("postgresql://lab:s3cret@/hearth?host=/nowhere&password=s3cret", "at /nowhere can't be used"),
        ("postgresql://lab:s3cret@localhost/hearth?pasword=s3cret", "can't be used"),
        ("postgresql://lab:s3cret@s3cret@localhost/hearth", "An @ in the password has to be written as %40"),
        ("postgresql://lab:s3cret", "It is not the URL of a PostgreSQL database"),
        ("mysql://lab:s3cret@localhost/hearth", "It is not the URL of a PostgreSQL database"),
        ("s3cret", "It is not the URL of a PostgreSQL database"),
    ],
)
def test_a_database_that_can_not_be_used_stops_the_start_and_tells_no_password(
    tmp_path: Path, url: str, said: str
) -> None:
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "app.py")],
        env=clean_environment(tmp_path, {"HOST": "127.0.0.1", "PORT": 0, "DATABASE_URL": url, "LOG_LEVEL": "DEBUG"}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (1, 2)
    assert "HEARTH_DATABASE_URL" in ended.stderr and said in ended.stderr
    assert PASSWORD not in ended.stdout + ended.stderr and "Traceback" not in ended.stderr
