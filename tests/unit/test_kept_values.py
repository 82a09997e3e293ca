"""Values that are handed on from worker to worker."""

import dataclasses
import importlib
import json
import logging
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest

from server.errors import StoreError
from server.sdk import saved_values
from server.sdk.saved_values import KeepError, KeptReport, KeptValues, keep, saved_file_name
from server.workers import kept_values
from server.workers.kept_values import InvalidReportError, KeptStore, Trial
from tests.support.server_process import REPOSITORY

LARGE = 50_000  # float64s: more bytes than stay in the pickled stream


def never() -> Any:
    raise AssertionError("the factory was called")


def a_list() -> list[int]:
    return [1, 2]


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.fixture
def store(tmp_path: Path) -> KeptStore:
    return KeptStore(tmp_path / "kept" / "main")


def on_trial(store: KeptStore) -> tuple[KeptValues, Trial]:
    """A new worker, whose generation is not live yet."""
    trial = store.trial()
    return KeptValues(store.folder, trial.report, trial.drafts), trial


def worker(store: KeptStore) -> KeptValues:
    """A new worker of the live generation."""
    values, trial = on_trial(store)
    trial.commit()
    return values


def names(store: KeptStore, kind: str = "saved") -> list[str]:
    return [one.name for one in store.values() if one.kind == kind]


def files(store: KeptStore) -> list[str]:
    """The kinds of files in the folder."""
    return sorted(path.suffix for path in store.folder.iterdir())


def value_file(store: KeptStore, name: str = "x") -> Path:
    return store.folder / saved_file_name(name)


# In one worker


def test_a_value_is_built_once_and_is_one_object() -> None:
    values, built = KeptValues(None, lambda report: None, "d"), []

    def build() -> list[int]:
        built.append(1)
        return []

    first = values.get("x", build)
    assert all(values.get("x", never) is first for _ in range(3))
    assert values.get("none", lambda: None) is None and values.get("none", never) is None
    assert built == [1]


def test_many_at_once_build_it_once(store: KeptStore) -> None:
    values, built, started = worker(store), [], threading.Barrier(16)

    def build() -> object:
        built.append(1)
        time.sleep(0.05)
        return Point(1)

    def work(_: int) -> object:
        started.wait()
        return values.get("x", build)

    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(work, range(16)))
    assert len(found) == len(built) == 1
    assert names(store) == ["x"]


def test_a_factory_that_fails_saves_nothing_and_the_next_caller_builds(store: KeptStore) -> None:
    values, building = worker(store), threading.Event()

    def fail() -> object:
        building.set()
        time.sleep(0.05)
        raise ZeroDivisionError

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(values.get, "x", fail)
        assert building.wait(30)
        waiting = pool.submit(values.get, "x", a_list)
        with pytest.raises(ZeroDivisionError):
            failing.result()
        assert waiting.result() == [1, 2]
    assert files(store) == [".value"]


def test_a_factory_may_use_other_values_but_not_its_own() -> None:
    values = KeptValues(None, lambda report: None, "d")
    with pytest.raises(KeepError, match=r"keep\('x'\) is called by its own factory"):
        values.get("x", lambda: values.get("x", never))
    assert values.get("x", lambda: values.get("y", a_list)) == [1, 2]


def test_factories_that_wait_for_each_other_are_refused() -> None:
    values, both = KeptValues(None, lambda report: None, "d"), threading.Barrier(2)

    def build(other: str) -> object:
        both.wait(30)
        return values.get(other, a_list)

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(values.get, "x", lambda: build("y")), pool.submit(values.get, "y", lambda: build("x"))]
        outcomes = [call.exception(30) for call in calls]
    # The one that would close the circle is refused. The other one then builds what it waited for.
    [refused] = [one for one in outcomes if one is not None]
    assert isinstance(refused, KeepError) and "waits for this one" in str(refused)


def test_a_value_is_dropped_also_while_it_is_being_built(store: KeptStore) -> None:
    values, building, may_end = worker(store), threading.Event(), threading.Event()

    def build() -> str:
        building.set()
        assert may_end.wait(30)
        return "late"

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(values.get, "x", build)
        assert building.wait(30)
        assert values.drop("x") is True
        assert values.get("x", lambda: "new") == "new"
        may_end.set()
        assert late.result() == "late"
    assert values.get("x", never) == worker(store).get("x", never) == "new"
    assert files(store) == [".value"]
    assert values.drop("x") is True and values.drop("x") is False


@pytest.mark.parametrize("name", ["", "x" * 201, 7, None, "half a pair \ud83d"])
def test_names_that_are_refused(name: Any) -> None:
    with pytest.raises(KeepError, match="a name"):
        KeptValues(None, lambda report: None, "d").get(name, never)


@pytest.mark.parametrize("name", ["x" * 200, "\U0001f600" * 200, "\0\n" * 100, "../../etc/passwd", "a/b", '"', "."])
def test_any_other_text_is_a_name(store: KeptStore, name: str) -> None:
    worker(store).get(name, a_list)
    assert worker(store).get(name, never) == [1, 2]
    assert names(store) == [name] and files(store) == [".value"]
    assert store.drop(name) is True and files(store) == []


# From worker to worker


def test_the_next_worker_loads_what_was_built(store: KeptStore) -> None:
    before = time.time()
    worker(store).get("x", a_list)
    worker(store).get("point", lambda: Point(3))
    assert worker(store).get("x", never) == [1, 2]
    assert worker(store).get("point", never).x == 3
    point, x = store.values()
    assert (point.name, point.type, x.name, x.type, x.kind) == ("point", "Point", "x", "list", "saved")
    assert x.bytes == value_file(store).stat().st_size and before <= x.built <= time.time()


def test_a_change_is_seen_in_its_worker_only(store: KeptStore) -> None:
    values = worker(store)
    values.get("x", a_list).append(3)
    assert values.get("x", never) == [1, 2, 3]
    assert worker(store).get("x", never) == [1, 2]


def test_arrays_are_mapped_and_changes_are_not_written_through(store: KeptStore) -> None:
    built = worker(store).get(
        "x", lambda: {"a": numpy.arange(LARGE), "b": numpy.ones((300, 500)).T, "small": numpy.ones(3)}
    )
    first, second = worker(store).get("x", never), worker(store).get("x", never)
    for name, array in built.items():
        numpy.testing.assert_array_equal(first[name], array)
        assert first[name].flags.writeable
        assert name == "small" or first[name].ctypes.data % 4096 == 0
    first["a"][:] = 7
    first["small"][:] = 7
    assert second["a"][5] == worker(store).get("x", never)["a"][5] == 5
    assert second["small"][0] == 1
    assert str(value_file(store)) in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_a_read_only_array_stays_read_only(store: KeptStore) -> None:
    def build() -> Any:
        array = numpy.arange(LARGE)
        array.flags.writeable = False
        return array

    worker(store).get("x", build)
    assert not worker(store).get("x", never).flags.writeable


def test_a_mapping_lasts_as_long_as_its_arrays(store: KeptStore) -> None:
    worker(store).get("x", lambda: numpy.arange(LARGE))
    values = worker(store)
    row = values.get("x", never)[10:20]
    assert store.drop("x") and values.drop("x")
    worker(store).get("x", lambda: numpy.zeros(LARGE))
    assert row.tolist() == list(range(10, 20))
    del row
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(value_file(store)) not in maps


def test_200_mb_are_mapped_at_once(store: KeptStore, capsys: pytest.CaptureFixture[str]) -> None:
    def timed(factory: Callable[[], Any]) -> tuple[Any, float]:
        values, start = worker(store), time.perf_counter()
        return values.get("x", factory), (time.perf_counter() - start) * 1000

    built, saving = timed(lambda: numpy.ones(25_000_000))
    mapped, loading = timed(never)
    with capsys.disabled():
        print(f"\n200 MB: built and saved in {saving:.0f} ms, mapped in {loading:.2f} ms")
    mapped[-1] = 2
    assert mapped[0] == 1 and built[-1] == timed(never)[0][-1] == 1


def test_many_small_arrays_take_no_page_each(store: KeptStore) -> None:
    worker(store).get("x", lambda: [numpy.full(10, number) for number in range(10_000)])
    assert value_file(store).stat().st_size < 4_000_000
    assert worker(store).get("x", never)[9_999][0] == 9_999


def test_tensors_are_saved_within_the_stream(store: KeptStore) -> None:
    torch = pytest.importorskip("torch")
    worker(store).get("x", lambda: torch.arange(LARGE))
    loaded = worker(store).get("x", never)
    loaded[0] = 7
    assert loaded[5] == 5 and worker(store).get("x", never)[0] == 0


# What can't be pickled, saved or loaded


def nested() -> list[Any]:
    outer: list[Any] = []
    for _ in range(100_000):
        outer = [outer]
    return outer


class Unpicklable:
    nbytes = 70

    def __reduce__(self) -> Any:
        raise RuntimeError("two\nlines")


@pytest.mark.parametrize(
    "factory",
    [threading.Lock, lambda: lambda: 1, socket.socket, lambda: sqlite3.connect(":memory:"), nested, Unpicklable],
    ids=["lock", "lambda", "socket", "connection", "too deep", "raises"],
)
def test_what_does_not_pickle_is_built_in_each_worker(store: KeptStore, factory: Callable[[], Any]) -> None:
    first, second = worker(store), worker(store)
    opened = [first.get("x", factory), second.get("x", factory)]
    assert opened[0] is not opened[1] and first.get("x", never) is opened[0]
    for one in opened:
        if hasattr(one, "close"):
            one.close()
    [listed] = store.values()
    assert (listed.kind, listed.bytes) == ("in_worker", 70 if factory is Unpicklable else None)
    assert store.rebuilt() == ["x"] and files(store) == []


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """`module(text)` replaces the module `of_a_reload` and gives it."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "code").mkdir()

    def replace(text: str) -> Any:
        (tmp_path / "code" / "of_a_reload.py").write_text(textwrap.dedent(text))
        sys.modules.pop("of_a_reload", None)
        importlib.invalidate_caches()
        return __import__("of_a_reload")

    yield replace
    sys.modules.pop("of_a_reload", None)


def test_objects_of_reloaded_classes_are_of_the_new_class(store: KeptStore, module: Callable[[str], Any]) -> None:
    worker(store).get("x", module("class Index:\n    def version(self): return 1").Index)
    new = module("class Index:\n    def version(self): return 2").Index
    loaded = worker(store).get("x", never)
    assert type(loaded) is new and loaded.version() == 2


@pytest.mark.parametrize(
    "text",
    [
        "class Renamed: pass",
        "raise ImportError('gone')",
        "raise SystemExit",
        "class Index:\n    def __setstate__(self, state): 1 / 0",
    ],
)
def test_what_does_not_unpickle_is_built_again_and_saved_again(
    store: KeptStore, module: Callable[[str], Any], caplog: pytest.LogCaptureFixture, text: str
) -> None:
    def build() -> Any:
        index = module("class Index: pass").Index()
        index.size = 3
        return index

    worker(store).get("x", build)
    sys.modules.pop("of_a_reload")
    (Path(sys.path[0]) / "of_a_reload.py").write_text(text)
    values, trial = on_trial(store)
    assert values.get("x", a_list) == [1, 2]
    [record] = caplog.records
    assert record.levelno == logging.WARNING and "'x' can't be loaded" in record.message
    assert "\n" not in record.message
    # It takes the old one's place when its generation is live, and not before.
    assert store.values()[0].type == "Index"
    trial.commit()
    assert worker(store).get("x", never) == [1, 2]
    assert store.values()[0].type == "list" and files(store) == [".value"]


def test_a_replacement_gives_way_to_one_that_was_saved_meanwhile(
    store: KeptStore, module: Callable[[str], Any]
) -> None:
    worker(store).get("x", lambda: module("class Index: pass").Index())
    module("")
    (values, trial), (others, other) = on_trial(store), on_trial(store)
    values.get("x", lambda: "first")
    others.get("x", lambda: "second")
    other.commit()
    trial.commit()
    assert worker(store).get("x", never) == "second" and files(store) == [".value"]


@pytest.mark.parametrize("keep_bytes", [0, 10, 4096, 200_000, -8])
def test_a_truncated_file_is_built_again(store: KeptStore, caplog: pytest.LogCaptureFixture, keep_bytes: int) -> None:
    worker(store).get("x", lambda: numpy.arange(LARGE))
    with open(value_file(store), "r+b") as file:
        file.truncate(keep_bytes if keep_bytes >= 0 else value_file(store).stat().st_size + keep_bytes)
    assert names(store) == []
    assert worker(store).get("x", lambda: numpy.arange(LARGE))[7] == 7
    assert "damaged" in caplog.text
    assert worker(store).get("x", never)[7] == 7 and names(store) == ["x"]


@pytest.mark.parametrize("offset", [0, 30, 4096, 4100])
def test_a_damaged_file_is_built_again(store: KeptStore, offset: int) -> None:
    worker(store).get("x", a_list)
    with open(value_file(store), "r+b") as file:
        file.seek(offset)
        file.write(b"\xff\xff")
    assert worker(store).get("x", lambda: "again") == "again"
    assert worker(store).get("x", never) == "again"


def test_a_link_or_pipe_in_a_files_place_is_not_read(store: KeptStore, tmp_path: Path) -> None:
    worker(store).get("x", a_list)
    value_file(store).rename(tmp_path / "elsewhere")
    value_file(store).symlink_to(tmp_path / "elsewhere")
    os.mkfifo(value_file(store, "pipe"))
    assert names(store) == []
    assert worker(store).get("x", lambda: "again") == "again"
    assert worker(store).get("pipe", lambda: "again") == "again"
    assert worker(store).get("x", never) == worker(store).get("pipe", never) == "again"
    assert (tmp_path / "elsewhere").exists()


def test_without_a_folder_or_a_server_the_value_is_given(store: KeptStore, caplog: pytest.LogCaptureFixture) -> None:
    values = worker(store)
    store.folder.rmdir()
    assert values.get("x", a_list) == [1, 2] and "'x' can't be saved" in caplog.text
    assert names(store, "in_worker") == ["x"]

    def gone(report: KeptReport) -> None:
        raise BrokenPipeError("gone")

    trial = store.trial()
    assert KeptValues(store.folder, gone, trial.drafts).get("x", a_list) == [1, 2]
    assert "can't be reported" in caplog.text and files(store) == []


# On trial


def test_what_is_built_on_trial_is_seen_when_it_is_live(store: KeptStore) -> None:
    values, trial = on_trial(store)
    values.get("x", a_list)
    values.get("lock", threading.Lock)
    assert store.values() == [] and store.rebuilt() == []
    assert worker(store).get("x", lambda: "own") == "own"
    store.drop("x")
    values.get("x", never)  # its worker has it still
    values.drop("x")
    values.get("x", a_list)
    trial.commit()
    assert names(store) == ["x"] and store.rebuilt() == ["lock"]
    values.get("later", a_list)
    assert names(store) == ["later", "x"]
    trial.close()
    assert names(store) == ["later", "x"] and store.rebuilt() == []


def test_a_failed_trial_saves_nothing(store: KeptStore) -> None:
    values, trial = on_trial(store)
    values.get("x", a_list)
    values.get("lock", threading.Lock)
    trial.discard()
    values.get("y", a_list)
    values.get("another lock", threading.Lock)
    trial.commit()
    assert store.values() == [] and files(store) == []


def test_a_failed_trial_leaves_what_it_could_not_load(store: KeptStore, module: Callable[[str], Any]) -> None:
    worker(store).get("x", lambda: module("class Index: pass").Index())
    module("")
    values, trial = on_trial(store)
    assert values.get("x", a_list) == [1, 2]
    trial.discard()
    module("class Index: pass")
    assert type(worker(store).get("x", never)).__name__ == "Index"


def test_of_two_that_built_one_name_the_first_to_be_live_is_saved(store: KeptStore) -> None:
    (values, trial), (others, other) = on_trial(store), on_trial(store)
    assert values.get("x", lambda: "first") == "first"
    assert others.get("x", lambda: "second") == "second"
    other.commit()
    trial.commit()
    assert worker(store).get("x", never) == "second"
    assert values.get("x", never) == "first" and files(store) == [".value"]


def test_a_dropped_value_does_not_come_back_from_a_trial(store: KeptStore) -> None:
    values, trial = on_trial(store)
    values.get("x", a_list)
    assert store.drop("x") is True and store.drop("x") is False
    trial.commit()
    assert store.values() == [] and files(store) == []


def test_a_value_of_each_worker_is_dropped(store: KeptStore) -> None:
    values = worker(store)
    values.get("lock", threading.Lock)
    worker(store).get("lock", threading.Lock)
    assert store.drop("lock") is True and store.rebuilt() == []
    assert values.drop("lock")
    values.get("lock", threading.Lock)
    assert store.rebuilt() == ["lock"]


def test_an_unloadable_value_that_does_not_pickle_any_more_is_listed_as_it_is_now(
    store: KeptStore, module: Callable[[str], Any]
) -> None:
    worker(store).get("x", lambda: module("class Index: pass").Index())
    module("")
    worker(store).get("x", threading.Lock)
    assert store.rebuilt() == ["x"] and [one.type for one in store.values()] == ["lock"]


def test_what_a_killed_worker_left_is_removed(store: KeptStore) -> None:
    trial, other = store.trial(), store.trial()
    (store.folder / f"{trial.drafts}-{'0' * 32}.draft").write_bytes(b"half")
    (store.folder / f"{other.drafts}-{'0' * 32}.draft").write_bytes(b"half")
    trial.close()
    assert files(store) == [".draft"]
    assert KeptStore(store.folder).values() == [] and files(store) == []


def test_a_value_that_can_not_be_removed_is_an_error(store: KeptStore) -> None:
    store.trial()
    value_file(store).mkdir()
    with pytest.raises(StoreError):
        store.drop("x")
    assert store.drop("half a pair \ud83d") is False


# What a worker sends may be anything


def report(**changes: object) -> KeptReport:
    return dataclasses.replace(KeptReport("x", "list", 1, 1.0, "in_worker", None), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"name": 7},
        {"name": "half a pair \ud83d"},
        {"type": "x" * 201},
        {"bytes": -1},
        {"bytes": True},
        {"bytes": 2**63},
        {"built": float("nan")},
        {"built": float("inf")},
        {"built": "1"},
        {"kind": "other"},
        {"kind": "saved"},
        {"draft": "TRIAL-" + "0" * 32 + ".draft"},
        {"kind": "saved", "draft": ""},
        {"kind": "saved", "draft": "../TRIAL-" + "0" * 32 + ".draft"},
        {"kind": "saved", "draft": "TRIAL-" + "0" * 32 + ".draft\n"},
        {"kind": "saved", "draft": "/etc/passwd"},
        {"kind": "saved", "draft": "TRIAL-../../x.draft"},
        {"kind": "saved", "draft": "0" * 16 + "-" + "0" * 32 + ".draft"},
    ],
    ids=str,
)
def test_reports_that_are_none(store: KeptStore, changes: dict[str, Any]) -> None:
    trial = store.trial()
    trial.commit()
    if isinstance(changes.get("draft"), str):
        changes = {**changes, "draft": changes["draft"].replace("TRIAL", trial.drafts)}
    with pytest.raises(InvalidReportError):
        trial.report(report(**changes))
    with pytest.raises(InvalidReportError):
        trial.report("report")  # type: ignore[arg-type]
    assert store.values() == []


def made_up_draft(path: Path, kind: str, target: Path) -> None:
    match kind:
        case "link":
            path.symlink_to(target)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "no header":
            path.write_bytes(b"x" * 5000)
        case "deep":
            path.write_bytes(saved_values._MAGIC + b"\n" + b"[" * 4000)
        case "other name":
            path.write_bytes(target.read_bytes())


@pytest.mark.parametrize("kind", ["missing", "link", "folder", "pipe", "no header", "deep", "other name"])
def test_drafts_that_hold_no_value(store: KeptStore, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    worker(store).get("other", a_list)
    trial = store.trial()
    trial.commit()
    draft = store.folder / f"{trial.drafts}-{'0' * 32}.draft"
    made_up_draft(draft, kind, value_file(store, "other"))
    trial.report(report(kind="saved", draft=draft.name))
    assert "missing or damaged" in caplog.text
    assert names(store) == ["other"] and worker(store).get("other", never) == [1, 2]
    assert kind == "folder" or files(store) == [".value"]


def test_sizes_and_types_are_those_of_the_file(store: KeptStore) -> None:
    trial = store.trial()
    trial.commit()

    def lie(true: KeptReport) -> None:
        trial.report(dataclasses.replace(true, bytes=1, type="lie", built=2.0))

    KeptValues(store.folder, lie, trial.drafts).get("x", a_list)
    [listed] = store.values()
    assert listed.bytes == value_file(store).stat().st_size and listed.type == "list" and listed.built > 2


def test_a_worker_that_reports_without_end_is_bounded(store: KeptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_values, "MOST_IN_TRIAL", 10)
    values, trial = on_trial(store)
    for number in range(10):
        trial.report(report(name=str(number)))
        values.get(f"saved {number}", a_list)
    trial.commit()
    assert len(store.values()) == 10


def test_the_server_never_unpickles(store: KeptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(store).get("x", a_list)

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    again = KeptStore(store.folder)
    again.trial().commit()
    assert names(again) == ["x"] and again.rebuilt() == [] and again.drop("x")


# In real processes


WORKER = """
    import dataclasses, json, os, resource, sys, threading, time
    from pathlib import Path

    import numpy

    from server.sdk.saved_values import KeptValues, keep, use

    def report(one):
        sys.stdout.write(json.dumps(dataclasses.asdict(one)) + "\\n")  # print would mix the lines of two threads

    use(KeptValues(Path(sys.argv[1]), report, sys.argv[2]))
"""


def run(store: KeptStore, trial: Trial, text: str) -> tuple[list[KeptReport], str]:
    """Execute `text` in a new worker process: its reports, and what it wrote to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WORKER) + textwrap.dedent(text), str(store.folder), trial.drafts],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [KeptReport(**json.loads(line)) for line in done.stdout.splitlines()], done.stderr


def test_processes_and_a_restart_of_the_server(store: KeptStore) -> None:
    trial = store.trial()
    reports, _ = run(store, trial, "keep('x', lambda: numpy.arange(10**6))")
    trial.commit()
    for one in reports:
        trial.report(one)
    trial.close()
    again = KeptStore(store.folder)
    [listed] = again.values()
    assert (listed.name, listed.type, listed.kind) == ("x", "ndarray", "saved")
    assert listed.bytes is not None and listed.bytes > 8_000_000
    reports, _ = run(again, again.trial(), "array = keep('x', None); array[0] = 5; assert array[-1] == 999_999")
    assert reports == []
    assert worker(again).get("x", never)[0] == 0


def test_a_full_disk_costs_the_saved_copy_and_nothing_else(store: KeptStore) -> None:
    trial = store.trial()
    trial.commit()
    text = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        assert keep("x", lambda: numpy.arange(10**6))[7] == 7
        assert keep("x", None)[7] == 7
        assert keep("stream", lambda: "x" * 2_000_000)[7] == "x"
        assert keep("buffered", lambda: ["x" * 1000 + str(number) for number in range(995)])
    """
    reports, log = run(store, trial, text)
    assert [one.kind for one in reports] == ["in_worker"] * 3 and reports[0].bytes == 8_000_000
    assert log.count("can't be saved") == 3 and files(store) == []
    for one in reports:
        trial.report(one)
    assert store.rebuilt() == ["buffered", "stream", "x"]


def test_what_exceeds_the_memory_limit_is_mapped_read_only(store: KeptStore) -> None:
    worker(store).get("x", lambda: numpy.arange(50_000_000))
    text = """
        used = int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + 100_000_000, used + 100_000_000))
        array = keep("x", None)
        assert array[-1] == 49_999_999 and not array.flags.writeable
    """
    reports, log = run(store, store.trial(), text)
    assert reports == [] and "'x' is mapped read-only" in log


def test_a_forked_process_loads_and_builds_but_reports_nothing(store: KeptStore) -> None:
    worker(store).get("saved", a_list)
    text = """
        def child():
            assert keep("here", None) == 1
            assert keep("saved", None) == [1, 2]
            assert keep("building elsewhere", lambda: "own") == "own"
            try:
                keep("building here", None)
            except RuntimeError as error:
                assert "own factory" in str(error)
            else:
                os._exit(1)
            assert keep("new", lambda: 3) == 3

        def build():
            if (pid := os.fork()) == 0:
                code = 1
                try:
                    child()
                    sys.stdout.flush()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0
            may_end.set()
            return "built"

        started, may_end = threading.Event(), threading.Event()
        keep("here", lambda: 1)
        sys.stdout.flush()
        slow = threading.Thread(target=keep, args=("building elsewhere", lambda: (started.set(), may_end.wait(60))))
        slow.start()
        started.wait()
        keep("building here", build)
        slow.join()
    """
    reports, _ = run(store, store.trial(), text)
    assert sorted(one.name for one in reports) == ["building elsewhere", "building here", "here"]


def test_keep_is_for_workers_on_any_thread(store: KeptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_values, "_current", None)
    with pytest.raises(KeepError, match="works in the workers"):
        keep("x", never)
    saved_values.use(worker(store))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(keep, "x", a_list).result() is keep("x", never)
