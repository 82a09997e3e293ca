"""A workspace: one researcher's reloadable code, of which one generation is live."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from server.errors import HearthError, ReloadFailedError, StoreError, ToolsNotLoadedError
from server.observability import metrics, tracing
from server.observability import semantic_conventions as names
from server.reload.changes import changed_modules, changed_tools
from server.reload.code_folder import CodeFolders
from server.reload.generation import Generation
from server.reload.snapshot import MCP_FILE, SERVER, Snapshot, Stamp, read_snapshot, read_stamp
from server.store import GenerationStore
from server.workers.failure import LoadError
from server.workers.kept_values import KeptStore
from server.workers.pool import Workers

log = logging.getLogger(__name__)

_NOTICE_SECONDS = 0.1
"""Interval at which a caller that waits for another reload checks whether to continue waiting."""


@dataclass(frozen=True)
class ReloadReport:
    """What a reload did, or, for a dry run, would have done.

    `generation` is the hash of the code that was read, `previous` that of the generation that was live
    before. `changed` names modules like `tools.calculator`, and data files, whose bytes differ. `tools` has the lists
    `added`, `removed` and `changed` (see `changes.ToolInfo` for what counts); all three are empty when the tools were
    not built. `rebuilt` names the values of `keep` that can't be saved, so that each worker builds its own.
    `warnings`: what was loaded and may not be what its author meant, each with a `file` and a `message`.
    """

    workspace: str
    generation: str
    previous: str | None
    changed: list[str]
    tools: dict[str, list[str]]
    seconds: float
    rebuilt: list[str] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)


class Files(Protocol):
    """Where a workspace's files come from."""

    def snapshot(self) -> Snapshot:
        """The files as they are now. Raises `LoadError`."""

    def stamp(self) -> Stamp:
        """A value that changes when the files do."""


class FilesOf:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def snapshot(self) -> Snapshot:
        """See `Files`."""
        return read_snapshot(self._root)

    def stamp(self) -> Stamp:
        """See `Files`."""
        return read_stamp(self._root)


OnLive = Callable[[str, str, str | None, bool], object]
"""Gets the workspace, the hash of its new generation, that of the one before, and whether an earlier one was brought
back."""


@dataclass(frozen=True)
class CodeRunner:
    """What all workspaces load their code with."""

    workers: Workers
    folders: CodeFolders
    store: GenerationStore
    kept_folder: Path
    """The folder of the values that `keep` saves, with a folder for each workspace."""
    deadline_seconds: float
    """Time limit for loading code, and for building its tools."""
    on_live: OnLive = lambda *_: None
    """Called when another generation has become live."""


@dataclass(frozen=True)
class _LastRead:
    """The last reload from the files: their stamp, the hash of their content (None: they could not be read), and the
    error if they were refused."""

    stamp: Stamp
    content: str | None
    refusal: ReloadFailedError | None = None


class Workspace:
    """The reloadable code that `files` holds, laid out like `server/`, and the generations of it.

    Any number of threads may pin and reload. Reloads happen one after the other, and each uses the files at the time
    when it starts. A waiting caller calls `check` regularly, which may raise. Every generation is saved in the store
    before it becomes live.
    """

    def __init__(self, name: str, root: Path, runner: CodeRunner, files: Files | None = None) -> None:
        """Without `files`, they are those below `root`."""
        self.name = name
        self.root = root
        self.kept = KeptStore(runner.kept_folder / name)
        """The values that its code saves with `keep`."""
        self._runner = runner
        self._files = files or FilesOf(root)
        self.has_code = threading.Event()
        """Set once a generation is live."""
        self._live: Generation | None = None
        self._in_use: dict[str, Generation] = {}
        """The live generation and those that runs still use, by hash."""
        self._last_read: _LastRead | None = None
        self._reloading = threading.Lock()
        # Guards `_live`, `_in_use` and every generation's `pins`. Reentrant, since a pin may be dropped by the
        # collector.
        self._counting = threading.RLock()

    @property
    def live(self) -> Generation | None:
        """The generation that the next run will use. Pin it before using it."""
        return self._live

    @contextmanager
    def pin(self, with_tools: bool = True) -> Iterator[Generation]:
        """The live generation. It stays loaded until the block ends, whatever is reloaded meanwhile.

        Raises `ToolsNotLoadedError` if there is no generation, or if its tools are not built (unless
        `with_tools` is false).
        """
        with self._counting:
            generation = self._live
            if generation is None or (with_tools and generation.tools is None):
                raise ToolsNotLoadedError(
                    f"The tools of the workspace {self.name!r} are not loaded. Load them first."
                )
            generation.pins += 1
        try:
            yield generation
        finally:
            self._unpin(generation)

    @contextmanager
    def pin_earlier(self, wanted: str, check: Callable[[], object] = lambda: None) -> Iterator[Generation]:
        """The generation of that hash with its tools built. It stays loaded until the block ends, and does not become
        live. It is loaded from the store unless it is in use already.

        Raises `GenerationNotFoundError`, and `ReloadFailedError` if it can't be loaded any more.
        """
        with self._counting:  # what is in use does not wait for somebody's reload
            found = self._in_use.get(wanted)
            if found is not None and found.tools is None:
                found = None
            if found is not None:
                found.pins += 1
        if found is not None:
            try:
                yield found
            finally:
                self._unpin(found)
            return
        with self._exclusive(check):
            try:
                generation = self._load(Snapshot(self._runner.store.files(wanted)), build=True)
            except LoadError as failure:
                raise self._failed(failure) from None
            generation.go_live()
        try:
            yield generation
        finally:
            self._unpin(generation)

    def reload(self, build: bool, dry_run: bool = False, snapshot: Snapshot | None = None) -> ReloadReport:
        """Read the files; if they differ from the live generation, load them and make them live. `snapshot` replaces
        the files, which don't change.

        With `build` the tools are built as well; else they are left for later. The same bytes as the live ones
        change nothing, except that tools which were not built yet are built, and that MCP servers are asked for
        their tools again. A dry run does everything but
        the change. Raises `ReloadFailedError`, `WorkerUnavailableError`, and `StoreError` if the new code can't be
        saved on disk; then nothing has changed.
        """
        with self._exclusive(), tracing.span("reload", {names.WORKSPACE: self.name}):
            return self._reload(build, dry_run, snapshot, asks_again=True)

    def catch_up(self, build: bool, check: Callable[[], object] = lambda: None) -> ReloadReport | None:
        """Reload if the files have changed since the last read. They are not read again if the file system reports no
        change. Returns None if nothing had to be done; then there is a live generation.

        Raises what `reload` raises. Files that could not be loaded raise the same error again until they change.
        """
        with self._exclusive(check):
            last, stamp = self._last_read, self._files.stamp()
            if last is not None:
                unchanged = stamp == last.stamp and last.stamp.settled
                if not unchanged and last.content is not None and self._content() == last.content:
                    unchanged = True
                    self._last_read = replace(last, stamp=stamp)
                if unchanged and last.refusal is not None:
                    raise ReloadFailedError(last.refusal.message, **last.refusal.details)
                if unchanged:
                    return None
            with tracing.span("reload", {names.WORKSPACE: self.name}):
                return self._reload(build)

    def _reload(
        self, build: bool, dry_run: bool = False, snapshot: Snapshot | None = None, asks_again: bool = False
    ) -> ReloadReport:
        started = time.perf_counter()
        live = self._live
        before = (live.tools if live else None) or {}
        stamp, content = self._files.stamp(), None
        try:
            wanted = self._files.snapshot() if snapshot is None else snapshot
            content = wanted.hash
            generation = self._load(wanted, build, dry_run, asks_again)
        except LoadError as failure:
            metrics.RELOADS.labels("failed").inc()
            refusal = self._failed(failure)
            if snapshot is None and not dry_run:
                # A copy: the one that is raised gets a traceback.
                self._last_read = _LastRead(stamp, content, ReloadFailedError(refusal.message, **refusal.details))
            raise refusal from None
        try:
            tools = changed_tools(before, before if generation.tools is None else generation.tools)
            is_new = live is None or generation.snapshot != live.snapshot
            if not dry_run:
                if is_new:
                    self._runner.store.record_live(self.name, generation.hash, wanted.files)
                # Before the first question gets the new code, so that it finds the values that the code has built.
                generation.go_live()
                self._swap(generation)
                if is_new:
                    self._runner.on_live(
                        self.name, generation.hash, live.hash if live else None, snapshot is not None
                    )
        finally:
            self._unpin(generation)
        if not dry_run:
            # Unchanged files must not replace a generation that was brought back.
            self._last_read = _LastRead(stamp, content if snapshot is None else self._content())
            self._runner.workers.learn(generation.imports)
        metrics.RELOADS.labels("done").inc()
        return ReloadReport(
            workspace=self.name,
            generation=wanted.hash,
            previous=live.hash if live else None,
            changed=changed_modules(live.snapshot if live else None, wanted),
            tools=tools,
            seconds=time.perf_counter() - started,
            rebuilt=self.kept.rebuilt(),
            warnings=[*map(_ignored, wanted.ignored), *generation.warnings],
        )

    def _content(self) -> str | None:
        """The hash of the files' content; None if they can't be read or are too many."""
        try:
            return self._files.snapshot().hash
        except (LoadError, HearthError):
            return None

    @contextmanager
    def _exclusive(self, check: Callable[[], object] = lambda: None) -> Iterator[None]:
        while not self._reloading.acquire(timeout=_NOTICE_SECONDS):
            check()
        try:
            yield
        finally:
            self._reloading.release()

    def build_tools(self, check: Callable[[], object] = lambda: None) -> None:
        """Build the tools of the live generation if they are not built yet. The files are not read.

        Raises `ToolsNotLoadedError` if there is no generation, `ReloadFailedError` if the tools can't be
        built.
        """
        live = self._live
        if live is not None and live.tools is not None:
            return  # a question does not wait for another's reload
        with self._exclusive(check), self.pin(with_tools=False) as generation:
            if generation.tools is None:
                try:
                    generation.build_tools()
                except LoadError as failure:
                    raise self._failed(failure) from None

    def forget(self, name: str) -> bool:
        """Delete a value of `keep`. It is built again on its next use. Returns whether there was one."""
        known = self.kept.drop(name)
        for worker in self._runner.workers.of(self.name):
            worker.forget(name)
        return known

    def _load(self, snapshot: Snapshot, build: bool, dry_run: bool = False, asks_again: bool = False) -> Generation:
        """The generation of these files, if it is in use, else a new one; with `build`, its tools are built.

        It is pinned for the caller. A dry run changes nothing that is in use. `asks_again`: if the files name MCP
        servers, it is a new one in any case, which asks them.
        """
        generation = None
        asks_again = asks_again and build and MCP_FILE in snapshot.files
        with self._counting:
            live, found = self._live, self._in_use.get(snapshot.hash)
            is_unbuilt = dry_run and build and found is not None and found.tools is None
            if found is not None and found.snapshot == snapshot and not is_unbuilt and not asks_again:
                generation = found
                generation.pins += 1
        if generation is None:
            runner, name = self._runner, snapshot.hash
            like = live.hash if live is not None else None
            generation = Generation(
                snapshot,
                lambda: runner.folders.write(snapshot, like),
                lambda folder: runner.workers.start(folder, self.name, name, self.kept),
                runner.deadline_seconds,
            )
            with self._counting:
                generation.pins += 1
                self._in_use.setdefault(generation.hash, generation)
            try:
                runner.folders.trim({name, *self._in_use, *(worker.generation for worker in runner.workers.all())})
            except StoreError as error:  # the code is loaded all the same
                log.warning("old code stays: %s", error.message)
        if build and generation.tools is None:
            try:
                generation.build_tools()
            except BaseException:
                self._unpin(generation)
                raise
        return generation

    def _swap(self, generation: Generation) -> None:
        with self._counting:
            previous, self._live = self._live, generation
            self._in_use[generation.hash] = generation
            generation.pins += 1
        self.has_code.set()
        if previous is not None:
            self._unpin(previous)

    def _unpin(self, generation: Generation) -> None:
        with self._counting:
            generation.pins -= 1
            ended = generation.pins == 0
            if ended and self._in_use.get(generation.hash) is generation:
                del self._in_use[generation.hash]
        if ended:
            generation.close()

    def _failed(self, failure: LoadError) -> ReloadFailedError:
        serving = self._live.hash if self._live else None
        still = f"generation {serving} continues to serve" if serving else "no generation is being served yet"
        first = failure.errors[0]
        place = f" in {first['file']}" if first["file"] else ""
        more = f" ({len(failure.errors)} errors in all)" if len(failure.errors) > 1 else ""
        return ReloadFailedError(
            f"The code could not be loaded, {still}. {first['type']}{place}: {first['message']}{more}",
            errors=failure.errors,
            generation=serving,
        )


def _ignored(name: str) -> dict[str, str]:
    message = (
        "it is ignored, because its name can't be imported: the names of modules and of their folders have only "
        "letters, digits and _, and begin with no digit. Rename it or delete it"
    )
    return {"file": f"{SERVER}/{name}", "message": message}
