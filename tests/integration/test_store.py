"""The store: what is kept, in both kinds of database, and what happens when it can't be."""

import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import Connection, text

from server.errors import (
    GenerationInUseError,
    GenerationNotFoundError,
    RunNotFoundError,
    StoreError,
    StoreRefusedError,
)
from server.reload import Snapshot
from server.store import Database, Exchange, GenerationStore, RunStore, SessionStore
from server.store.group_writer import GroupWriter
from server.store.runs import RunFilter
from server.store.schema import LATEST
from server.store.tables import METADATA
from tests.support.full_disk import full_disk
from tests.support.postgres_process import Postgres
from tests.support.server_process import REPOSITORY, clean_environment

FILES = {"model.py": b"recipe", "tools/x.py": b"one", "tools/\udcff.py": b"\xff\x00"}
HASH = "aaaa11112222"
OTHER = "aaaa33334444"


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    made = Database(tmp_path / "data", database_url)
    yield made
    made.close()


@pytest.fixture
def generations(database: Database) -> GenerationStore:
    return GenerationStore(database)


@pytest.fixture
def runs(database: Database) -> RunStore:
    return RunStore(database)


def record(run: str, generation: str | None, workspace: str = "main") -> dict[str, Any]:
    return {"run_id": run, "workspace": workspace, "generation": generation, "question": "wärum?"}


def blobs(database: Database) -> int:
    with database.reading() as connection:
        count: int = connection.execute(text("SELECT count(*) FROM blob")).scalar_one()
    return count


def test_files_come_back_as_they_were(generations: GenerationStore) -> None:
    generations.record_live("main", HASH, FILES)
    assert generations.files(HASH) == FILES
    assert generations.find("aaaa") == generations.find(HASH) == HASH


@pytest.mark.parametrize("prefix", ["", "a", "aaa", "bbbb", HASH + "0", "%", "____"])
def test_what_is_no_generation(generations: GenerationStore, prefix: str) -> None:
    generations.record_live("main", HASH, FILES)
    with pytest.raises(GenerationNotFoundError):
        generations.find(prefix)


def test_digits_that_two_generations_begin_with(generations: GenerationStore) -> None:
    generations.record_live("main", HASH, FILES)
    generations.record_live("main", OTHER, FILES)
    with pytest.raises(GenerationNotFoundError, match=f"{HASH}, {OTHER}"):
        generations.find("aaaa")
    assert generations.find("aaaa3") == OTHER


def test_the_history_of_a_workspace(generations: GenerationStore, runs: RunStore) -> None:
    for generation in (HASH, HASH, OTHER, HASH):
        generations.record_live("alice", generation, FILES)
    generations.record_live("bob", OTHER, FILES)
    runs.add(record("r1", HASH), "main")
    history = generations.history("alice", 10)
    assert [(one.generation, one.runs) for one in history] == [(HASH, 1), (OTHER, 0), (HASH, 1)]
    assert history[0].time >= history[1].time >= history[2].time > 0
    assert [one.changed for one in history] == [[], [], None]
    assert [one.generation for one in generations.history("alice", 1)] == [HASH]
    assert generations.history("carol", 10) == []


def test_the_same_bytes_are_kept_once_and_go_with_the_last_that_has_them(
    database: Database, generations: GenerationStore
) -> None:
    generations.record_live("main", HASH, FILES)
    generations.record_live("main", OTHER, {**FILES, "tools/x.py": b"two"})
    assert blobs(database) == len(FILES) + 1
    generations.delete(HASH)
    assert blobs(database) == len(FILES)
    assert generations.files(OTHER)["model.py"] == b"recipe"
    assert [one.generation for one in generations.history("main", 10)] == [OTHER]


def test_a_generation_that_a_run_names_is_kept(generations: GenerationStore, runs: RunStore) -> None:
    generations.record_live("main", HASH, FILES)
    runs.add(record("r1", HASH), "main")
    with pytest.raises(GenerationInUseError, match="1 recorded runs"):
        generations.delete(HASH)
    assert generations.files(HASH) == FILES


def test_what_may_be_live_elsewhere_is_kept(generations: GenerationStore) -> None:
    generations.record_live("alice", HASH, FILES)
    generations.record_live("bob", OTHER, FILES)
    with pytest.raises(GenerationInUseError, match="was the last live one of alice"):
        generations.delete(HASH)
    generations.record_live("alice", OTHER, FILES)
    generations.delete(HASH)


def test_runs_come_back_the_latest_first(generations: GenerationStore, runs: RunStore) -> None:
    generations.record_live("main", HASH, FILES)
    kept = [record("r1", HASH), record("r2", None, "alice"), record("r3", HASH)]
    for one in kept:
        runs.add(one, one["workspace"])
    assert runs.latest(RunFilter(), 10) == kept[::-1]
    assert runs.latest(RunFilter("alice"), 10) == [kept[1]]
    assert runs.latest(RunFilter(), 1) == [kept[2]]
    assert runs.get("r2") == kept[1]
    with pytest.raises(RunNotFoundError):
        runs.get("r4")


def test_what_is_kept_with_a_record_is_kept_with_it_or_not_at_all(database: Database, runs: RunStore) -> None:
    sessions = SessionStore(database)
    for run in ("r1", "r2"):
        runs.add(record(run, None), "main", [sessions.adding("main", "monday", "main", turn(run))])
    with pytest.raises(StoreError):
        runs.add(record("r3", HASH), "main", [sessions.adding("main", "monday", "main", turn("r3"))])
    with pytest.raises(StoreError):
        runs.add(record("r4", None), "main", [sessions.adding("main", "monday", "main", turn("nobody's"))])
    assert [(one.number, one.run) for one in sessions.exchanges("main", "monday")] == [(1, "r1"), (2, "r2")]
    assert [one["run_id"] for one in runs.latest(RunFilter(), 10)] == ["r2", "r1"]


def turn(run: str) -> Exchange:
    return Exchange(0, "What is 37 * 52?", "1924", run, 5.0, {"title": None, "found": "1924"})


def test_a_note_that_somebody_has_changed_is_not_written_over(database: Database, runs: RunStore) -> None:
    sessions, was = SessionStore(database), turn("r1").entry
    runs.add(record("r1", None), "main", [sessions.adding("main", "monday", "main", turn("r1"))])
    assert was is not None
    sessions.improve_entry("r1", was, {**was, "title": "37 * 52"})
    assert sessions.get("main", "monday").title == "37 * 52"
    sessions.replace_entries("main", "monday", {1: {**was, "title": "mine"}})
    sessions.improve_entry("r1", was, {**was, "title": "a model's"})
    assert sessions.get("main", "monday").title == "mine"


def test_a_run_of_code_that_was_never_kept_is_refused(runs: RunStore) -> None:
    with pytest.raises(StoreError):
        runs.add(record("r1", HASH), "main")
    assert runs.latest(RunFilter(), 10) == []


def test_many_threads_and_two_servers_on_one_database(tmp_path: Path, database_url: str | None) -> None:
    both = [Database(tmp_path, database_url), Database(tmp_path, database_url)]

    def work(number: int) -> None:
        store, runs = GenerationStore(both[number % 2]), RunStore(both[number % 2])
        for turn in range(10):
            files = {"model.py": f"{number} {turn}".encode()}
            generation = Snapshot(files).hash
            store.record_live(f"w{number}", generation, files)
            runs.add(record(f"{number}-{turn}", generation), "main")
            assert store.files(generation) == files
            assert runs.get(f"{number}-{turn}")["generation"] == generation

    at_once(8, work)
    assert len(RunStore(both[0]).latest(RunFilter(), 1000)) == 80
    assert all(len(GenerationStore(both[1]).history(f"w{number}", 100)) == 10 for number in range(8))
    for database in both:
        database.close()


def at_once(threads: int, work: Callable[[int], None]) -> None:
    """Do that with each number on a thread of its own, and raise what goes wrong."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def test_two_servers_that_start_at_once_on_an_empty_database(tmp_path: Path, database_url: str | None) -> None:
    def start(number: int) -> None:
        Database(tmp_path / "data", database_url).close()

    at_once(4, start)


def test_what_is_written_at_once_shares_transactions_in_the_order_in_which_it_came(
    database: Database,
) -> None:
    order: list[tuple[int, Connection]] = []

    def noted(number: int, connection: Connection) -> None:
        order.append((number, connection))

    def more_wait_than(number: int) -> bool:
        return len(database._group._waiting) > number

    with busy(database) as go_on, ThreadPoolExecutor(10) as pool:
        for number in range(10):
            pool.submit(database.write, partial(noted, number))
            until(partial(more_wait_than, number))
        go_on.set()
    assert [number for number, _ in order] == list(range(10))
    assert len({id(connection) for _, connection in order}) == 1


@contextmanager
def busy(database: Database) -> Iterator[threading.Event]:
    """Within it the writer is at work, until the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def work(_: Connection) -> None:
        begun.set()
        go_on.wait(60)

    writing = threading.Thread(target=database.write, args=(work,))
    writing.start()
    assert begun.wait(60)
    yield go_on
    writing.join(60)


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_record_that_is_refused_takes_no_other_with_it(generations: GenerationStore, runs: RunStore) -> None:
    generations.record_live("main", HASH, FILES)

    def work(number: int) -> None:
        if number % 4:
            runs.add(record(f"r{number}", HASH), "main")
        else:
            with pytest.raises(StoreError):
                runs.add(record(f"r{number}", OTHER), "main")

    at_once(16, work)
    assert {one["run_id"] for one in runs.latest(RunFilter(), 100)} == {
        f"r{number}" for number in range(16) if number % 4
    }


def test_nobody_waits_for_ever_for_a_database_that_does_not_answer() -> None:
    answers = threading.Event()

    @contextmanager
    def transaction() -> Iterator[Any]:
        answers.wait(60)
        yield None

    writer = GroupWriter(transaction, patience=0.2)
    written: list[str] = []
    for _ in range(2):
        with pytest.raises(StoreError, match="is not saved"):
            writer.write(lambda _: written.append("too late"))
    answers.set()
    writer.write(lambda _: written.append("later"))
    writer.close()
    assert written == ["later"]


def test_of_what_is_being_written_nobody_says_that_it_is_not_kept() -> None:
    answers, kept = threading.Event(), []

    def change(_: Any) -> None:
        answers.wait(60)
        kept.append("first")

    writer = GroupWriter(lambda: nullcontext(cast(Any, None)), patience=0.2)
    with pytest.raises(StoreError, match="may be saved later, or not"):
        writer.write(change)
    with pytest.raises(StoreError, match="is not saved"):
        writer.write(lambda _: kept.append("second"))
    answers.set()
    writer.write(lambda _: kept.append("third"))
    writer.close()
    assert kept == ["first", "third"]


@pytest.mark.parametrize("error", [StoreError, StoreRefusedError])
def test_who_no_longer_waits_is_in_nobody_s_way(error: type[StoreError]) -> None:
    answers, kept = threading.Event(), []

    def refused(_: Any) -> None:
        raise error("no")

    @contextmanager
    def transaction() -> Iterator[Any]:
        answers.wait(60)
        yield None

    writer = GroupWriter(transaction, patience=0.2)
    for _ in range(2):
        with pytest.raises(StoreError, match="is not saved"):
            writer.write(lambda _: kept.append("given up"))
    answers.set()
    with pytest.raises(error, match="no"):
        writer.write(refused)
    writer.write(lambda _: kept.append("later"))
    writer.close()
    assert kept == ["later"]


def test_nobody_reads_for_ever_where_somebody_has_locked_a_table(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.database()
    with closing(Database(tmp_path, url)) as database:
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreError, match="timeout"):
                RunStore(database).latest(RunFilter(), 10)
            other.rollback()
        assert RunStore(database).latest(RunFilter(), 10) == []


def test_what_waits_is_kept_at_the_end_and_nothing_later_is_taken(tmp_path: Path, database_url: str | None) -> None:
    database = Database(tmp_path, database_url)
    runs = RunStore(database)
    with busy(database) as go_on, ThreadPoolExecutor(5) as pool:
        adding = [pool.submit(runs.add, record(f"r{number}", None), "main") for number in range(4)]
        until(lambda: len(database._group._waiting) == 4)
        closing = pool.submit(database.close)
        until(lambda: database._group._closed)
        go_on.set()
        for one in [*adding, closing]:
            one.result(60)
    with pytest.raises(StoreError, match="has ended"):
        runs.add(record("late", None), "main")
    again = Database(tmp_path, database_url)
    assert len(RunStore(again).latest(RunFilter(), 100)) == 4
    again.close()


def test_a_transaction_that_fails_leaves_nothing(database: Database, generations: GenerationStore) -> None:
    with pytest.raises(ZeroDivisionError), database.writing() as connection:
        connection.execute(text("INSERT INTO generation VALUES ('x')"))
        _ = 1 / 0
    with pytest.raises(GenerationNotFoundError):
        generations.files("x")
    generations.record_live("main", HASH, FILES)
    assert generations.files(HASH) == FILES


KILLED = """
    import sys
    from pathlib import Path
    from server.store import Database, GenerationStore

    store = GenerationStore(Database(Path(sys.argv[1]), sys.argv[2] or None))
    print("begun", flush=True)
    for turn in range(100_000):
        files = {f"tools/{number}.py": f"{turn} {number}".encode() for number in range(20)}
        store.record_live("main", f"{turn:012}", files)
        print(turn, flush=True)
"""


def test_a_server_killed_while_it_writes_leaves_whole_generations(tmp_path: Path, database_url: str | None) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), database_url or ""],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(30)]
        process.kill()
        last = int((lines + process.stdout.readlines())[-1])
        process.stdout.close()
        process.wait()
        database = Database(tmp_path, database_url)
        store = GenerationStore(database)
        history = store.history("main", 1000)
        assert history and int(history[0].generation) >= last
        for one in history:
            turn = int(one.generation)
            assert store.files(one.generation) == {
                f"tools/{number}.py": f"{turn} {number}".encode() for number in range(20)
            }
        for generation in {one.generation for one in history[1:]} - {history[0].generation}:
            store.delete(generation)
        database.close()


def test_the_migrations_make_the_tables_that_queries_name(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "hearth_version"})
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == LATEST


def test_a_file_of_the_time_before_migrations_is_taken_over_whole(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "hearth.db") as old:
        old.executescript((REPOSITORY / "tests" / "support" / "before_migrations.sql").read_text())
    old.close()
    database = Database(tmp_path)
    generations, runs = GenerationStore(database), RunStore(database)
    assert generations.files(HASH) == FILES
    assert [(one.generation, one.time, one.runs, one.changed) for one in generations.history("main", 10)] == [
        (OTHER, 1762934401.25, 0, ["tools/x.py"]),
        (HASH, 1762934400.5, 1, None),
    ]
    assert [one["run_id"] for one in runs.latest(RunFilter(), 10)] == ["r2", "r1"]
    assert runs.get("r1") == record("r1", HASH)
    assert [one["run_id"] for one in runs.latest(RunFilter(text="WÄRUM"), 10)] == ["r2", "r1"]
    # And it is one like any other.
    runs.add(record("r3", OTHER), "main")
    with pytest.raises(StoreError):
        runs.add(record("r4", "bbbb11112222"), "main")
    with pytest.raises(GenerationInUseError):
        generations.delete(OTHER)
    database.close()
    again = Database(tmp_path)
    assert [one["run_id"] for one in RunStore(again).latest(RunFilter(), 10)] == ["r3", "r2", "r1"]
    again.close()


def test_a_database_of_a_newer_hearth_is_left_alone(tmp_path: Path, database_url: str | None) -> None:
    database = Database(tmp_path, database_url)
    with database.writing() as connection:
        connection.execute(text("UPDATE hearth_version SET version_num='99'"))
    database.close()
    with pytest.raises(StoreError, match=rf"newer Hearth \(format 99, this one knows {LATEST}\)"):
        Database(tmp_path, database_url)


def test_a_full_disk_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path)
    generations, runs = GenerationStore(database), RunStore(database)
    generations.record_live("main", HASH, FILES)
    with full_disk(os.getpid(), Path(database.name)):
        with pytest.raises(StoreError, match=re.escape(str(tmp_path))):
            generations.record_live("main", OTHER, {"tools/big.py": bytes(100_000)})
        with pytest.raises(StoreError, match=re.escape(str(tmp_path))):
            runs.add(record("r1", HASH), "main")
        failure = database.failure
        assert failure is not None
        assert generations.files(HASH) == FILES
    assert [one.generation for one in generations.history("main", 10)] == [HASH]
    runs.add(record("r1", HASH), "main")
    assert database.failure is None and [one["run_id"] for one in runs.latest(RunFilter(), 10)] == ["r1"]
    database.close()


@pytest.mark.parametrize("in_the_way", ["a file for the folder", "a folder for the file"])
def test_a_data_folder_that_can_not_be_used_stops_the_start(tmp_path: Path, in_the_way: str) -> None:
    folder = tmp_path / "data"
    if in_the_way == "a file for the folder":
        folder.write_text("")
    else:
        (folder / "hearth.db").mkdir(parents=True)
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "app.py")],
        env=clean_environment(tmp_path, {"HOST": "127.0.0.1", "PORT": 0, "DATA_DIR": folder}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "HEARTH_DATA_DIR" in ended.stderr and str(folder) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_others_on_the_machine_can_not_read_it(tmp_path: Path) -> None:
    Database(tmp_path / "data").close()
    assert os.stat(tmp_path / "data").st_mode & 0o077 == 0


def test_a_record_that_can_not_be_read_hides_no_other(tmp_path: Path) -> None:
    database = Database(tmp_path)
    runs = RunStore(database)
    for number in range(4):
        runs.add(record(f"r{number}", None), "main")
    with closing(sqlite3.connect(tmp_path / "hearth.db")) as broken, broken:
        broken.execute("UPDATE run SET summary = NULL, record = ? WHERE id = 'r1'", ['{"run_id": "r1'])
        broken.execute("UPDATE run SET summary = CAST(x'ff7b' AS TEXT) WHERE id = 'r2'")
    assert [one["run_id"] for one in runs.latest(RunFilter(), 10)] == ["r3", "r0"]
    with pytest.raises(StoreError, match="can't be read"):
        runs.get("r1")
    database.close()


def test_a_list_has_summaries(runs: RunStore) -> None:
    long = {**record("r1", None), "answer": "x" * 100_000, "history": [{"role": "user", "content": "x"}]}
    long["steps"] = [{"thought": "y" * 100_000, "tool": "none", "input": {}, "observation": "z"}] * 100
    runs.add(long, "main")
    [listed] = runs.latest(RunFilter(), 10)
    assert runs.get("r1") == long
    assert len(str(listed)) < 100_000 and "history" not in listed and len(listed["steps"]) == 32
    assert "99,000 characters left out" in listed["answer"]


def test_a_writer_whose_thread_can_not_start_tries_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = Database(tmp_path)
    runs, starts = RunStore(database), threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (_ for _ in ()).throw(RuntimeError("no thread")))
    with pytest.raises(StoreError, match="no thread"):
        runs.add(record("r1", None), "main")
    monkeypatch.setattr(threading.Thread, "start", starts)
    runs.add(record("r1", None), "main")
    database.close()
