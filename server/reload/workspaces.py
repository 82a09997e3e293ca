"""The workspaces: the common code, and each person's files over it."""

import os
import re
import threading
from pathlib import Path
from weakref import WeakValueDictionary

from server.errors import ForbiddenError, InvalidPathError, WorkspaceNotFoundError
from server.reload.overlay import Overlay, over
from server.reload.snapshot import Snapshot, Stamp, read_snapshot, read_stamp
from server.reload.workspace import CodeRunner, Workspace

MAIN = "main"
"""The workspace whose code is the repository's own."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MOST_NAMED = 10


class Workspaces:
    """`main`, whose files lie below `root`, and the others, each a folder of its own below `folder`.

    The code of another one is `main`'s live code with its own files over it, as both were when it was loaded: so a
    half-edited file of `main` is nobody's trouble, and a change to `main` reaches the others at their next reload.
    """

    def __init__(self, root: Path, folder: Path, runner: CodeRunner) -> None:
        self.main = Workspace(MAIN, root, runner)
        self._folder = folder
        self._runner = runner
        self._others: dict[str, Workspace] = {}
        # Concurrent writers to a workspace share one overlay; unused ones are dropped.
        self._overlays: WeakValueDictionary[str, Overlay] = WeakValueDictionary()
        self._making = threading.Lock()

    def get(self, name: str) -> Workspace:
        """The workspace of that name. Raises `WorkspaceNotFoundError`."""
        if name == MAIN:
            return self.main
        if not self.exists(name):
            known = self.names()
            more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
            raise WorkspaceNotFoundError(
                f"There is no workspace {name!r}. There is: {', '.join(known[:_MOST_NAMED])}{more}. "
                "PUT /workspaces/<name>/files/<path> makes one."
            )
        overlay = self._overlay(name)
        with self._making:
            if name not in self._others:
                self._others[name] = Workspace(name, self.main.root, self._runner, Overlaid(self.main, overlay))
            return self._others[name]

    def files(self, name: str) -> Overlay:
        """The files of a workspace other than `main`, which need not be there yet.

        Raises `ForbiddenError` for `main`, `InvalidPathError` for what can't be a name.
        """
        if name == MAIN:
            raise ForbiddenError("The code of main is changed by editing the repository's files, and not over HTTP.")
        if not _NAME.fullmatch(name):
            raise InvalidPathError(
                "A workspace's name is 1 to 64 lower-case letters, digits, - and _, and doesn't begin with a sign."
            )
        return self._overlay(name)

    def exists(self, name: str) -> bool:
        """Whether there is a workspace of that name."""
        return name == MAIN or (_NAME.fullmatch(name) is not None and self._overlay(name).exists)

    def names(self) -> list[str]:
        """The names of all that there are, `main` first."""
        found = os.listdir(self._folder) if os.path.isdir(self._folder) else []
        others = [name for name in found if _NAME.fullmatch(name) and os.path.isdir(self._folder / name)]
        return [MAIN, *sorted(name for name in others if name != MAIN)]

    def in_use(self) -> list[Workspace]:
        """The workspaces that were used since the start, `main` first."""
        with self._making:
            return [self.main, *self._others.values()]

    def folders(self) -> list[Path]:
        """The folders of all files."""
        return [self.main.root, self._folder]

    def using(self, generation: str) -> list[str]:
        """The names of the workspaces where a generation of that hash is live."""
        return [space.name for space in self.in_use() if space.live is not None and space.live.hash == generation]

    def _overlay(self, name: str) -> Overlay:
        with self._making:
            return self._overlays.setdefault(name, Overlay(self._folder / name))


class Overlaid:
    """The files of a workspace: `main`'s live code, or its files before any is live, with a person's over it."""

    def __init__(self, main: Workspace, overlay: Overlay) -> None:
        self._main = main
        self._overlay = overlay

    def snapshot(self) -> Snapshot:
        """See `Files`."""
        live = self._main.live
        common = live.snapshot if live is not None else read_snapshot(self._main.root)
        return over(common, self._overlay.snapshot())

    def stamp(self) -> Stamp:
        """See `Files`."""
        live, own = self._main.live, read_stamp(self._overlay.folder)
        if live is None:
            return Stamp(own.states, settled=False)
        return Stamp(own.states | {("main", live.hash)}, own.settled)
