"""The variables of a session, which outlive its interpreter: after each cell those that have changed are saved, each
in the format of its type, and a later interpreter reads one when code uses it. Never pickle.
"""

import ast
import builtins
import contextlib
import reprlib
import shutil
import sys
from pathlib import Path
from typing import Any

from . import saved_index
from .fingerprints import Fingerprints
from .saved_formats import UnsavedError, load, store
from .saved_index import LONGEST_NAME

MOST_VARIABLES = 200
LONGEST_PREVIEW = 200
OWN = {"__builtins__", "__name__", "__doc__", "_"}


class Names(dict[str, Any]):
    """The global names of the cells. A name that is saved and not there yet is loaded when it is used."""

    def __init__(self, variables: "Variables") -> None:
        super().__init__(__name__="__main__", __builtins__=builtins, __doc__=None)
        self._variables = variables

    def __missing__(self, name: str) -> Any:
        """Raises KeyError, which Python takes as: look among the built-in names."""
        return self._variables.restore(name)


class Variables:
    """The names of a session, and what is saved of them in a folder.

    Each saved variable has a folder of its own, `<number>`, so that names need not be names of files.
    `variables.json` is the index, and is replaced in one step after the folders are written.
    """

    def __init__(self, folder: Path) -> None:
        """Raises nothing; see `damaged`."""
        self._folder = folder
        self._fingerprints = Fingerprints()
        self._saved: dict[str, dict[str, Any]] = {}
        self._unsaved: dict[str, str] = {}
        self.damaged = ""
        """Why nothing is read of the folder; empty: it was read."""
        try:
            folder.mkdir(exist_ok=True)
            self._saved = saved_index.read(folder)
        except (OSError, saved_index.DamagedError) as error:
            self.damaged = str(error)
        self._last = saved_index.last_number(folder)
        self.values = Names(self)

    def catalogue(self) -> list[dict[str, Any]]:
        """Name, type, shape, size and a short text of each variable, saved or not; see `_described`."""
        listed = [{**entry["about"], "name": name, "saved": True} for name, entry in self._saved.items()]
        listed += [
            {"name": name, "type": type(self.values[name]).__name__[:200], "saved": False, "why": why}
            for name, why in self._unsaved.items()
        ]
        return sorted(listed, key=lambda entry: entry["name"])[:MOST_VARIABLES]

    def restore(self, name: str) -> Any:
        """Load a saved variable. Raises KeyError if there is none."""
        entry = self._saved[name]
        value = load(entry["value"], self._folder / str(entry["number"]), self.values)
        self.values[name] = value
        self._fingerprints.remember(name, value)
        return value

    def save(self, code: str) -> dict[str, str]:
        """Save what has changed. `code`: of the cell, for the source of functions and classes that it defines.
        Returns the variables that can't be saved, and why."""
        sources = _definitions(code)
        present = {name: value for name, value in self.values.items() if _is_variable(name)}
        gone = [name for name in self._saved if name not in present and not self._is_lazy(name)]
        changed = False
        for name in gone:
            self._forget(name)
            changed = True
        self._unsaved = {name: why for name, why in self._unsaved.items() if name in present}
        for name, value in present.items():
            if name not in sources and self._fingerprints.is_same(name, value):
                continue
            changed = self._save_one(name, value, sources.get(name)) or changed
        if changed:
            with contextlib.suppress(OSError):  # the folder is full: the index is as it was before
                saved_index.write(self._folder, self._saved)
        return dict(list(self._unsaved.items())[:MOST_VARIABLES])

    def _is_lazy(self, name: str) -> bool:
        """Whether a saved variable was not loaded yet. One that was loaded and is no longer there was deleted."""
        return not self._fingerprints.knows(name)

    def _save_one(self, name: str, value: Any, source: str | None) -> bool:
        self._last += 1
        number = self._last
        folder = self._folder / str(number)
        old = self._saved.get(name)
        try:
            folder.mkdir()
            stored = store(value, folder, source)
            size = sum(path.stat().st_size for path in folder.iterdir())
            self._saved[name] = {"number": number, "value": stored, "about": _described(value, size)}
            saved_index.write(self._folder, self._saved)
        except (UnsavedError, saved_index.TooLargeError) as error:
            why = str(error)
        except Exception as error:  # boundary: the value's class may be anything, and the folder may be full
            why = f"{type(error).__name__}: {error}"[:500]
        else:
            self._unsaved.pop(name, None)
            self._fingerprints.remember(name, value)
            if old is not None:
                shutil.rmtree(self._folder / str(old["number"]), ignore_errors=True)
            return True
        if old is None:
            self._saved.pop(name, None)
        else:
            self._saved[name] = old
        shutil.rmtree(folder, ignore_errors=True)
        self._unsaved[name] = why
        self._fingerprints.remember(name, value)
        had = name in self._saved
        if had:  # an older value must not come back under this name
            self._forget(name)
            self._unsaved[name] = why
        return had

    def _forget(self, name: str) -> None:
        entry = self._saved.pop(name)
        self._fingerprints.forget(name)
        shutil.rmtree(self._folder / str(entry["number"]), ignore_errors=True)


def _is_variable(name: object) -> bool:
    # Code may put anything into its global names.
    return isinstance(name, str) and not name.startswith("_") and name not in OWN and len(name) <= LONGEST_NAME


def _definitions(code: str) -> dict[str, str]:
    """The source of the functions and classes that a cell defines, by name."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # then it has not run
        return {}
    found = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[statement.name] = ast.unparse(statement)
    return found


def _described(value: Any, size: int) -> dict[str, Any]:
    """`type`, `bytes` (as saved), `text`, and, if it has them, `shape` and `columns` with their types."""
    about: dict[str, Any] = {"type": type(value).__name__[:200], "bytes": size}
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        about["shape"] = list(value.shape)
        about["columns"] = {str(name)[:100]: str(kind)[:100] for name, kind in list(value.dtypes.items())[:50]}
        return about
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        about["shape"] = [int(length) for length in shape]
        about["dtype"] = str(getattr(value, "dtype", ""))[:100]
        return about
    about["text"] = _shortened.repr(value)[:LONGEST_PREVIEW].encode(errors="replace").decode()
    return about


_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = LONGEST_PREVIEW
