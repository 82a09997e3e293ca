"""A workspace: one researcher's reloadable code, of which one generation is live."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import ReloadFailedError, ToolsNotLoadedError
from server.reload.failure import LoadError
from server.reload.generation import Generation, changed_modules, load_generation
from server.reload.snapshot import Snapshot, read_snapshot
from server.reload.toolset import compare

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


@dataclass(frozen=True)
class ReloadReport:
    """What a reload did, or, for a dry run, would have done.

    `generation` is the hash of the code that was read, `previous` that of the generation that was live
    before. `changed` names modules like `tools.calculator` whose bytes differ. `tools` has the lists `added`,
    `removed` and `changed` (see `toolset.Traits` for what counts); all three are empty when the tools were
    not built. `left_behind` has a sentence for each thing that the code did to the process while it was loaded,
    put back or not (see `residue`).
    """

    workspace: str
    generation: str
    previous: str | None
    changed: list[str]
    tools: dict[str, list[str]]
    seconds: float
    left_behind: list[str] = field(default_factory=list)


class Workspace:
    """The reloadable code below `root`, a folder laid out like `server/`.

    Any number of threads may pin and reload. Reloads go one after the other and each caller gets the verdict
    on the bytes that were there when its turn came. Loading code, and building tools, may each take
    `deadline_seconds`.
    """

    def __init__(self, name: str, root: Path, deadline_seconds: float) -> None:
        self.name = name
        self.root = root
        self.deadline_seconds = deadline_seconds
        self._live: Generation | None = None
        self._reloading = threading.Lock()
        # Guards `_live` and every generation's `pins`. Reentrant, since a pin may be dropped by the
        # collector.
        self._counting = threading.RLock()

    @property
    def live(self) -> Generation | None:
        """The generation that the next run will use. To use it for longer than a glance, pin it."""
        return self._live

    @contextmanager
    def pin(self, with_tools: bool = True) -> Iterator[Generation]:
        """The live generation, kept whole until the block ends, whatever is reloaded meanwhile.

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

    def reload(self, llm: "BaseChatModel | None", dry_run: bool = False) -> ReloadReport:
        """Read the files; if they are not what is live, load them and make them live.

        The tools are built with `llm`; without one they are left for later. The same bytes as the live ones
        change nothing, except that tools which were not built yet are built. A dry run does everything but
        the change. Raises `ReloadFailedError`, and then nothing has changed.
        """
        started = time.perf_counter()
        with self._reloading:
            live = self._live
            traits = live.traits if live else {}
            known = len(live.left_behind) if live else 0
            try:
                snapshot = self._read()
                generation = self._load(snapshot, llm, dry_run)
            except LoadError as failure:
                raise self._failed(failure) from None
            tools = compare(traits, generation.traits if generation.tools is not None else traits)
            if dry_run and generation is not live:
                generation.close()
            elif generation is not live:
                self._swap(generation)
        return ReloadReport(
            workspace=self.name,
            generation=snapshot.hash,
            previous=live.hash if live else None,
            changed=changed_modules(live.snapshot if live else None, snapshot),
            tools=tools,
            seconds=time.perf_counter() - started,
            left_behind=generation.left_behind[known if generation is live else 0 :],
        )

    def build_tools(self, llm: "BaseChatModel") -> None:
        """Build the tools of the live generation if they are not built yet; the files are not looked at.

        Raises `ToolsNotLoadedError` if there is no generation, `ReloadFailedError` if the tools can't be
        built.
        """
        with self._reloading, self.pin(with_tools=False) as generation:
            if generation.tools is None:
                try:
                    generation.build_tools(llm)
                except LoadError as failure:
                    raise self._failed(failure) from None

    def _read(self) -> Snapshot:
        """The files as they are now: the one place that knows where a workspace's files come from."""
        return read_snapshot(self.root)

    def _load(self, snapshot: Snapshot, llm: "BaseChatModel | None", dry_run: bool) -> Generation:
        """The live generation if that is what the files hold, else a new one; its tools built with `llm`."""
        live = self._live
        unbuilt = llm is not None and live is not None and live.tools is None
        if live is not None and live.snapshot == snapshot and not (unbuilt and dry_run):
            generation = live
        else:
            known = live.sources if live else {}
            generation = load_generation(snapshot, self.root, self.deadline_seconds, known)
        if llm is not None and generation.tools is None:
            try:
                generation.build_tools(llm)
            except LoadError as failure:
                if generation is not live:
                    failure.left_behind = generation.left_behind + failure.left_behind
                    generation.close()
                raise
        return generation

    def _swap(self, generation: Generation) -> None:
        with self._counting:
            previous, self._live = self._live, generation
            generation.pins += 1
        if previous is not None:
            self._unpin(previous)

    def _unpin(self, generation: Generation) -> None:
        with self._counting:
            generation.pins -= 1
            ended = generation.pins == 0
        if ended:
            generation.close()

    def _failed(self, failure: LoadError) -> ReloadFailedError:
        serving = self._live.hash if self._live else None
        still = f"generation {serving} goes on serving" if serving else "no generation is being served yet"
        first = failure.errors[0]
        place = f" in {first['file']}" if first["file"] else ""
        more = f" ({len(failure.errors)} errors in all)" if len(failure.errors) > 1 else ""
        return ReloadFailedError(
            f"The code could not be loaded, {still}. {first['type']}{place}: {first['message']}{more}",
            errors=failure.errors,
            generation=serving,
            left_behind=failure.left_behind,
        )
