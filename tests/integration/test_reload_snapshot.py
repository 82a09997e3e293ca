"""Reading the files: which ones, whole, and never half-way through a change."""

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path, PurePosixPath

import pytest

from server.errors import ReloadFailedError
from server.reload import Snapshot
from server.reload import snapshot as snapshots
from server.reload.snapshot import file_sizes, includes, read_snapshot, read_stamp
from server.workers.failure import ErrorReport, LoadError
from tests.support.reload_code import Code, code, tool_file

__all__ = ["code"]  # a fixture


def refused(root: Path) -> ErrorReport:
    with pytest.raises(LoadError) as error:
        read_snapshot(root)
    (report,) = error.value.errors
    return report


def settle(root: Path) -> None:
    """Wait until no later change can bear the same time as one of now."""
    limit = time.monotonic() + 10
    while not read_stamp(root).settled:
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_which_files_belong_to_a_generation(code: Code) -> None:
    for path in (
        "engine/engine.py", "host.py", "agents.py", "notes.txt", "words.csv", "tools/.hidden.py", "tools/.hidden.csv",
        "tools/.checkpoints/calculator.py", "tools/.checkpoints/words.csv", "tools/__pycache__/calculator.py",
        "tools/__pycache__/words.csv", "tools/x.pyc", "tools/calculator.py~", "tools/#calculator.py#",
        "tools/calculator.orig.py", "tools/a.b/c.py", "tools/c.py/c.py",
    ):  # fmt: skip
        code.write(path, "")
    more = (
        "tools/deep/er/x.py", "tools/deep/er/words.csv", "tools/notes", "tools/a.b/c.txt", "tools/calculator.py.orig",
        "tools/fast.cpython-311-x86_64-linux-gnu.so", "agent/prompt.txt", "agent/data/x.bin", "model/config.json",
    )  # fmt: skip
    for path in more:
        code.write(path, path.encode() + b"\xff")
    expected = ("model.py", "agent/__init__.py", "tools/__init__.py", "tools/calculator.py", *more)
    assert read_snapshot(code.root).files == {path: (code.root / path).read_bytes() for path in expected}
    assert file_sizes(code.root) == {path: (code.root / path).stat().st_size for path in expected}
    assert all(includes(Path(path)) for path in expected)


@pytest.mark.parametrize("path", ["", ".", "/", "..", "../tools/x.py", "/tools/x.py", "tools", "model", "tools/../x"])
def test_paths_of_no_snapshot(path: str) -> None:
    assert not includes(PurePosixPath(path))


def test_a_workspace_without_data_has_the_hash_that_it_had() -> None:
    files = {"model.py": b"", "tools/__init__.py": b"X = 1\n", "agent/__init__.py": b"\xff"}
    assert Snapshot(files).hash == "4e678d9007b4"


def test_a_change_to_data_is_a_change(code: Code) -> None:
    file = code.write("tools/deep/words.csv", "one")
    settle(code.root)
    stamp, before = read_stamp(code.root), read_snapshot(code.root)
    assert stamp.settled and stamp == read_stamp(code.root)
    file.write_text("two")
    assert read_stamp(code.root) != stamp
    assert read_snapshot(code.root).hash != before.hash
    settle(code.root)
    stamp = read_stamp(code.root)
    file.unlink()
    assert read_stamp(code.root) != stamp


def test_more_data_than_allowed_is_refused_and_not_read(code: Code) -> None:
    code.write("tools/words.csv", "one,two")
    large = code.write("tools/deep/weights.bin", "")
    os.truncate(large, 10**12)  # nobody has the memory to read it
    os.mkfifo(code.root / "tools/pipe.py")
    with pytest.raises(LoadError) as error:
        read_snapshot(code.root)
    pipe, report = error.value.errors
    assert pipe["file"] == "server/tools/pipe.py"
    assert report["file"] == "server/tools/deep/weights.bin"
    assert "2 data files of 1,000,000,000,007 bytes" in report["message"]
    assert "The largest is server/tools/deep/weights.bin with 1,000,000,000,000 bytes" in report["message"]
    assert "open it by its path" in report["message"]


def test_the_bounds_on_data(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_DATA_BYTES", 10)
    monkeypatch.setattr(snapshots, "MOST_DATA_FILES", 2)
    code.write("tools/large.py", "#" * 1000)
    code.write("tools/a", "12345")
    code.write("agent/b", "12345")
    assert len(read_snapshot(code.root).files) == 7
    code.write("agent/b", "123456")
    assert refused(code.root)["file"] == "server/agent/b"
    code.write("agent/b", "")
    code.write("tools/c", "")
    report = refused(code.root)
    assert (report["file"], report["type"]) == ("server/tools/a", "TooLargeError")
    assert "there are 3 data files of 5 bytes beside the code; at most 2 files and 10 bytes" in report["message"]


def test_a_data_set_is_not_listed_to_its_end(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_DATA_FILES", 2)
    monkeypatch.setattr(snapshots, "_MOST_LISTED", 20)
    for number in range(50):
        code.write(f"tools/data/{number}", "")
    for number in range(30):
        code.write(f"tools/more/{number}.py", "")
    assert "more than 20 data files" in refused(code.root)["message"]
    time.sleep(2 * snapshots._SAME_TIME_SECONDS)
    assert not read_stamp(code.root).settled


def test_data_that_grows_while_it_is_read(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_DATA_BYTES", 10)
    file = code.write("tools/log", "12345")
    read = snapshots._read

    def read_later(path: Path) -> bytes:
        os.truncate(file, 10**12)
        return read(path)

    monkeypatch.setattr(snapshots, "_read", read_later)
    assert refused(code.root)["file"] == "server/tools/log"


def test_the_hash_is_of_names_and_bytes() -> None:
    files = {"model.py": b"a", "tools/x.py": b"bc"}
    expected = hashlib.sha256()
    for part in (b"model.py", b"a", b"tools/x.py", b"bc"):
        expected.update(len(part).to_bytes(8, "big") + part)
    assert Snapshot(files).hash == expected.hexdigest()[:12]
    assert Snapshot(dict(reversed(files.items()))).hash == Snapshot(files).hash
    others = [{"model.py": b"a"}, {**files, "y.py": b""}, {"model.py": b"ab", "tools/x.py": b"c"}, {}]
    assert len({Snapshot(one).hash for one in [files, *others]}) == 5


def test_links_may_lead_about_inside_and_not_out(code: Code, tmp_path: Path) -> None:
    (code.root / "tools/alias.py").symlink_to(code.root / "model.py")
    (code.root / "tools/shared").symlink_to(code.root / "agent")
    files = read_snapshot(code.root).files
    assert files["tools/alias.py"] == files["model.py"]
    assert files["tools/shared/__init__.py"] == files["agent/__init__.py"]

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.py").write_text("X = 1")
    for name, target in (("tools/out.py", outside / "x.py"), ("tools/folder", outside)):
        link = code.root / name
        link.symlink_to(target)
        report = refused(code.root)
        assert report["file"] == f"server/{name}"
        assert "leads out of" in report["message"]
        link.unlink()
    (outside / "large.csv").write_bytes(b"1")
    (code.root / "tools/data.csv").symlink_to(outside / "large.csv")
    report = refused(code.root)
    assert report["file"] == "server/tools/data.csv" and "leads out of" in report["message"]


@pytest.mark.parametrize(("target", "message"), [("nowhere.py", "leads nowhere"), ("link.py", "symbolic links")])
def test_links_that_lead_nowhere(code: Code, target: str, message: str) -> None:
    (code.root / "tools/link.py").symlink_to(code.root / "tools" / target)
    report = refused(code.root)
    assert report["file"] == "server/tools/link.py"
    assert message in report["message"]


def test_a_folder_linked_into_itself(code: Code) -> None:
    (code.root / "tools/again").symlink_to(code.root / "tools")
    report = refused(code.root)
    assert report["file"] == "server/tools/again"
    assert "leads back" in report["message"]


@pytest.mark.parametrize("name", ["pipe.py", "pipe"])
def test_a_pipe_is_refused_and_not_waited_for(code: Code, name: str) -> None:
    os.mkfifo(code.root / "tools" / name)
    report = refused(code.root)
    assert (report["file"], report["message"]) == (
        f"server/tools/{name}",
        "can't be read: not an ordinary file",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(code: Code) -> None:
    (code.root / "tools/calculator.py").chmod(0)
    report = refused(code.root)
    assert (report["file"], report["type"]) == ("server/tools/calculator.py", "PermissionError")


@pytest.mark.parametrize(
    "path", ["model.py", "agent", "tools/calculator.py", "tools/more.py", "tools/folder", "tools/table.csv"]
)
def test_a_path_that_can_not_be_looked_at(code: Code, path: str) -> None:
    """A link to a name that is too long stands for all that the system refuses to look at, root included."""
    place = code.root / path
    if place.exists():
        place.rename(code.root / "away")
    place.symlink_to("x" * 300)
    report = refused(code.root)
    assert (report["file"], report["message"]) == (f"server/{path}", "can't be read: File name too long")
    assert read_stamp(code.root) == read_stamp(code.root)


@pytest.mark.parametrize("target", ["nowhere", "x" * 300, "file"])
def test_a_root_that_can_not_be_listed(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").touch()
    root = tmp_path / "server"
    root.symlink_to(target)
    assert f"{root} can't be read: " in refused(root)["message"]
    assert read_stamp(root) == read_stamp(root)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "server")["message"]


def test_a_folder_in_the_place_of_a_file_is_not_held_open(code: Code) -> None:
    (code.root / "model.py").unlink()
    (code.root / "model.py").symlink_to(code.root / "agent")
    before = os.listdir("/proc/self/fd")
    with contextlib.suppress(LoadError):
        read_snapshot(code.root)
    with pytest.raises(IsADirectoryError):
        snapshots._read(code.root / "agent")
    assert set(os.listdir("/proc/self/fd")) <= set(before)


def test_paths_that_concern_nobody_may_be_unreadable(code: Code) -> None:
    before = read_snapshot(code.root)
    for name in ("host.py", "table.csv", "tools/.draft.py", "tools/x.pyc", "tools/words.csv~", "tools/#x#"):
        (code.root / name).symlink_to("x" * 300)
    assert read_snapshot(code.root) == before


@pytest.mark.parametrize("name", ["pipe.py", "link", "link.py", "link.csv"])
def test_an_unreadable_file_changes_nothing(code: Code, name: str) -> None:
    code.reload()
    place = code.root / "tools" / name
    if name == "pipe.py":
        os.mkfifo(place)
    else:
        place.symlink_to("x" * 300)
    (error,) = code.refused()
    assert error["file"] == f"server/tools/{name}"
    with pytest.raises(ReloadFailedError):
        code.workspace.catch_up(build=True)
    assert code.ask() == "1"


def test_a_file_is_not_taken_between_being_emptied_and_being_written(code: Code) -> None:
    """An editor that empties a file, thinks, and writes it, again and again."""
    file = code.root / "tools/calculator.py"
    whole = file.read_bytes()
    stop = threading.Event()

    def edit() -> None:
        while not stop.is_set():
            with open(file, "wb") as out:
                stop.wait(0.01)
                out.write(whole)
            stop.wait(0.01)

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        for _ in range(30):
            assert read_snapshot(code.root).files["tools/calculator.py"] == whole
    finally:
        stop.set()
        editor.join()


def test_an_empty_file_is_believed_in_the_end(code: Code) -> None:
    code.write("tools/extra.py", "")
    assert read_snapshot(code.root).files["tools/extra.py"] == b""


def test_files_replaced_together_are_read_together(code: Code) -> None:
    """Two folders exchanged as one, over and over: no snapshot has half of each."""
    versions = []
    for number in (1, 2):
        versions.append(code.root / f"version{number}")
        for name in ("a", "b", "c"):
            code.write(f"version{number}/{name}.py", f"X = {number}")
    link, fresh = code.root / "tools/shared", code.root / "fresh"
    link.symlink_to(versions[0])
    stop = threading.Event()

    def exchange() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            fresh.symlink_to(versions[turn % 2])
            fresh.replace(link)
            stop.wait(0.004)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(30):
            files = read_snapshot(code.root).files
            assert len({files[f"tools/shared/{name}.py"] for name in ("a", "b", "c")}) == 1
    finally:
        stop.set()
        thread.join()


def test_files_that_never_settle_are_reported(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.reload.snapshot._SETTLE_SECONDS", 0.1)
    file = code.root / "tools/calculator.py"
    stop = threading.Event()

    def keep_writing() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            file.write_text(tool_file(number))

    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        limit = time.monotonic() + 30
        while True:
            try:
                read_snapshot(code.root)
            except LoadError as error:
                assert "keep changing" in error.errors[0]["message"]
                assert error.errors[0]["file"] in (None, "server/tools/calculator.py")
                break
            assert time.monotonic() < limit
    finally:
        stop.set()
        thread.join()
