"""Loading a generation in its worker: real files, imported under their ordinary names."""

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import server
from server.workers.failure import CodeFiles, ErrorReport, LoadError, problem

RELOADABLE = ("agent", "model", "tools")
"""The parts of `server` that belong to a generation."""
DEFAULT_AGENT = "react"
"""The name under which a question asks for `CustomAgentGuidance`."""
_ENTRY_POINTS = (("model", "load_model"), ("tools", "load_tools"), ("agent", "CustomAgentGuidance"))

MOVED = {
    "server.engine": "usage, logprobs (likelihood before), Prepared and ResidentChatModel are in server.sdk now, and "
    "cancellation.check is server.sdk.check_cancelled.",
    "server.keep": "keep is in server.sdk now: from server.sdk import keep.",
    "server.providers": "The type of a model behind an API is server.sdk.ApiModel now.",
    "server.runs": "tell_step, tell_plan, call_tool and ToolFailedError are in server.sdk now.",
    "server.tool_schema": "arguments_schema is in server.sdk now.",
}
"""The new places of names that code of earlier generations imports from old places."""


class LoadedCode:
    """A generation whose modules are imported."""

    def __init__(self, folder: str) -> None:
        """`folder` holds `server/tools/` and so on. Imports all of it; raises `LoadError`."""
        self.files = CodeFiles(folder)
        self._root = Path(folder) / "server"
        self._imports = _ImportGraph()
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        sys.path.insert(0, folder)
        sys.meta_path.insert(0, _OnlySdk(list(server.__path__)))
        # What a generation lacks must not be taken from where Hearth is installed. The sdk is loaded already.
        server.__path__[:] = [str(self._root)]
        self._paths: dict[str, str] = {}
        self._compile_all()
        self.modules: dict[str, ModuleType] = {}
        """The generation's modules by name, like `tools.calculator`."""
        with self.running():
            for name in sorted(self._paths):
                self.modules[name] = self._import(f"server.{name}")
            self._check_entry_points()
            self.agents = self._load_agents()
            """The agents by name: classes, made with a model, tools, the maximum of steps, a tool's time limit."""

    @contextmanager
    def running(self, builder: str | None = None) -> Iterator[None]:
        """Run people's code within this block while it is loaded: its imports are noted, and what it raises becomes a
        `LoadError`. `builder`: the module that imports all tools, and depends on none of them."""
        try:
            with self._imports.noting(builder):
                yield
        except LoadError:
            raise
        except BaseException as error:  # boundary: people's code, `sys.exit` and `KeyboardInterrupt` included
            raise LoadError([self.files.describe(error)]) from None

    def closure(self, name: str) -> set[str]:
        """The module and all those of the generation that it has imported so far, directly or not."""
        return self._imports.closure(name, self._paths)

    def third_party(self) -> list[str]:
        """Modules from outside of the generation and of Hearth that its code has imported."""
        return self._imports.outside()

    @property
    def folder(self) -> Path:
        """The folder of its files, laid out like `server/`."""
        return self._root

    def path(self, name: str) -> Path:
        """The file of a module."""
        return self._root / self._paths[name]

    def _compile_all(self) -> None:
        """Compile every file, and report all that don't compile. The import uses the byte-code."""
        errors: list[ErrorReport] = []
        for path in _paths_below(self._root):
            name = _module_name(path)
            if name in self._paths:
                errors.append(_claimed_twice(path, self._paths[name]))
                continue
            self._paths[name] = path
            file = self._root / path
            if os.path.exists(importlib.util.cache_from_source(file)):
                continue  # a file does not change, and this one has compiled before
            try:
                importlib.machinery.SourceFileLoader(f"server.{name}", str(file)).get_code(f"server.{name}")
            except (SyntaxError, ValueError) as error:
                errors.append(self.files.describe_syntax_error(error, f"server/{path}", file.read_bytes()))
            except (RecursionError, MemoryError) as error:
                message = f"too deeply nested to compile {error}".strip()
                errors.append(problem(f"server/{path}", None, type(error).__name__, message))
        for name, path in self._paths.items():
            holder = self._paths.get(name.rpartition(".")[0])
            if holder is not None and PurePosixPath(holder).name != "__init__.py":
                errors.append(_claimed_twice(path, holder))
        if errors:
            raise LoadError(errors)

    def _import(self, name: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except EOFError:  # as a full disk has left half of some byte-code
            for cached in self._root.rglob("__pycache__/*.pyc"):
                cached.unlink()
            return importlib.import_module(name)

    def _check_entry_points(self) -> None:
        errors = []
        for module, name in _ENTRY_POINTS:
            if not callable(getattr(self.modules.get(module), name, None)):
                message = f"server.{module} must define {name}"
                if module not in self._paths:
                    message += f", and there is no server/{module}.py or server/{module}/__init__.py"
                errors.append(problem(self._file(module), None, "MissingEntryPointError", message))
        if errors:
            raise LoadError(errors)

    def _load_agents(self) -> dict[str, Any]:
        """The result of `load_agents` of `server/agent`. Without this function there is only the default agent."""
        module: Any = self.modules["agent"]
        load_agents = getattr(module, "load_agents", None)
        if load_agents is None:
            return {DEFAULT_AGENT: module.CustomAgentGuidance}
        agents = load_agents()
        named = isinstance(agents, dict) and all(isinstance(one, str) and callable(agents[one]) for one in agents)
        if not named or not agents:
            message = f"server.agent.load_agents must give a dict of agents by their names, and gives {agents!r}"
            raise LoadError([problem(self._file("agent"), None, "InvalidAgentsError", message)])
        return dict(agents)

    def _file(self, module: str) -> str:
        return f"server/{self._paths.get(module, module + '.py')}"


class _ImportGraph:
    """Which module of the generation imports which, noted while it is loaded."""

    def __init__(self) -> None:
        self._noted: dict[str, dict[str, None]] = {}
        """The full names that each module has imported, in order."""
        self._built: dict[str, None] = {}
        """The names that the module that builds the tools has imported for them."""

    @contextmanager
    def noting(self, builder: str | None = None) -> Iterator[None]:
        """Within this block, replace `__import__` and `importlib.import_module` by functions that note each import.
        `builder`: see `running`."""
        real_import, real_import_module = builtins.__import__, importlib.import_module

        def noted(by: str) -> dict[str, None]:
            return self._built if by == builder else self._noted.setdefault(by, {})

        def note(
            name: str,
            globals: Mapping[str, Any] | None = None,
            locals: Mapping[str, Any] | None = None,
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> Any:
            by = (globals or {}).get("__name__")
            if isinstance(by, str) and _is_reloadable(by):
                try:
                    full = importlib.util.resolve_name("." * level + name, (globals or {}).get("__package__"))
                except ImportError:
                    full = name  # the real one says what is wrong
                imported = noted(by)
                imported[full] = None
                imported.update((f"{full}.{part}", None) for part in fromlist or () if part != "*")
            return real_import(name, globals, locals, fromlist or (), level)

        def note_module(name: str, package: str | None = None) -> ModuleType:
            by = sys._getframe(1).f_globals.get("__name__")
            if isinstance(by, str) and _is_reloadable(by):
                noted(by)[importlib.util.resolve_name(name, package)] = None
            return real_import_module(name, package)

        builtins.__import__, importlib.import_module = note, note_module
        try:
            yield
        finally:
            # Not if the code has put something of its own there: it is its own process.
            if builtins.__import__ is note:
                builtins.__import__ = real_import
            if importlib.import_module is note_module:
                importlib.import_module = real_import_module

    def closure(self, name: str, known: Mapping[str, str]) -> set[str]:
        """`name`, the modules among `known` that it imports, directly or not, and their packages."""
        reached, followed, pending = set[str](), set[str](), [name]
        while pending:
            one = pending.pop()
            if one in known and one not in followed:
                followed.add(one)
                # A module's packages run before it. The module need not depend on their other imports.
                parts = one.split(".")
                reached.update(".".join(parts[:count]) for count in range(1, len(parts) + 1))
                pending += [imported.removeprefix("server.") for imported in self._noted.get(f"server.{one}", ())]
        return reached & known.keys()

    def outside(self) -> list[str]:
        """The imported modules that are neither the generation's nor Hearth's, in order."""
        found: dict[str, None] = {}
        for imported in (*self._noted.values(), self._built):
            for name in imported:
                if name in sys.modules and name.partition(".")[0] not in ("server", "__main__", "constants"):
                    found[name] = None
        return list(found)


class _OnlySdk(importlib.abc.MetaPathFinder):
    """Refuses imports of the server's own modules. The model and the store are in the server's process: a copy in the
    worker would not be connected to them."""

    def __init__(self, installed: Sequence[str]) -> None:
        """`installed`: the folders of the server's own modules."""
        self._installed = [Path(folder) for folder in installed]

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Returns None. Raises `ImportError` for the server's own modules."""
        first, _, part = fullname.partition(".")
        if first != "server" or not part or "." in part or part in RELOADABLE:
            return
        moved = MOVED.get(fullname)
        there = any((folder / part).is_dir() or (folder / f"{part}.py").is_file() for folder in self._installed)
        if moved is None and not there:
            return  # the usual error says so
        hint = moved or "Tools and agents import server.sdk alone."
        raise ImportError(f"{fullname} is the server's own, and can't be imported in a worker. {hint}", name=fullname)


def _is_reloadable(module: str) -> bool:
    first, _, rest = module.partition(".")
    return first == "server" and rest.partition(".")[0] in RELOADABLE


def _paths_below(root: Path) -> list[str]:
    """The Python files of the generation, relative to `root`, in order."""
    found = (file.relative_to(root).as_posix() for file in root.rglob("*.py") if "__pycache__" not in file.parts)
    return sorted(path for path in found if path != "__init__.py")  # the one for spawned processes


def _module_name(path: str) -> str:
    """`tools.calculator` for `tools/calculator.py`, `tools` for `tools/__init__.py`."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _claimed_twice(path: str, other: str) -> ErrorReport:
    message = f"server/{other} and server/{path} can't both be imported: one is a module, the other a package"
    return problem(f"server/{path}", None, "ImportError", f"{message} of the same name. Remove one of them.")
