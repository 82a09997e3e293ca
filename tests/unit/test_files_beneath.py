"""Opening what is in a hostile folder, with openat2 and without it; and removing such a folder."""

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from server.files.beneath import FOLDER, open_beneath, open_by_components, open_regular, opened
from server.files.removal import remove_tree

NOBODY = 65534

Opener = Callable[[int, str], int]


@pytest.fixture(params=[open_beneath, open_by_components], ids=["openat2", "components"])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Both ways to open."""
    found: Opener = request.param
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file, a folder, and links."""
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("data")
    (folder / "link").symlink_to("inner/file")
    (folder / "inner-link").symlink_to("inner")
    return folder


def test_a_file_is_opened(root: Path, opener: Opener) -> None:
    with opened(os.open(root, FOLDER)) as descriptor, opened(opener(descriptor, "inner/file")) as file:
        assert os.read(file, 10) == b"data"


@pytest.mark.parametrize(
    "path",
    ["link", "inner-link/file", "../outside", "inner/../../outside", "inner/../inner/file", "/etc/passwd", "nothing"],
)
def test_nothing_else_is(root: Path, opener: Opener, path: str) -> None:
    with opened(os.open(root, FOLDER)) as descriptor, pytest.raises(OSError):
        os.close(opener(descriptor, path))


def test_a_fifo_does_not_block(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with opened(os.open(root, FOLDER)) as descriptor, pytest.raises(OSError):
        open_regular(descriptor, "pipe")


def test_no_descriptor_is_left_open(root: Path, opener: Opener) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with opened(os.open(root, FOLDER)) as descriptor:
        for path in ("inner/file", "link", "inner/nothing", "inner/file/x", "inner"):
            try:
                os.close(opener(descriptor, path))
            except OSError:
                continue
    assert len(os.listdir("/proc/self/fd")) <= before


def build_and_remove(root: Path) -> None:
    """As the user of a session's code, and then as the server, which is the same user."""
    for name in ("a/b/c", "a/b/d", "e"):
        (root / name).mkdir(parents=True)
        (root / name / "file").touch()
        (root / name / "link").symlink_to("/etc")
    for name in ("a/b/c", "a/b/d", "a/b", "a", "e"):
        (root / name).chmod(0o444 if name == "a/b" else 0)
    remove_tree(root)


def test_folders_without_permissions_are_removed_by_their_owner() -> None:
    # Not tmp_path: only root may enter it, and root needs no permissions. So a child becomes an ordinary user.
    with tempfile.TemporaryDirectory() as folder:
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if os.getuid() == 0:
                    os.setresuid(NOBODY, NOBODY, NOBODY)
                build_and_remove(Path(folder, "root"))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert os.listdir(folder) == []


def test_a_folder_with_a_thousand_folders(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / "root" / str(number % 10) / str(number)).mkdir(parents=True)
    remove_tree(tmp_path / "root")
    assert list(tmp_path.iterdir()) == []
