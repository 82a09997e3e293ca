"""Loading people's code: on request, before a question, and when a file is saved."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from server.errors import GenerationInUseError, HearthError
from server.models.resident import ResidentModels
from server.reload.code_folder import CodeFolders
from server.reload.snapshot import Snapshot
from server.reload.workspace import ReloadReport, Workspace
from server.reload.workspaces import MAIN, Workspaces
from server.runs.runs import Runs
from server.store import GenerationStore

log = logging.getLogger(__name__)

_QUIET_MILLISECONDS = 50
"""Saves within this time are reported together."""
_LONGEST_MILLISECONDS = 1000
"""The longest time that saves are collected."""


class CodeLoader:
    """Loads the code of workspaces. Tools may call the model while they are built, so before a model was ready code
    is loaded without its tools. Safe for any number of threads."""

    def __init__(
        self,
        workspaces: Workspaces,
        models: ResidentModels,
        generations: GenerationStore,
        folders: CodeFolders,
        runs: Runs,
    ) -> None:
        self._workspaces = workspaces
        self._models = models
        self._generations = generations
        self._folders = folders
        self._runs = runs

    def reload(self, workspace: str = MAIN, dry_run: bool = False, generation: str | None = None) -> ReloadReport:
        """Load the code on disk, or with `dry_run` only try it.

        `generation`, a hash or the beginning of one, makes an earlier generation live instead; the files don't
        change. Raises `ReloadFailedError`, `WorkspaceNotFoundError`, `GenerationNotFoundError`, `StoreError`.
        """
        space = self._workspaces.get(workspace)
        snapshot = None if generation is None else Snapshot(self._generations.files(generation))
        return space.reload(self._models.had_one, dry_run, snapshot)

    def catch_up(self, space: Workspace, check: Callable[[], object] = lambda: None) -> ReloadReport | None:
        """See `Workspace.catch_up`."""
        return space.catch_up(self._models.had_one, check)

    def load_tools(self, workspace: str = MAIN) -> None:
        """Build the tools of the workspace's live code, if they aren't built.

        Raises `ModelNotLoadedError` without a model, and `ReloadFailedError`.
        """
        space = self._workspaces.get(workspace)
        with self._models.use():
            if space.live is None:
                space.reload(self._models.had_one)
            space.build_tools()

    def delete_generation(self, generation: str) -> str:
        """Delete a generation, by its hash or the beginning of one. Returns its hash.

        Raises `GenerationNotFoundError`, and `GenerationInUseError` if it is live or a run names it.
        """
        found = self._generations.find(generation)
        users = self._workspaces.using(found)
        if users:
            raise GenerationInUseError(f"Generation {found} is live in {', '.join(users)}. It can't be deleted.")
        if any(run.generation == found for run in self._runs.in_flight()):
            raise GenerationInUseError(f"A run is using generation {found}. It can't be deleted.")
        self._generations.delete(found)
        self._folders.remove(found)
        return found

    def watch(self, stop: threading.Event) -> None:
        """Reload files as soon as they are saved, until `stop` is set. Blocks. Failures are logged."""
        for changed in _saved(self._workspaces.folders(), stop):
            log.debug("saved: %s", changed)
            for space in self._workspaces.in_use():
                try:
                    report = self.catch_up(space)
                except HearthError as error:
                    log.warning("%s: %s", space.name, error.message)
                except Exception:  # boundary: the watcher must continue
                    log.exception("%s can't be reloaded", space.name)
                else:
                    if report is not None:
                        log.info("%s: generation %s is live", space.name, report.generation)


def _saved(folders: Sequence[Path], stop: threading.Event) -> Iterator[list[str]]:
    """Yields the paths that were saved below any of `folders`, until `stop` is set.

    Only a hint: a network file system may report nothing, and of many changes at once some may be missing.
    """
    import watchfiles

    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for changes in watchfiles.watch(
        *folders,
        step=_QUIET_MILLISECONDS,
        debounce=_LONGEST_MILLISECONDS,
        stop_event=stop,
        raise_interrupt=False,
        ignore_permission_denied=True,
    ):
        yield sorted({path for _, path in changes})
