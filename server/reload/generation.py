"""One generation: the whole reloadable code of a workspace at one moment, loaded."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from server.reload.deadline import run_with_deadline
from server.reload.failure import LoadError, problem
from server.reload.importer import Importer
from server.reload.naming import SERVER, new_package
from server.reload.residue import Watch
from server.reload.snapshot import Snapshot
from server.reload.source import Source, compile_snapshot, module_name
from server.reload.toolset import Toolset, Traits, build_toolset

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_AGENT = "react"
"""The name under which a question asks for `CustomAgentGuidance`."""
_ENTRY_POINTS = (("model", "load_model"), ("tools", "load_tools"), ("agent", "CustomAgentGuidance"))


class Generation:
    """Loaded code. It works while it is pinned; after `close` it can import nothing of itself any more.

    `snapshot` is what it was made of, `sources` the same compiled. `pins` is counted by the workspace: the
    live generation has one for being live, and one for each run that uses it. `left_behind` says what loading it
    and building its tools did to the process (see `residue`).
    """

    def __init__(
        self, snapshot: Snapshot, importer: Importer, sources: Mapping[str, Source], deadline_seconds: float
    ) -> None:
        self.snapshot = snapshot
        self.sources = sources
        self.pins = 0
        self.left_behind: list[str] = []
        self._toolset: Toolset | None = None
        self._importer = importer
        self._modules = importer.import_all()
        self._deadline_seconds = deadline_seconds
        _check_entry_points(self._modules)
        self.agents = _agents(self._modules["agent"])
        """The agents by name: classes that are made with a model, tools, and how often and how long to call them."""

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits that name this content."""
        return self.snapshot.hash

    def module(self, name: str) -> ModuleType:
        """The module of that name, like `tools.calculator`. Raises `KeyError` if there is none."""
        return self._modules[name]

    @property
    def tools(self) -> "dict[str, BaseTool] | None":
        """The tools by name; None before `build_tools`."""
        return self._toolset.tools if self._toolset else None

    @property
    def traits(self) -> Mapping[str, Traits]:
        """What the tools are compared by with those of another generation; empty before `build_tools`."""
        return self._toolset.traits if self._toolset else {}

    def build_tools(self, llm: "BaseChatModel") -> None:
        """Build and check the tools, under the deadline. Raises `LoadError`; `tools` are then as before."""

        def sources_of(name: str) -> dict[str, bytes]:
            return {one: self.sources[one].data for one in self._importer.closure(name)}

        self._toolset, left_behind = _run_watched(
            self._importer,
            lambda: build_toolset(llm, self._modules, sources_of),
            self._deadline_seconds,
            undo=_nothing,
        )
        self.left_behind += left_behind

    def close(self) -> None:
        """Take the code out of the process: its modules, loggers and cached lines."""
        self._importer.uninstall()


def load_generation(
    snapshot: Snapshot, root: Path, deadline_seconds: float, known: Mapping[str, Source]
) -> Generation:
    """Compile a snapshot, execute every module of it and check that its entry points are there.

    `root` is the folder that its files lie in where it names no other, `known` what was compiled earlier.
    Nothing of what was loaded before is touched, and on failure nothing of the new is left. Raises `LoadError`.
    """
    importer = Importer(new_package(snapshot.hash), root, snapshot.folders)

    def load() -> Generation:
        sources = compile_snapshot(snapshot, known)
        importer.install(sources)
        return Generation(snapshot, importer, sources, deadline_seconds)

    generation, left_behind = _run_watched(importer, load, deadline_seconds, undo=importer.uninstall)
    generation.left_behind += left_behind
    return generation


def changed_modules(before: Snapshot | None, after: Snapshot) -> list[str]:
    """The names of the modules that were added, removed or edited, in order."""
    old, new = dict(before.files) if before else {}, dict(after.files)
    return sorted({module_name(path) for path in old.keys() | new.keys() if old.get(path) != new.get(path)})


def _run_watched(
    importer: Importer, work: Callable[[], T], seconds: float, undo: Callable[[], None]
) -> tuple[T, list[str]]:
    """`run_with_deadline` for code of a generation. Gives the result, and what the code left behind.

    What can be put back is, however it ends; a `LoadError` has what was left behind, too.
    """
    watch = Watch(importer.package, importer.file)

    def watched() -> T:
        with watch:
            return work()

    def end() -> None:
        watch.end()
        undo()

    try:
        return run_with_deadline(watched, seconds, undo=end), watch.left_behind
    except LoadError as failure:
        failure.left_behind = watch.left_behind
        raise
    finally:
        for sentence in watch.left_behind:
            log.warning("%s", sentence)


def _check_entry_points(modules: Mapping[str, ModuleType]) -> None:
    errors = []
    for module, name in _ENTRY_POINTS:
        if not callable(getattr(modules.get(module), name, None)):
            message = f"{SERVER}.{module} must define {name}"
            if module not in modules:
                message += f", and there is no {SERVER}/{module}.py or {SERVER}/{module}/__init__.py"
            errors.append(
                problem(_file_of_module(modules.get(module), module), None, "MissingEntryPointError", message)
            )
    if errors:
        raise LoadError(errors)


def _agents(module: ModuleType) -> dict[str, Any]:
    """What `load_agents` of `server/agent` gives. Code that has none, such as generations that were kept before there
    were others, has the default agent alone."""
    load_agents = getattr(module, "load_agents", None)
    if load_agents is None:
        return {DEFAULT_AGENT: module.CustomAgentGuidance}
    agents = load_agents()
    named = isinstance(agents, dict) and all(isinstance(one, str) and callable(agents[one]) for one in agents)
    if not named or not agents:
        message = f"{SERVER}.agent.load_agents must give a dict of agents by their names, and gives {agents!r}"
        raise LoadError([problem(_file_of_module(module, "agent"), None, "InvalidAgentsError", message)])
    return dict(agents)


def _file_of_module(module: ModuleType | None, name: str) -> str:
    return f"{SERVER}/{name}/__init__.py" if hasattr(module, "__path__") else f"{SERVER}/{name}.py"


def _nothing() -> None:
    """Building tools installs nothing that would have to be taken out."""
