"""The audit log: what is in it, and that nobody changes it unnoticed."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from server.audit.log import FIRST, AuditLog
from server.errors import StoreError
from server.store.database import Database
from tests.support.postgres_process import Postgres
from tests.support.server_process import REPOSITORY, Server, clean_environment, end, start

SHOUT = '''
from langchain_core.tools import tool

@tool
def shout(text: str) -> str:
    """Write a text in capital letters."""
    return text.upper()
'''


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    made = Database(tmp_path / "data", database_url)
    yield made
    made.close()


@pytest.fixture
def audit(database: Database) -> AuditLog:
    log = AuditLog(database)
    for number in range(5):
        log.record("alice", "file.written", f"alice/tools/{number}.py", bytes=number)
    return log


def test_events_come_back_the_latest_first(audit: AuditLog) -> None:
    audit.record("bob\0\udcff", "model.loaded", "a\0b\udcff", device="cpu", text="\0", list=[1, None])
    [last, before] = audit.latest(2)
    assert (last["number"], last["act"], last["target"]) == (6, "model.loaded", "a\\x00b\\udcff")
    assert last["details"] == {"device": "cpu", "text": "\0", "list": [1, None]}
    assert last["recorded_at"].endswith("Z")
    assert [event["number"] for event in audit.latest(10, before=before["number"])] == [4, 3, 2, 1]
    assert [event["number"] for event in audit.latest(10, actor="alice", act="file.written")] == [5, 4, 3, 2, 1]
    assert audit.latest(10, actor="nobody") == []
    assert audit.verify().count == 6
    assert audit.verify().broken is None


def test_an_empty_log_is_intact(database: Database) -> None:
    checked = AuditLog(database).verify()
    assert (checked.count, checked.last_hash, checked.broken) == (0, FIRST, None)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET actor = 'bob' WHERE number = 3",
        "DELETE FROM audit WHERE number = 3",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE number = 3",
        "TRUNCATE audit",
    ],
)
def test_the_database_refuses_changes(audit: AuditLog, database: Database, change: str) -> None:
    with pytest.raises(StoreError, match=r"append-only|syntax error"), database.writing() as connection:
        connection.execute(text(change))
    assert audit.verify().count == 5


@pytest.mark.parametrize(
    ("change", "broken", "intact"),
    [
        ("UPDATE audit SET actor = 'bob' WHERE number = 3", 3, 2),
        ("UPDATE audit SET details = '{}' WHERE number = 1", 1, 0),
        ("UPDATE audit SET time = time - 1 WHERE number = 5", 5, 4),
        ("UPDATE audit SET hash = (SELECT hash FROM audit WHERE number = 4) WHERE number = 3", 3, 2),
        ("DELETE FROM audit WHERE number = 3", 4, 2),
        ("DELETE FROM audit WHERE number = 1", 2, 0),
        ("DELETE FROM audit WHERE number = 2; UPDATE audit SET number = number - 1 WHERE number > 2", 2, 1),
        ("INSERT INTO audit SELECT 6, time, actor, act, target, details, hash FROM audit WHERE number = 5", 6, 5),
    ],
)
def test_who_gets_past_the_triggers_is_found(tmp_path: Path, change: str, broken: int, intact: int) -> None:
    database = Database(tmp_path)
    log = AuditLog(database)
    for number in range(5):
        log.record("alice", "test", str(number), number=number)
    with sqlite3.connect(tmp_path / "hearth.db") as file:
        file.executescript(f"DROP TRIGGER audit_update; DROP TRIGGER audit_delete; {change}")
    file.close()
    checked = log.verify()
    assert (checked.count, checked.broken) == (intact, broken)
    # What is added later does not repair it.
    log.record("alice", "test")
    assert log.verify().broken == broken
    database.close()


def test_the_owner_of_the_tables_is_found_too(tmp_path: Path, postgres: Postgres) -> None:
    database = Database(tmp_path, postgres.database())
    log = AuditLog(database)
    for number in range(1200):  # more than are read at once
        log.record("alice", "test", str(number))
    assert log.verify().count == 1200
    with database.writing() as connection:
        connection.execute(text("ALTER TABLE audit DISABLE TRIGGER ALL"))
        connection.execute(text("UPDATE audit SET actor = 'bob' WHERE number = 700"))
    assert log.verify().broken == 700
    database.close()


def test_many_threads_and_two_servers_make_one_chain(tmp_path: Path, database_url: str | None) -> None:
    both = [Database(tmp_path / "data", database_url) for _ in range(2)]
    logs = [AuditLog(one) for one in both]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logs[number % 2].record(f"n{number}", "test"), range(60)))
    checked = logs[0].verify()
    assert (checked.count, checked.broken) == (60, None)
    assert {event["actor"] for event in logs[1].latest(100)} == {f"n{number}" for number in range(60)}
    for one in both:
        one.close()


def test_an_event_that_can_not_be_saved_is_loud(
    database: Database, audit: AuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    with database.writing() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO gone"))
    with caplog.at_level(logging.ERROR):
        audit.record("alice", "session.deleted", "main/monday", reason="test")
    assert "not in the audit log" in caplog.text
    assert json.dumps({"actor": "alice", "act": "session.deleted"})[:-1] in caplog.text
    assert database.failure is not None


def verify(folder: Path, **settings: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "server.audit"],
        cwd=REPOSITORY,
        env=clean_environment(folder, {"TOKEN": "x", **settings}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_says_what_it_has_found(tmp_path: Path, audit: AuditLog, database_url: str | None) -> None:
    settings = {"DATA_DIR": tmp_path / "data", **({"DATABASE_URL": database_url} if database_url else {})}
    intact = verify(tmp_path, **settings)
    assert (intact.returncode, intact.stderr) == (0, "")
    assert intact.stdout.startswith("5 events are intact.") and audit.verify().last_hash in intact.stdout
    if database_url is None:
        with sqlite3.connect(tmp_path / "data" / "hearth.db") as file:
            file.execute("DROP TRIGGER audit_update")
            file.execute("UPDATE audit SET target = '\"else\"' WHERE number = 2")
        file.close()
        broken = verify(tmp_path, **settings)
        assert (broken.returncode, broken.stderr) == (1, "")
        assert broken.stdout.startswith("Event 2 is broken: its hash does not fit")


def test_the_command_makes_no_database(tmp_path: Path) -> None:
    absent = verify(tmp_path, DATA_DIR=tmp_path / "absent")
    assert absent.returncode == 2
    assert "HEARTH_DATA_DIR" in absent.stderr
    assert not (tmp_path / "absent").exists()


# What a server records


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    shared = start(tmp_path_factory.mktemp("lab") / "server", REPOSITORY, {})
    try:
        shared.wait_until_ready()
        yield shared
    finally:
        end(shared)


def events(server: Server, **query: str | int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.session.get("/audit", params=query).json()["events"]
    return found


def test_what_people_change_is_recorded(lab: Server) -> None:
    session = lab.session
    assert [(one["actor"], one["act"], one["target"]) for one in reversed(events(lab))] == [
        ("server", "code.reloaded", "main"),
        ("server", "model.loaded", "embedded"),
    ]
    first = str(events(lab, act="code.reloaded")[0]["details"]["generation"])
    last = int(events(lab, limit=1)[0]["number"])

    session.put("/workspaces/alice/files/tools/shout.py", data=SHOUT.encode())
    session.post("/reload_modules", json={"workspace": "alice"})
    session.post("/reload_modules", json={"workspace": "alice"})  # nothing has changed
    session.post("/reload_modules", json={"workspace": "alice", "dry_run": True, "generation": first})
    mine = session.get("/generations", params={"workspace": "alice"}).json()["live"]
    session.put("/workspaces/alice/files/tools/shout.py", data=SHOUT.replace("upper", "lower").encode())
    session.post("/reload_modules", json={"workspace": "alice"})
    assert session.post("/reload_modules", json={"workspace": "alice", "generation": mine}).status_code == 200
    session.delete("/workspaces/alice/files/tools/shout.py")
    session.delete("/workspaces/alice/files/tools/absent.py")  # 404
    session.post("/run_script", json={"question": "What is 6 * 7?", "session_id": "monday"})
    session.delete("/sessions/monday")
    session.post("/collections/papers/documents", json={"text": "Mice sleep.", "name": "mice"})
    document = session.get("/collections/papers/documents").json()["documents"][0]["document_id"]
    session.delete(f"/collections/papers/documents/{document}")
    session.delete("/collections/papers")
    session.put("/quotas/alice", json={"runs_at_once": 3})
    session.post("/unload_model", json={})
    session.post("/load_model", json={"model": "embedded"})
    session.post("/load_model", json={"model": "embedded"})  # it is loaded already

    recorded = [one for one in reversed(events(lab)) if int(one["number"]) > last]
    assert {one["actor"] for one in recorded} == {"start token"}
    assert [(one["act"], one["target"]) for one in recorded] == [
        ("file.written", "alice/tools/shout.py"),
        ("code.reloaded", "alice"),
        ("file.written", "alice/tools/shout.py"),
        ("code.reloaded", "alice"),
        ("code.rolled_back", "alice"),
        ("file.deleted", "alice/tools/shout.py"),
        ("session.deleted", "main/monday"),
        ("document.deleted", f"main/papers/{document}"),
        ("collection.deleted", "main/papers"),
        ("quota.changed", "alice"),
        ("model.unloaded", "all"),
        ("model.loaded", "embedded"),
    ]
    assert recorded[1]["details"] == {"generation": mine, "previous": None}
    assert recorded[4]["details"]["generation"] == mine


def test_pages_and_filters(lab: Server) -> None:
    session = lab.session
    for number in range(3):
        session.put(f"/workspaces/bob/files/tools/n{number}.py", data=b"")
    wanted: dict[str, str | int] = {"limit": 2, "act": "file.written"}
    page = session.get("/audit", params=wanted).json()
    assert [one["target"] for one in page["events"]] == ["bob/tools/n2.py", "bob/tools/n1.py"]
    rest = session.get("/audit", params={**wanted, "before": page["next"]}).json()
    assert rest["events"][0]["target"] == "bob/tools/n0.py"
    for bad in ("limit=0", "limit=x", "before=0", "actor=", "unknown=1", "before=%00"):
        assert session.get(f"/audit?{bad}").status_code == 422, bad


def test_people_s_code_does_not_become_an_actor(lab: Server) -> None:
    session = lab.session
    session.put("/workspaces/eve/files/tools/shout.py", data=SHOUT.encode())
    # Its worker is asked by a run, on a thread that no request has.
    session.post("/run_script", json={"question": "Use shout on hello", "workspace": "eve"})
    [reloaded] = [one for one in events(lab, act="code.reloaded") if one["target"] == "eve"]
    assert reloaded["actor"] == "server"


def test_the_log_of_a_server_is_intact_and_its_failure_shows(lab: Server, tmp_path: Path) -> None:
    data = lab.output_file.parent / "data"
    assert verify(tmp_path, DATA_DIR=data).returncode == 0
    with sqlite3.connect(data / "hearth.db") as file:
        file.execute("ALTER TABLE audit RENAME TO gone")
    try:
        assert lab.session.put("/workspaces/bob/files/tools/last.py", data=b"").status_code == 201
        assert "audit" in lab.health()["store_error"]["message"]
        assert "hearth_audit_failures_total 1.0" in lab.session.get("/metrics").text
        assert "bob/tools/last.py" in lab.output
        assert lab.session.get("/audit").status_code == 503
    finally:
        with sqlite3.connect(data / "hearth.db") as file:
            file.execute("ALTER TABLE gone RENAME TO audit")
        file.close()


def test_postgres_keeps_the_triggers_in_a_backup(postgres: Postgres, tmp_path: Path) -> None:
    if os.system("command -v pg_dump > /dev/null") != 0:
        pytest.skip("pg_dump is not installed")
    url = postgres.database()
    database = Database(tmp_path, url)
    AuditLog(database).record("alice", "test")
    database.close()
    dump = subprocess.run(["pg_dump", "--schema-only", url], capture_output=True, text=True, check=True).stdout
    assert "audit_change" in dump and "audit_truncate" in dump
