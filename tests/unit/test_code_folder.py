"""Generations as real files: whole, found by ordinary imports, and with the caches of what didn't change."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.errors import StoreError
from server.reload.code_folder import CodeFolders
from server.reload.snapshot import Snapshot
from tests.support.full_disk import full_disk

REPOSITORY = Path(__file__).parents[2]
FILES = {
    "model.py": b"",
    "agent/__init__.py": b"",
    "tools/__init__.py": b"",
    "tools/a.py": b"VALUE = 1\n",
    "tools/b.py": b"VALUE = 'b'\n",
    "tools/deep/words.csv": b"one,two\n",
}


def snapshot(**changed: bytes) -> Snapshot:
    """The files with some of `tools` changed or added, by stem."""
    return Snapshot({**FILES, **{f"tools/{stem}.py": data for stem, data in changed.items()}})


@pytest.fixture
def folders(tmp_path: Path) -> CodeFolders:
    return CodeFolders(tmp_path / "code")


def content(folder: Path) -> dict[str, bytes]:
    """All files of a generation but the package that joins them to Hearth's, without caches."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert "server/__init__.py" in found
    return {
        name.removeprefix("server/"): path.read_bytes()
        for name, path in found.items()
        if name != "server/__init__.py" and "__pycache__" not in name
    }


def python(folder: Path, code: str) -> str:
    """What code prints that runs in a process of its own, with that generation and Hearth on its path."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}",
        },
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def cached(folder: Path, stem: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"server/tools/__pycache__/{stem}.*"))


# Writing


def test_a_generation_lies_in_its_folder(folders: CodeFolders, tmp_path: Path) -> None:
    folder = folders.write(snapshot())
    assert folder == tmp_path / "code" / snapshot().hash and folder.is_absolute()
    assert content(folder) == FILES
    assert os.listdir(tmp_path / "code") == folders.present() == [snapshot().hash]
    for path in folder.rglob("*"):
        assert bool(stat.S_IMODE(path.stat().st_mode) & 0o222) == path.is_dir(), "files only are read-only"


def test_a_relative_folder_is_found_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = CodeFolders(Path("code"))
    monkeypatch.chdir("/")
    assert folders.write(snapshot()) == tmp_path / "code" / snapshot().hash


def test_a_folder_that_is_there_is_taken_as_it_is(folders: CodeFolders) -> None:
    folder = folders.write(snapshot())
    before = (folder / "server/tools/a.py").stat()
    (folder / "server/tools/result.txt").write_text("written by a tool")
    (folder / "server/tools/__pycache__").mkdir()
    (folder / "server/tools/__pycache__/x.pyc").touch()
    os.utime(folder, (1, 1))
    assert folders.write(snapshot(), like=snapshot().hash) == folder
    assert (folder / "server/tools/a.py").stat() == before
    assert (folder / "server/tools/result.txt").exists() and cached(folder, "x")
    assert folder.stat().st_mtime > time.time() - 60, "it counts as used"


def replace(file: Path, data: bytes) -> None:
    file.unlink()
    file.write_bytes(data)


def make_a_folder_of(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_a_link_of(file: Path) -> None:
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


def take_away(folder: Path) -> Path:
    folder.rename(folder.with_name("elsewhere"))
    return folder


DAMAGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda folder: replace(folder / "server/tools/a.py", b"VALUE = 2\n"),
    "truncated": lambda folder: replace(folder / "server/tools/a.py", b""),
    "a file missing": lambda folder: (folder / "server/tools/deep/words.csv").unlink(),
    "without its package": lambda folder: (folder / "server/__init__.py").unlink(),
    "a link in the place of a file": lambda folder: make_a_link_of(folder / "server/tools/a.py"),
    "a folder in the place of a file": lambda folder: make_a_folder_of(folder / "server/tools/a.py"),
    "one more module": lambda folder: (folder / "server/tools/c.py").touch(),
    "one more module at the top": lambda folder: (folder / "json.py").touch(),
    "one more extension": lambda folder: (folder / "server/tools/c.so").touch(),
    "a link in its place": lambda folder: take_away(folder).symlink_to("nowhere"),
    "a file in its place": lambda folder: take_away(folder).touch(),
    "an empty folder in its place": lambda folder: take_away(folder).mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_written_anew(folders: CodeFolders, tmp_path: Path, damage: str) -> None:
    folder = folders.write(snapshot())
    caches = folder / "server/tools/__pycache__"
    caches.mkdir()
    (caches / "a.cpython-311.pyc").write_bytes(b"of the damaged file")
    DAMAGES[damage](folder)
    assert folders.write(snapshot()) == folder
    assert content(folder) == FILES and not folder.is_symlink()
    assert not caches.exists(), "what was cached may be of the damaged file"
    assert set(os.listdir(tmp_path / "code")) - {"elsewhere"} == {snapshot().hash}


@given(path=st.text(max_size=20) | st.text(alphabet="./\\~toolsxpy\x00 ", max_size=20))
@example(path="../x.py")
@example(path="tools/../../../x.py")
@example(path="/tmp/x.py")
@example(path="//tmp/x.py")
@example(path="./tools/x.py")
@example(path="tools//x.py")
@example(path="tools/x.py\0")
@example(path="__init__.py")
@example(path="errors.py")
@example(path="tools/__pycache__/a.cpython-311.pyc")
@example(path="")
@example(path="tools")
def test_no_path_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    above = tmp_path_factory.mktemp("hostile")
    generation = Snapshot({path: b"x"})
    try:
        folder = CodeFolders(above / "code").write(generation)
    except StoreError:
        assert list(above.rglob("*.py")) == []
    else:
        assert path.startswith(("tools/", "agent/", "model/")) or path in ("model.py", "tools.py", "agent.py")
        assert content(folder) == {path: b"x"} and os.listdir(above) == ["code"]


@pytest.mark.parametrize("name", ["tools/x.py/y.csv", "tools/" + "x" * 300 + ".py"])
def test_names_that_no_file_system_has(folders: CodeFolders, tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="can't be written"):
        folders.write(Snapshot({"tools/x.py": b"", name: b""}))
    assert os.listdir(tmp_path / "code") == []


@pytest.mark.parametrize("like", ["../code", "/", "0123456789ab", "", "x\0"])
def test_a_generation_to_be_like_that_is_not_there(folders: CodeFolders, like: str) -> None:
    assert content(folders.write(snapshot(), like=like)) == FILES


def test_many_write_the_same_and_others_at_once(folders: CodeFolders, tmp_path: Path) -> None:
    others = [snapshot(a=b"VALUE = %d\n" % number) for number in range(5)]
    start = threading.Barrier(16)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        mine = CodeFolders(tmp_path / "code") if number % 2 else folders  # of another server, as it were
        start.wait()
        try:
            for turn in range(10):
                one = others[(number + turn) % 5]
                folder = mine.write(one, like=others[turn % 5].hash)
                assert content(folder) == one.files
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(os.listdir(tmp_path / "code")) == folders.present() == sorted(one.hash for one in others)


def test_many_mend_the_same_at_once(folders: CodeFolders, tmp_path: Path) -> None:
    folder = folders.write(snapshot())
    for _ in range(20):
        (folder / "server/tools/b.py").unlink()
        threads = [threading.Thread(target=folders.write, args=(snapshot(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert content(folder) == FILES and os.listdir(tmp_path / "code") == [snapshot().hash]


def test_a_full_disk(folders: CodeFolders, tmp_path: Path) -> None:
    first = folders.write(snapshot())
    (tmp_path / "size-wal").write_bytes(bytes(1000))
    large = snapshot(large=b"#" * 1001)
    with full_disk(os.getpid(), tmp_path / "size"):
        with pytest.raises(StoreError, match=rf"{large.hash} can't be written below .*code: File too large\."):
            folders.write(large, like=snapshot().hash)
        assert os.listdir(tmp_path / "code") == folders.present() == [snapshot().hash]
    assert content(first) == FILES
    assert content(folders.write(large)) == large.files


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "code").touch()
    folders = CodeFolders(tmp_path / "code")
    for use in (lambda: folders.write(snapshot()), folders.present, lambda: folders.trim([])):
        with pytest.raises(StoreError):
            use()


# What stays from one generation to the next


def test_files_that_did_not_change_are_linked_with_their_caches(folders: CodeFolders) -> None:
    first = folders.write(snapshot())
    python(first, "import server.tools.a, server.tools.b")
    caches = first / "server/tools/__pycache__"
    for name in ("a.f-1.py311.nbi", "b.f-1.py311.nbi", "b.f-1.py311.1.nbc", "b.cpython-311.pyc.1234", "bb.x.nbi"):
        (caches / name).write_bytes(name.encode())
    second = folders.write(snapshot(a=b"VALUE = 2\n"), like=first.name)
    for path in FILES:
        one, other = (first / "server" / path).stat(), (second / "server" / path).stat()
        assert (one.st_ino == other.st_ino) == (path != "tools/a.py"), path
    assert cached(second, "a") == [] and cached(second, "bb") == []
    assert cached(second, "b") == ["b.cpython-311.pyc", "b.f-1.py311.1.nbc", "b.f-1.py311.nbi"]
    for name in cached(second, "b"):
        assert (second / "server/tools/__pycache__" / name).samefile(caches / name)


def test_byte_code_is_used_after_an_edit_of_another_file(folders: CodeFolders) -> None:
    code = "import server.tools.a as a, server.tools.b as b; print(a.VALUE, b.VALUE, b.f.__code__.co_filename)"
    source = b"VALUE = 'b'\ndef f(): pass\n"
    first = folders.write(snapshot(b=source))
    python(first, code)
    second = folders.write(snapshot(a=b"VALUE = 2\n", b=source), like=first.name)
    copied = (second / "server/tools/__pycache__" / cached(second, "b")[0]).stat()
    assert python(second, code) == f"2 b {second}/server/tools/b.py"
    after = (second / "server/tools/__pycache__" / cached(second, "b")[0]).stat()
    assert (after.st_ino, after.st_mtime_ns) == (copied.st_ino, copied.st_mtime_ns), "it was not compiled again"


def test_byte_code_that_is_made_again_is_that_of_one_generation(folders: CodeFolders) -> None:
    """Python replaces byte-code and doesn't write into it, so another generation's stays as it is."""
    first = folders.write(snapshot())
    python(first, "import server.tools.b")
    second = folders.write(snapshot(a=b"VALUE = 2\n"), like=first.name)
    caches = [folder / "server/tools/__pycache__" / cached(folder, "b")[0] for folder in (first, second)]
    before = caches[0].read_bytes()
    os.utime(second / "server/tools/b.py", (1, 1))  # of both, by which both caches are stale
    assert python(second, "from server.tools.b import VALUE; print(VALUE)") == "b"
    assert caches[0].read_bytes() == before != caches[1].read_bytes()


def test_two_edits_of_one_size_within_a_second_are_two_texts(folders: CodeFolders) -> None:
    code = "from server.tools.a import VALUE; print(VALUE)"
    earlier = None
    for number in (1, 2, 1, 3):
        folder = folders.write(snapshot(a=b"VALUE = %d\n" % number), like=earlier)
        earlier = folder.name
        os.utime(folder / "server/tools/a.py", (1_700_000_000, 1_700_000_000))
        assert python(folder, code) == str(number)
        assert cached(folder, "a"), "byte-code was cached"


def test_the_same_bytes_in_another_file_take_no_cache_along(folders: CodeFolders) -> None:
    first = folders.write(snapshot(a=b"VALUE = 1\n", b=b"VALUE = 2\n"))
    python(first, "import server.tools.a, server.tools.b")
    second = folders.write(snapshot(a=b"VALUE = 2\n", b=b"VALUE = 1\n"), like=first.name)
    assert cached(second, "a") == cached(second, "b") == []
    assert python(second, "from server.tools import a, b; print(a.VALUE, b.VALUE)") == "2 1"


@pytest.mark.parametrize(
    ("user", "changed", "stays"),
    [
        (b"X = 1\n", {"tools/a.py": b"VALUE = 2\n"}, True),
        (b"from server.tools.a import VALUE\n", {"tools/a.py": b"VALUE = 2\n"}, False),
        (b"from .a import VALUE\n", {"tools/a.py": b"VALUE = 2\n"}, False),
        (b"from .through import VALUE\n", {"tools/a.py": b"VALUE = 2\n"}, False),
        (b"from .through import VALUE\n", {"tools/b.py": b"VALUE = 2\n"}, True),
        (b"from .gone import VALUE\n", {"tools/gone.py": None}, False),
        (b"from . import new\n", {"tools/new.py": b""}, False),
        (b"from server.tools.through import *\n", {"tools/__init__.py": b"X = 1\n"}, False),
        (b"open('words.csv')\n", {"tools/deep/words.csv": b"three"}, False),
        (b"ab = a_ = 1\n", {"tools/a.py": b"VALUE = 2\n"}, True),
    ],
)
def test_what_numba_has_compiled_stays_unless_it_may_hold_other_code(
    folders: CodeFolders, user: bytes, changed: dict[str, bytes | None], stays: bool
) -> None:
    files = snapshot(user=user, through=b"from .a import VALUE\n", gone=b"VALUE = 1\n").files
    first = folders.write(Snapshot(files))
    (first / "server/tools/__pycache__").mkdir()
    for name in ("user.f-1.py311.nbi", "user.cpython-311.pyc"):
        (first / "server/tools/__pycache__" / name).touch()
    after = {path: data for path, data in {**files, **changed}.items() if data is not None}
    second = folders.write(Snapshot(after), like=first.name)
    assert cached(second, "user") == ["user.cpython-311.pyc", *["user.f-1.py311.nbi"] * stays]


def test_where_links_are_refused_the_files_are_written(folders: CodeFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folders.write(snapshot())
    python(first, "import server.tools.b")

    def refuse(*places: object, **options: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    second = folders.write(snapshot(a=b"VALUE = 2\n"), like=first.name)
    assert content(second) == snapshot(a=b"VALUE = 2\n").files
    assert cached(second, "b") == []


def test_a_file_that_somebody_made_writable_is_not_linked(folders: CodeFolders) -> None:
    first = folders.write(snapshot())
    (first / "server/tools/b.py").chmod(0o644)
    second = folders.write(snapshot(a=b"VALUE = 2\n"), like=first.name)
    assert not (second / "server/tools/b.py").samefile(first / "server/tools/b.py")
    assert (second / "server/tools/a.py").stat().st_nlink == 1


def test_a_damaged_earlier_generation_spoils_nothing(folders: CodeFolders) -> None:
    first = folders.write(snapshot())
    replace(first / "server/tools/b.py", b"VALUE = 'x'\n")
    (first / "server/tools/deep/words.csv").unlink()
    after = snapshot(a=b"VALUE = 2\n")
    assert content(folders.write(after, like=first.name)) == after.files


# Processes that people's code starts


def test_a_process_finds_the_generation_and_hearth(folders: CodeFolders) -> None:
    folder = folders.write(snapshot())
    found = json.loads(
        python(
            folder,
            "import json, pkgutil, importlib.resources as resources\n"
            "import server.tools.a, server.errors, server.sdk\n"
            "import server.tools as tools\n"
            "words = [(resources.files(tools) / 'deep/words.csv').read_text(),\n"
            "         pkgutil.get_data('server.tools', 'deep/words.csv').decode()]\n"
            "print(json.dumps([server.tools.a.__file__, server.errors.__file__, server.sdk.__file__, *words]))",
        )
    )
    assert found == [
        str(folder / "server/tools/a.py"),
        str(REPOSITORY / "server/errors.py"),
        str(REPOSITORY / "server/sdk/__init__.py"),
        "one,two\n",
        "one,two\n",
    ]


def test_a_pool_of_spawned_processes(folders: CodeFolders) -> None:
    """As in a worker: `server` is Hearth's own, and the generation's files come first in it."""
    work = b"import os\ndef work(x):\n    import server.errors\n    return 2 * x, __file__, os.getpid()\n"
    folder = folders.write(snapshot(job=work))
    found = json.loads(
        python(
            REPOSITORY,
            "import json, multiprocessing, os, sys\n"
            "import server\n"
            f"server.__path__.insert(0, {str(folder / 'server')!r})\n"
            f"sys.path.insert(0, {str(folder)!r})\n"
            "from server.tools.job import work\n"
            "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
            "    print(json.dumps([*pool.apply(work, (21,)), os.getpid()]))",
        )
    )
    assert found[:2] == [42, str(folder / "server/tools/job.py")] and found[2] != found[3]


# Removing


def test_a_generation_is_removed(folders: CodeFolders, tmp_path: Path) -> None:
    one, other = snapshot(), snapshot(a=b"VALUE = 2\n")
    folders.write(one)
    folders.write(other, like=one.hash)
    for generation in (one.hash, one.hash, "0123456789ab", "../code", "", "."):
        folders.remove(generation)
    assert os.listdir(tmp_path / "code") == folders.present() == [other.hash]
    assert content(folders.write(other)) == other.files


def test_what_was_used_least_recently_is_removed(folders: CodeFolders, tmp_path: Path) -> None:
    written = [folders.write(snapshot(a=b"VALUE = %d\n" % number)) for number in range(6)]
    for number, folder in enumerate(written):
        os.utime(folder, (1000 + number, 1000 + number))
    folders.write(snapshot(a=b"VALUE = 1\n"))
    folders.trim(in_use=[written[0].name, "0123456789ab"], most=2)
    assert folders.present() == sorted(written[number].name for number in (0, 1, 5))
    folders.trim(in_use=[], most=0)
    assert os.listdir(tmp_path / "code") == []
    CodeFolders(tmp_path / "never").trim([])


def test_what_is_used_meanwhile_stays(folders: CodeFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folders.write(snapshot())
    os.utime(folder, (1000, 1000))
    listed = folders.present

    def use_then_discard(self: CodeFolders, target: Path, unless_used_since: int | None = None) -> None:
        assert folders.write(snapshot()) == target
        discard(self, target, unless_used_since)

    discard = CodeFolders._discard
    monkeypatch.setattr(CodeFolders, "_discard", use_then_discard)
    folders.trim([], most=0)
    assert listed() == [snapshot().hash] and content(folder) == FILES


def test_what_a_killed_server_left_goes_in_the_end(folders: CodeFolders, tmp_path: Path) -> None:
    folder = folders.write(snapshot())
    for name in (".draft-old", ".draft-new", ".discarded-x"):
        (tmp_path / "code" / name / "server").mkdir(parents=True)
    os.utime(tmp_path / "code/.draft-old", (1000, 1000))
    assert folders.present() == [folder.name]
    folders.trim([])
    assert sorted(os.listdir(tmp_path / "code")) == sorted([".draft-new", folder.name])


def test_writing_and_trimming_at_once(folders: CodeFolders) -> None:
    """What `write` has just given is there, however much is removed."""
    stop = threading.Event()

    def trim() -> None:
        while not stop.is_set():
            folders.trim([], most=3)

    trimmer = threading.Thread(target=trim)
    trimmer.start()
    try:
        for number in range(150):
            one = snapshot(a=b"VALUE = %d\n" % (number % 7))
            assert content(folders.write(one)) == one.files
    finally:
        stop.set()
        trimmer.join()
    folders.trim([], most=3)
    assert len(folders.present()) == 3
