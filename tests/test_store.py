"""The data folder: what is kept, and what happens when it can't be."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.errors import GenerationInUseError, GenerationNotFoundError, RunNotFoundError, StoreError
from server.reload import Snapshot
from server.store import Database, GenerationStore, RunStore
from tests.server_process import REPOSITORY, clean_environment

FILES = {"model.py": b"recipe", "tools/x.py": b"one", "tools/\udcff.py": b"\xff\x00"}
HASH = "aaaa11112222"
OTHER = "aaaa33334444"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "data")
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
    with database.transaction() as connection:
        count: int = connection.execute("SELECT count(*) FROM blob").fetchone()[0]
    return count


def test_files_come_back_as_they_were(generations: GenerationStore) -> None:
    generations.take_over("main", HASH, FILES)
    assert generations.files(HASH) == FILES
    assert generations.find("aaaa") == generations.find(HASH) == HASH


@pytest.mark.parametrize("prefix", ["", "a", "aaa", "bbbb", HASH + "0", "%", "____"])
def test_what_is_no_generation(generations: GenerationStore, prefix: str) -> None:
    generations.take_over("main", HASH, FILES)
    with pytest.raises(GenerationNotFoundError):
        generations.find(prefix)


def test_digits_that_two_generations_begin_with(generations: GenerationStore) -> None:
    generations.take_over("main", HASH, FILES)
    generations.take_over("main", OTHER, FILES)
    with pytest.raises(GenerationNotFoundError, match=f"{HASH}, {OTHER}"):
        generations.find("aaaa")
    assert generations.find("aaaa3") == OTHER


def test_the_history_of_a_workspace(generations: GenerationStore, runs: RunStore) -> None:
    for generation in (HASH, HASH, OTHER, HASH):
        generations.take_over("alice", generation, FILES)
    generations.take_over("bob", OTHER, FILES)
    runs.add(record("r1", HASH))
    history = generations.history("alice", 10)
    assert [(one.generation, one.runs) for one in history] == [(HASH, 1), (OTHER, 0), (HASH, 1)]
    assert history[0].time >= history[1].time >= history[2].time > 0
    assert [one.changed for one in history] == [[], [], None]
    assert [one.generation for one in generations.history("alice", 1)] == [HASH]
    assert generations.history("carol", 10) == []


def test_the_same_bytes_are_kept_once_and_go_with_the_last_that_has_them(
    database: Database, generations: GenerationStore
) -> None:
    generations.take_over("main", HASH, FILES)
    generations.take_over("main", OTHER, {**FILES, "tools/x.py": b"two"})
    assert blobs(database) == len(FILES) + 1
    generations.delete(HASH)
    assert blobs(database) == len(FILES)
    assert generations.files(OTHER)["model.py"] == b"recipe"
    assert [one.generation for one in generations.history("main", 10)] == [OTHER]


def test_a_generation_that_a_run_names_is_kept(generations: GenerationStore, runs: RunStore) -> None:
    generations.take_over("main", HASH, FILES)
    runs.add(record("r1", HASH))
    with pytest.raises(GenerationInUseError, match="1 recorded runs"):
        generations.delete(HASH)
    assert generations.files(HASH) == FILES


def test_runs_come_back_the_latest_first(generations: GenerationStore, runs: RunStore) -> None:
    generations.take_over("main", HASH, FILES)
    kept = [record("r1", HASH), record("r2", None, "alice"), record("r3", HASH)]
    for one in kept:
        runs.add(one)
    assert runs.latest(None, 10) == kept[::-1]
    assert runs.latest("alice", 10) == [kept[1]]
    assert runs.latest(None, 1) == [kept[2]]
    assert runs.get("r2") == kept[1]
    with pytest.raises(RunNotFoundError):
        runs.get("r4")


def test_a_run_of_code_that_was_never_kept_is_refused(runs: RunStore) -> None:
    with pytest.raises(StoreError):
        runs.add(record("r1", HASH))
    assert runs.latest(None, 10) == []


def test_many_threads_and_two_servers_on_one_folder(tmp_path: Path) -> None:
    both = [Database(tmp_path), Database(tmp_path)]

    def work(number: int) -> None:
        store, runs = GenerationStore(both[number % 2]), RunStore(both[number % 2])
        for turn in range(10):
            files = {"model.py": f"{number} {turn}".encode()}
            generation = Snapshot(files).hash
            store.take_over(f"w{number}", generation, files)
            runs.add(record(f"{number}-{turn}", generation))
            assert store.files(generation) == files

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(RunStore(both[0]).latest(None, 1000)) == 80
    assert all(len(GenerationStore(both[1]).history(f"w{number}", 100)) == 10 for number in range(8))
    for database in both:
        database.close()


def test_a_transaction_that_fails_leaves_nothing(database: Database, generations: GenerationStore) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.execute("INSERT INTO generation VALUES ('x')")
        _ = 1 / 0
    with pytest.raises(GenerationNotFoundError):
        generations.files("x")
    generations.take_over("main", HASH, FILES)
    assert generations.files(HASH) == FILES


KILLED = """
    import os, sys
    from pathlib import Path
    from server.store import Database, GenerationStore

    store = GenerationStore(Database(Path(sys.argv[1])))
    print("begun", flush=True)
    for turn in range(100_000):
        files = {f"tools/{number}.py": f"{turn} {number}".encode() for number in range(20)}
        store.take_over("main", f"{turn:012}", files)
        print(turn, flush=True)
"""


def test_a_server_killed_while_it_writes_leaves_whole_generations(tmp_path: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
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
        database = Database(tmp_path)
        store = GenerationStore(database)
        history = store.history("main", 1000)
        assert history and int(history[0].generation) >= last
        for one in history:
            turn = int(one.generation)
            assert store.files(one.generation) == {
                f"tools/{number}.py": f"{turn} {number}".encode() for number in range(20)
            }
        for one in history:
            store.delete(one.generation)
        database.close()


def test_a_file_of_a_newer_hearth_is_left_alone(tmp_path: Path) -> None:
    Database(tmp_path).close()
    with sqlite3.connect(tmp_path / "hearth.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="newer Hearth"):
        Database(tmp_path)


def test_a_full_disk_is_told_and_loses_nothing(database: Database, generations: GenerationStore) -> None:
    generations.take_over("main", HASH, FILES)
    with database.transaction() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    # SQLite's own bound: what is written past it fails as it does on a full disk.
    database._connection.execute(f"PRAGMA max_page_count={pages + 1}")
    with pytest.raises(StoreError, match="full"):
        generations.take_over("main", OTHER, {"tools/big.py": bytes(10_000_000)})
    assert generations.files(HASH) == FILES
    assert [one.generation for one in generations.history("main", 10)] == [HASH]


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


def test_others_on_the_machine_can_not_read_it(database: Database) -> None:
    assert os.stat(database.path.parent).st_mode & 0o077 == 0
