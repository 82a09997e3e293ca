"""The import hook that serves generations from their bytes.

There is one hook in `sys.path_hooks` for all generations. A generation is a private package whose folders'
`__path__` names only that hook understands; so `import`, relative imports, `pkgutil`,
`importlib.import_module`, `inspect`, `pickle` and the locks of circular imports are Python's own. Two things
are not: the modules of a generation have an `__import__`, and a stand-in for the module `importlib`, that
take `server.tools`, `server.agent` and `server.model` to mean the generation's own, whenever the import is
executed.
"""

import builtins
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import io
import linecache
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from server.reload.dataclass_methods import compile_once
from server.reload.naming import BEGINNING, RELOADABLE, SERVER, file_of, package_of, readable
from server.reload.residue import importing
from server.reload.source import Source

_installed: dict[str, "Importer"] = {}


class Importer(importlib.abc.InspectLoader):
    """Finds and loads the modules of one generation.

    `package` is the private name of the generation, which stands for `server`; `root` is the folder `server`
    that the modules' `__file__` lies in, so that code finds the data files beside it, and `folders` says which
    of them lie in another. Those files are not part of a generation.
    """

    def __init__(self, package: str, root: Path, folders: Mapping[str, Path]) -> None:
        self.package = package
        self._root = root
        self._lie_in = folders
        self._sources: Mapping[str, Source] = {}
        self._folders: dict[str, dict[str, bool]] = {}
        self._imports: dict[str, set[str]] = {}
        self._server = ModuleType(package)
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._importlib = ModuleType("importlib")
        vars(self._importlib).update(vars(importlib))
        vars(self._importlib).update(
            import_module=self._import_module, __getattr__=functools.partial(getattr, importlib)
        )

    # What the generation is made of

    def install(self, sources: Mapping[str, Source]) -> None:
        """Make the modules importable under `package`. Nothing is executed yet."""
        self._sources = sources
        self._folders = _folders(sources)
        _installed[self.package] = self
        if _find_folder not in sys.path_hooks:
            sys.path_hooks.insert(0, _find_folder)
            compile_once()
        for source in sources.values():
            # Before any of it runs: decorators read the source of what they decorate. No time of change: this
            # text can't change. Classes are looked up by `__file__`, where the disk may hold a new text of
            # the same size and time.
            lines = io.StringIO(source.text).readlines()
            linecache.cache[source.filename] = (len(source.text), None, lines, source.filename)
            linecache.cache.pop(self._place(source), None)
        spec = self.spec(self.package)
        assert spec is not None
        self._server = importlib.util.module_from_spec(spec)
        vars(self._server).update(__file__=str(self._root / "__init__.py"), __getattr__=_persistent_attribute)
        sys.modules[self.package] = self._server

    def import_all(self) -> dict[str, ModuleType]:
        """Execute every module that was not executed yet. Gives all of them by name (`tools.calculator`)."""
        names = sorted({*self._sources, *self._folders} - {""})
        return {name: importlib.import_module(f"{self.package}.{name}") for name in names}

    def uninstall(self) -> None:
        """Take the modules, and what else bears their names, out of the process. May be called again.

        Objects made by them live on as long as someone holds them, but import nothing of the generation any
        more.
        """
        _installed.pop(self.package, None)
        _forget_ended()

    def relative(self, name: str | None) -> str | None:
        """`tools.calculator` for that module's private name; None for a name from outside."""
        return name[len(self.package) + 1 :] if name and package_of(name) == self.package else None

    def file(self, fullname: str) -> str:
        """`server/tools/x.py` for the private name of a module; for one without a file, its readable name."""
        source = self._source(fullname)
        return f"{SERVER}/{source.path}" if source else readable(fullname)

    def closure(self, name: str) -> set[str]:
        """The module and all those of the generation that it has imported so far, directly or not."""
        reached, pending = set[str](), [name]
        while pending:
            one = pending.pop()
            if one not in reached and one in self._sources:
                reached.add(one)
                pending += self._imports.get(one, ())
        return reached

    # What the import system asks

    def spec(self, fullname: str) -> importlib.machinery.ModuleSpec | None:
        """The spec of one of the private modules, or None."""
        name = fullname[len(self.package) + 1 :]
        if name not in self._sources and name not in self._folders:
            return None
        is_package = self.is_package(fullname)
        spec = importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [f"{self.package}/{name}"]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Execute a module's code, in a namespace whose imports stay inside the generation."""
        namespace = vars(module)
        namespace["__builtins__"] = self._builtins
        source = self._source(module.__name__)
        if source is not None:
            namespace["__file__"] = self._place(source)
            exec(source.code, namespace)

    def is_package(self, fullname: str) -> bool:
        """Whether that is a package; a folder without `__init__.py` is one, as in Python at large."""
        source = self._source(fullname)
        return source is None or source.is_package

    def get_code(self, fullname: str) -> CodeType | None:
        """The compiled code; None for a folder without `__init__.py`."""
        source = self._source(fullname)
        return source.code if source else None

    def get_source(self, fullname: str) -> str | None:
        """The text that was compiled; None for a folder without `__init__.py`."""
        source = self._source(fullname)
        return source.text if source else None

    def children(self, folder: str) -> Mapping[str, bool]:
        """The names of a package's modules, each with whether it is a package itself."""
        return self._folders.get(folder, {})

    def refuse_extension(self, folder: str, name: str) -> None:
        """Raises `ImportError` if what is called `name` in a package is a C extension beside the code."""
        roots = {self._root, *self._lie_in.values()}
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            if any((root / folder.replace(".", "/") / f"{name}{suffix}").exists() for root in roots):
                raise ImportError(
                    f"{name}{suffix} is a C extension, and a process can't let go of one to load another. Install "
                    "it as a package and import it from there; when it changes, the server must be restarted."
                )

    def _place(self, source: Source) -> str:
        return str(self._lie_in.get(source.path, self._root) / source.path)

    def _source(self, fullname: str) -> Source | None:
        return self._sources.get(fullname[len(self.package) + 1 :])

    # What the generation's own code asks

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """`__import__` for the modules of the generation."""
        importer = globals or {}
        base = importer.get("__package__") or ""
        head = (base if level else name).partition(".")[0]
        if head not in (SERVER, self.package):
            with importing(name, fromlist or ()):
                module = builtins.__import__(name, globals, locals, fromlist or (), level)
            return self._importlib if module is importlib else module
        target = self._target(importlib.util.resolve_name("." * level + name, base))
        with nullcontext() if package_of(target) else importing(target, fromlist or ()):
            module = builtins.__import__(target, None, None, fromlist or (), 0)
        imported, by = self.relative(target), self.relative(importer.get("__name__"))
        if imported is not None and by is not None:
            parts = [imported, *(f"{imported}.{part}".lstrip(".") for part in fromlist or ())]
            self._imports.setdefault(by, set()).update(parts)
        return module if fromlist else self._server

    def _import_module(self, name: str, package: str | None = None) -> ModuleType:
        """`importlib.import_module` for the modules of the generation."""
        absolute = importlib.util.resolve_name(name, package)
        head = absolute.partition(".")[0]
        target = self._target(absolute) if head in (SERVER, self.package) else absolute
        if package_of(target):
            return importlib.import_module(target)
        with importing(target, ()):
            return importlib.import_module(target)

    def _target(self, name: str) -> str:
        """What a name under `server`, or under the private package, means in the generation."""
        part = name.partition(".")[2]
        if part and part.partition(".")[0] not in RELOADABLE:
            return f"{SERVER}.{part}"
        if self.package not in _installed:
            raise ImportError(f"{name} can't be imported: the generation that this code belongs to has ended")
        return f"{self.package}.{part}".rstrip(".")


class _Folder:
    """Finds the modules of one package. `sys.path_importer_cache` holds it for the package's `__path__`."""

    def __init__(self, importer: Importer, folder: str) -> None:
        self._importer = importer
        self._folder = folder

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        spec = self._importer.spec(fullname)
        if spec is None:
            self._importer.refuse_extension(self._folder, fullname.rpartition(".")[2])
        return spec

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """What `pkgutil.iter_modules` asks for."""
        for name, is_package in self._importer.children(self._folder).items():
            yield prefix + name, is_package


def _find_folder(entry: str) -> _Folder:
    """The hook in `sys.path_hooks`."""
    package, _, folder = entry.partition("/")
    if (importer := _installed.get(package)) is None:
        raise ImportError(f"{entry} is no folder of a generation")
    return _Folder(importer, folder)


def _folders(sources: Mapping[str, Source]) -> dict[str, dict[str, bool]]:
    """Every package with its modules' names in order, folders without `__init__.py` and the root included."""
    folders: dict[str, dict[str, bool]] = {"": {}}
    for name, source in sorted(sources.items()):
        one, is_package = name, source.is_package
        while one:
            if is_package:
                folders.setdefault(one, {})
            one, _, child = one.rpartition(".")
            folders.setdefault(one, {}).setdefault(child, is_package)
            is_package = True
    return folders


def _persistent_attribute(name: str) -> Any:
    """`__getattr__` of the package that stands for `server`: but for the reloadable parts, the real one's."""
    if name not in RELOADABLE and not name.startswith("__"):
        real = importlib.import_module(SERVER)
        if hasattr(real, name):
            return getattr(real, name)
        if importlib.util.find_spec(f"{SERVER}.{name}") is not None:
            with importing(f"{SERVER}.{name}", ()):
                return importlib.import_module(f"{SERVER}.{name}")
    raise AttributeError(f"module '{SERVER}' has no attribute '{name}'")


def _forget_ended() -> None:
    """Drop what the process at large still holds under the names of generations that are not installed."""

    def ended(name: object) -> bool:
        package = package_of(name) if isinstance(name, str) else None
        return package is not None and package not in _installed

    def drop_ended(table: dict[str, Any]) -> None:
        # A look at the beginning first: the process has ten thousand names, and every reload goes through them.
        for name in [name for name in list(table) if name.startswith(BEGINNING) and ended(name)]:
            table.pop(name, None)

    drop_ended(sys.modules)
    drop_ended(sys.path_importer_cache)
    # Whoever sets a level goes through the loggers with this lock held.
    with vars(logging)["_lock"]:
        drop_ended(logging.Logger.manager.loggerDict)
    drop_ended(vars(inspect)["_filesbymodname"])
    modules_by_file = inspect.modulesbyfile
    for file in [file for file, name in list(modules_by_file.items()) if name.startswith(BEGINNING) and ended(name)]:
        modules_by_file.pop(file, None)
    in_use = {source.filename for one in list(_installed.values()) for source in one._sources.values()}
    for file in [file for file in list(linecache.cache) if "@" in file and file_of(file) and file not in in_use]:
        linecache.cache.pop(file, None)
    for hooks in (sys.meta_path, sys.path_hooks):
        for hook in [hook for hook in hooks if ended(getattr(hook, "__module__", None))]:
            hooks.remove(hook)  # type: ignore[arg-type]
