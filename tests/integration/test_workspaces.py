"""Workspaces: whose files count, where they may lie, and how code comes back."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.errors import (
    FileNotInWorkspaceError,
    ForbiddenError,
    GenerationNotFoundError,
    InvalidPathError,
    ReloadFailedError,
    StoreError,
    TooLargeError,
    WorkspaceNotFoundError,
)
from server.reload import Snapshot, Workspace, Workspaces, overlay, snapshot
from server.reload.overlay import Overlay, over
from server.workers.failure import LoadError
from tests.support.full_disk import full_disk
from tests.support.reload_code import LOOK, Code, code, tool_file

__all__ = ["code"]  # a fixture


class Lab:
    """The common code, and workspaces over it."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.folder = code.root.parent / "workspaces"
        self.workspaces = Workspaces(code.root, self.folder, code.runner)
        self.main = self.workspaces.main
        self.main.reload(build=True)

    def put(self, name: str, path: str, text: str) -> None:
        self.workspaces.files(name).write(path, text.encode())

    def reload(self, name: str, **options: Any) -> Any:
        return self.workspaces.get(name).reload(build=True, **options)

    def ask(self, name: str, tool: str = "calculator") -> str:
        with self.workspaces.get(name).pin() as generation:
            return self.code.ask(tool, generation)

    def live(self, name: str) -> str:
        live = self.workspaces.get(name).live
        assert live is not None
        return live.hash


@pytest.fixture
def lab(code: Code) -> Iterator[Lab]:
    made = Lab(code)
    yield made
    for name in made.workspaces.names():
        live = made.workspaces.get(name).live
        if live is not None:
            live.close()


# Whose files count


def test_a_file_in_the_place_of_a_common_one_and_one_beside_them(lab: Lab) -> None:
    lab.put("alice", "tools/calculator.py", tool_file("alice's"))
    lab.put("alice", "tools/more.py", tool_file("more", "more"))
    report = lab.reload("alice")
    assert report.workspace == "alice" and report.tools["added"] == ["calculator", "more"]
    assert (lab.ask("alice"), lab.ask("alice", "more"), lab.ask("main")) == ("alice's", "more", "1")
    assert lab.live("alice") != lab.live("main")


def test_nobody_sees_anothers_code(lab: Lab) -> None:
    for name in ("alice", "bob"):
        lab.put(name, "tools/calculator.py", tool_file(name))
        lab.reload(name)
    lab.put("alice", "tools/calculator.py", "broken(")
    with pytest.raises(ReloadFailedError):
        lab.reload("alice")
    assert (lab.ask("alice"), lab.ask("bob"), lab.ask("main")) == ("alice", "bob", "1")


def test_a_file_that_is_removed_gives_the_common_one_back(lab: Lab) -> None:
    lab.put("alice", "tools/calculator.py", tool_file("alice's"))
    lab.reload("alice")
    lab.workspaces.files("alice").delete("tools/calculator.py")
    assert lab.reload("alice").generation == lab.live("main")
    assert lab.ask("alice") == "1"


def test_an_edit_in_the_folder_counts_as_one_over_http(lab: Lab) -> None:
    place = lab.folder / "carol" / "tools" / "calculator.py"
    place.parent.mkdir(parents=True)
    place.write_text(tool_file("by hand"))
    lab.reload("carol")
    assert lab.ask("carol") == "by hand"
    assert lab.workspaces.names() == ["main", "carol"]


def test_a_change_to_the_common_code_comes_with_the_next_reload(lab: Lab) -> None:
    lab.put("alice", "tools/more.py", tool_file("more", "more"))
    lab.reload("alice")
    lab.code.write("tools/calculator.py", tool_file(2))
    lab.reload("alice")
    assert lab.ask("alice") == "1", "main has not taken it over itself"
    lab.main.reload(build=True)
    assert lab.ask("alice") == "1"
    assert lab.reload("alice").changed == ["tools.calculator"]
    assert lab.ask("alice") == "2"


def test_a_change_to_the_common_code_that_breaks_a_workspace_is_reported_and_not_loaded(lab: Lab) -> None:
    lab.code.write("tools/shared.py", "VALUE = 'shared'")
    lab.main.reload(build=True)
    text = "from server.tools.shared import VALUE\n" + tool_file("mine", "mine")
    lab.put("alice", "tools/mine.py", text)
    lab.reload("alice")
    before = lab.live("alice")
    lab.code.write("tools/shared.py", "OTHER = 'renamed'")
    lab.main.reload(build=True)
    with pytest.raises(ReloadFailedError, match="VALUE") as refusal:
        lab.reload("alice")
    assert refusal.value.details["generation"] == before == lab.live("alice")
    assert refusal.value.details["errors"][0]["file"] == "server/tools/mine.py"
    assert lab.ask("alice", "mine") == "mine"


def test_two_workspaces_with_the_same_files_have_the_same_generation_and_share_nothing_else(lab: Lab) -> None:
    for name in ("alice", "bob"):
        lab.put(name, "tools/look.py", LOOK)
        lab.put(name, "tools/x.py", "CALLS = []")
        lab.reload(name)
    with lab.workspaces.get("alice").pin() as alice, lab.workspaces.get("bob").pin() as bob:
        assert alice.hash == bob.hash
        lab.code.look("tools.x", "CALLS.append(1)", alice)
        assert (lab.code.look("tools.x", "CALLS", alice), lab.code.look("tools.x", "CALLS", bob)) == ([1], [])


TABLE = """
from pathlib import Path
from langchain_core.tools import tool

@tool
def {name}(expression: str) -> str:
    "Look something up."
    return (Path(__file__).parent / "t.csv").read_text() + "{version}"
"""


def test_data_beside_the_code_is_part_of_its_generation(lab: Lab) -> None:
    lab.code.write("tools/common.py", TABLE.format(name="common", version=1))
    lab.code.write("tools/t.csv", "main's")
    lab.main.reload(build=True)
    for name in ("own", "gone"):
        lab.put("alice", f"tools/{name}.py", TABLE.format(name=name, version=1))
    first = lab.reload("alice").generation
    assert [lab.ask("alice", name) for name in ("own", "gone", "common")] == ["main's1", "main's1", "main's1"]

    # A file of one's own takes the place of the common one for the common code as well.
    lab.put("alice", "tools/t.csv", "alice's")
    assert lab.reload("alice").changed == ["tools/t.csv"]
    second = lab.live("alice")
    lab.put("alice", "tools/own.py", TABLE.format(name="own", version=2))
    lab.workspaces.files("alice").delete("tools/gone.py")
    lab.code.write("tools/common.py", TABLE.format(name="common", version=2))
    lab.main.reload(build=True)
    lab.reload("alice")
    assert [lab.ask("alice", name) for name in ("own", "common")] == ["alice's2", "alice's2"]
    assert lab.ask("main", "common") == "main's2"

    alice = lab.workspaces.get("alice")
    for generation, owner in ((first, "main's1"), (second, "alice's1")):
        with alice.pin_earlier(generation) as earlier:
            assert [lab.code.ask(name, earlier) for name in ("own", "gone", "common")] == [owner] * 3
            assert earlier is not alice.live
    lab.reload("alice", snapshot=Snapshot(lab.code.store.files(first)))
    assert [lab.ask("alice", name) for name in ("own", "gone", "common")] == ["main's1"] * 3


def test_main_is_not_changed_this_way(lab: Lab) -> None:
    with pytest.raises(ForbiddenError):
        lab.workspaces.files("main")


# Which files there may be


@pytest.fixture
def files(tmp_path: Path) -> Overlay:
    return Overlay(tmp_path / "alice")


@pytest.mark.parametrize(
    "path",
    [
        "tools/x.py", "tools/deep/er/x.py", "agent/mine.py", "model.py", "tools/__init__.py", "tools/words.csv",
        "tools/deep/er/words-2.tar.gz", "agent/prompt", "tools/2024.csv", "tools/wörter.csv", "tools/x.so",
        "tools/_x.",
    ],
)  # fmt: skip
def test_paths_that_are_accepted(files: Overlay, path: str) -> None:
    assert files.write(path, b"x = 1") is True
    assert files.write(path, b"x = 2") is False
    assert files.read(path) == b"x = 2"
    assert files.sizes() == {path: 5}
    assert files.snapshot().files == {path: b"x = 2"}
    files.delete(path)
    assert files.sizes() == {} and list(files.folder.iterdir()) == []
    with pytest.raises(FileNotInWorkspaceError):
        files.read(path)


def test_only_folders_are_workspaces(lab: Lab) -> None:
    lab.put("alice", "tools/x.py", "")
    (lab.folder / "notes").write_text("")
    (lab.folder / "gone").symlink_to(lab.folder / "nowhere")
    (lab.folder / "lost").symlink_to("x" * 300)
    assert lab.workspaces.names() == ["main", "alice"]
    for name in ("notes", "gone", "lost"):
        with pytest.raises(WorkspaceNotFoundError, match=r"There is: main, alice\."):
            lab.workspaces.get(name)


def test_names_of_no_workspace_are_not_held(lab: Lab) -> None:
    lab.put("alice", "tools/x.py", "")
    lab.workspaces.get("alice")
    for number in range(10):
        lab.workspaces.files(f"unknown{number}")
        with pytest.raises(WorkspaceNotFoundError):
            lab.workspaces.get(f"unknown{number}")
    assert list(lab.workspaces._overlays) == ["alice"]


@pytest.mark.parametrize("path", ["tools/.x.txt", "tools/a-b/x.csv", "words.csv", "tools/x.pyc", "tools/x-y.py"])
def test_a_refusal_says_what_is_allowed(files: Overlay, path: str) -> None:
    with pytest.raises(InvalidPathError, match=r"tools/words\.csv.*begins with a letter.*at most 200 bytes"):
        files.write(path, b"x")


@given(path=st.text(max_size=30) | st.text(alphabet="./\\~toolsx\x00 ", max_size=20))
@example(path="tools/../../x.py")
@example(path="/etc/passwd")
@example(path="tools//x.py")
@example(path="./tools/x.py")
@example(path="tools/.x.py")
@example(path="tools/.x.txt")
@example(path="tools/x.txt~")
@example(path="tools/-x.txt")
@example(path="tools/#x#")
@example(path="tools/x.pyc")
@example(path="tools/__pycache__")
@example(path="tools/__pycache__/x.csv")
@example(path="tools/a.b/x.csv")
@example(path="tools/a-b/x.csv")
@example(path="tools/x\n")
@example(path="tools/..")
@example(path="tools")
@example(path="tools/")
@example(path="words.csv")
@example(path="model/words.csv")
@example(path="tools/\ud800.csv")
@example(path="tools/x y.py")
@example(path="tools/x.y.py")
@example(path="tools/__pycache__/x.py")
@example(path="host.py")
@example(path="tools.py")
@example(path="model/x.py")
@example(path="engine/x.py")
@example(path="tools/" + "x" * 300 + ".py")
@example(path="C:\\tools\\x.py")
@example(path="tools\\x.py")
def test_other_paths_are_refused(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    folder = tmp_path_factory.mktemp("outside")
    files = Overlay(folder / "inside")
    try:
        files.write(path, b"x")
    except InvalidPathError:
        assert list(folder.iterdir()) == []
    else:
        assert path.startswith(("tools/", "agent/")) or path == "model.py"
        assert [one.name for one in folder.iterdir()] == ["inside"]
        assert files.sizes() == {path: 1} and files.snapshot().files == {path: b"x"}


@pytest.mark.parametrize("name", ["", "Alice", "a b", "../x", "a/b", ".hidden", "-x", "a" * 65, "ä", "a\n", "a\x00"])
def test_names_that_are_refused(lab: Lab, name: str) -> None:
    with pytest.raises(InvalidPathError):
        lab.workspaces.files(name)
    with pytest.raises(WorkspaceNotFoundError):
        lab.workspaces.get(name)


def test_links_out_of_the_workspace_are_not_followed(lab: Lab, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("secret")
    inside = lab.folder / "alice" / "tools"
    inside.mkdir(parents=True)
    (inside / "door").symlink_to(outside)
    (inside / "link.py").symlink_to(outside / "secret.py")
    files = lab.workspaces.files("alice")
    for path in ("tools/door/secret.py", "tools/link.py"):
        with pytest.raises(InvalidPathError, match="leads out"):
            files.read(path)
        with pytest.raises(InvalidPathError, match="leads out"):
            files.delete(path)
        with pytest.raises(InvalidPathError, match="leads out"):
            files.write(path, b"x")
    with pytest.raises(ReloadFailedError, match="leads out"):
        lab.reload("alice")
    assert (outside / "secret.py").read_text() == "secret" and len(list(outside.iterdir())) == 1


def test_bounds_on_bytes_and_files(files: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("tools/x.py", "tools/x.bin"):
        with pytest.raises(TooLargeError):
            files.write(path, bytes(overlay.MOST_BYTES + 1))
    monkeypatch.setattr(overlay, "MOST_FILES", 2)
    files.write("tools/a.py", b"")
    files.write("tools/b.csv", b"")
    files.write("tools/b.csv", b"again")
    for path in ("tools/c.py", "tools/c.csv"):
        with pytest.raises(TooLargeError, match="3 files and 5 bytes"):
            files.write(path, b"")
    (files.folder / "tools" / "by_hand.csv").write_text("")
    with pytest.raises(TooLargeError):
        files.snapshot()


def test_what_belongs_to_no_generation_is_not_listed_and_does_not_count(files: Overlay) -> None:
    files.write("tools/words.csv", b"1,2")
    for path in ("notes.txt", "x.py", ".git/x.py", "tools/.x.csv", "tools/__pycache__/x.pyc", "tools/x.csv~"):
        place = files.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    (files.folder / "tools/gone.csv").symlink_to("nowhere")
    assert files.sizes() == {"tools/words.csv": 3}
    assert Overlay(files.folder / "nowhere").sizes() == {}


def test_the_data_of_both_is_bounded_together(files: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_DATA_BYTES", 10)
    files.write("tools/own.bin", bytes(6))
    common = Snapshot({"tools/common.bin": bytes(5), "tools/code.py": bytes(100)})
    with pytest.raises(LoadError, match=r"2 data files of 11 bytes .* server/tools/own.bin with 6 bytes"):
        over(common, files.snapshot())
    files.write("tools/common.bin", bytes(4))
    assert over(common, files.snapshot()).files == {**common.files, **files.snapshot().files}


def test_a_file_that_the_system_refuses_to_look_at(lab: Lab) -> None:
    lab.put("alice", "tools/x.py", "")
    (lab.folder / "alice" / "tools" / "y.py").symlink_to("x" * 300)
    for use in (lab.workspaces.files("alice").read, lab.workspaces.files("alice").delete):
        with pytest.raises(StoreError, match="can't be read: File name too long"):
            use("tools/y.py")
    with pytest.raises(ReloadFailedError, match="File name too long"):
        lab.reload("alice")


def test_who_may_read_and_write_a_file_stays(lab: Lab) -> None:
    files, place = lab.workspaces.files("alice"), lab.folder / "alice" / "tools" / "x.py"
    umask = os.umask(0o027)
    try:
        files.write("tools/x.py", b"new")
        assert stat.S_IMODE(place.stat().st_mode) == 0o640
        place.chmod(0o664)
        if os.geteuid() == 0:
            os.chown(place, 65534, 65534)
        before = place.stat()
        files.write("tools/x.py", b"replaced")
    finally:
        os.umask(umask)
    after = place.stat()
    assert after.st_ino != before.st_ino, "it is replaced at once"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_folder_where_a_file_is_to_be(lab: Lab) -> None:
    (lab.folder / "alice" / "tools" / "x.py").mkdir(parents=True)
    with pytest.raises(StoreError, match="can't be written"):
        lab.workspaces.files("alice").write("tools/x.py", b"")
    assert [path.name for path in (lab.folder / "alice" / "tools").iterdir()] == ["x.py"]


def test_a_reader_sees_the_old_bytes_or_the_new(lab: Lab) -> None:
    files = lab.workspaces.files("alice")
    texts = [bytes([letter]) * 300_000 for letter in b"ab"]
    files.write("tools/x.py", texts[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(60):
            files.write("tools/x.py", texts[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert files.read("tools/x.py") in texts
    writer.join()
    assert os.listdir(lab.folder / "alice" / "tools") == ["x.py"]


# How code comes back


def test_an_earlier_generation_comes_back_and_the_files_stay(lab: Lab) -> None:
    first = lab.live("main")
    lab.code.write("tools/calculator.py", tool_file(2))
    second = lab.main.reload(build=True).generation
    kept = Snapshot(lab.code.store.files(first))
    report = lab.main.reload(build=True, snapshot=kept)
    assert (report.generation, report.previous, report.changed) == (first, second, ["tools.calculator"])
    assert lab.ask("main") == "1"
    assert (lab.code.root / "tools/calculator.py").read_text() == tool_file(2)
    assert lab.main.reload(build=True).generation == second
    assert lab.ask("main") == "2"
    assert [one.generation for one in lab.code.store.history("main", 10)] == [second, first, second, first]


def test_a_generation_comes_back_whatever_the_files_are_like(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.put("alice", "tools/calculator.py", tool_file("first"))
    first = lab.reload("alice").generation
    lab.put("alice", "tools/calculator.py", tool_file("second"))
    lab.put("alice", "tools/more.py", "")
    lab.reload("alice")
    monkeypatch.setattr(overlay, "MOST_FILES", 1)
    report = lab.reload("alice", snapshot=Snapshot(lab.code.store.files(first)))
    assert report.generation == first == lab.live("alice")
    assert lab.ask("alice") == "first"


def test_a_dry_run_and_a_failed_reload_are_not_kept(lab: Lab) -> None:
    before = lab.code.store.history("main", 10)
    lab.code.write("tools/calculator.py", tool_file(2))
    lab.main.reload(build=True, dry_run=True)
    lab.code.write("tools/calculator.py", "broken(")
    with pytest.raises(ReloadFailedError):
        lab.main.reload(build=True)
    assert lab.code.store.history("main", 10) == before


def test_an_earlier_generation_answers_beside_the_live_one(lab: Lab) -> None:
    first = lab.live("main")
    lab.code.write("tools/calculator.py", tool_file(2))
    lab.main.reload(build=True)

    with lab.main.pin_earlier(first) as one, lab.main.pin_earlier(first) as two, lab.main.pin() as live:
        assert one is two
        assert (lab.code.ask(generation=one), lab.code.ask(generation=live)) == ("1", "2")
        # What a pinned run uses may become live meanwhile, and outlives the run then.
        lab.main.reload(build=True, snapshot=one.snapshot)
        assert lab.main.live is one
    assert lab.ask("main") == "1"


def test_an_unknown_generation_is_reported(lab: Lab) -> None:
    with pytest.raises(GenerationNotFoundError), lab.main.pin_earlier("0123456789ab"):
        pass


def test_code_that_can_not_be_kept_is_not_taken_over(lab: Lab) -> None:
    before = lab.live("main")
    lab.code.write("tools/calculator.py", tool_file(2))
    with full_disk(os.getpid(), Path(lab.code.database.name)), pytest.raises(StoreError):
        lab.main.reload(build=True)
    assert lab.live("main") == before and lab.ask("main") == "1"
    lab.main.reload(build=True)
    assert lab.ask("main") == "2"


def test_the_same_store_serves_the_next_process(lab: Lab, tmp_path: Path) -> None:
    first = lab.live("main")
    lab.code.write("tools/calculator.py", tool_file(2))
    lab.main.reload(build=True)
    again = Workspace("main", lab.code.root, lab.code.runner)
    again.reload(build=True)
    with again.pin_earlier(first) as earlier:
        assert lab.code.ask(generation=earlier) == "1"
    assert again.live is not None
    again.live.close()
