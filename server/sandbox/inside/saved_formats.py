"""The formats of saved variables: JSON for plain values, .npy for arrays, Parquet for frames, skops for the models of
scikit-learn, source for functions and classes. Never pickle: what is saved can't execute when it is loaded.

A stored value is JSON: plain values as they are, and any other as `{"$": "<format>", …}`.
"""

import array
import base64
import collections
import datetime
import decimal
import fractions
import importlib
import json
import math
import pathlib
import re
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import saved_frames

MOST_JSON_BYTES = 64 * 2**20
DEEPEST = 100
FACTORIES = {kind.__name__: kind for kind in (int, float, str, list, dict, set, bool)}
"""The functions that make a `defaultdict`'s values, by which one can be saved."""


class UnsavedError(Exception):
    """The value can't be saved. The message says why, for people and models."""


Encoder = Callable[[Any], Any]
Decoder = Callable[[Any], Any]

# For each type: its format's name, and what is written and read.
PLAIN: dict[type, tuple[str, Encoder, Decoder]] = {
    complex: (
        "complex",
        lambda value: [repr(value.real), repr(value.imag)],
        lambda given: complex(*map(float, given)),
    ),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode(), base64.b64decode),
    bytearray: (
        "bytearray",
        lambda value: base64.b64encode(value).decode(),
        lambda given: bytearray(base64.b64decode(given)),
    ),
    range: ("range", lambda value: [value.start, value.stop, value.step], lambda given: range(*given)),
    types.EllipsisType: ("ellipsis", lambda value: None, lambda given: ...),
    datetime.date: ("date", lambda value: value.isoformat(), datetime.date.fromisoformat),
    datetime.timedelta: (
        "timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda given: datetime.timedelta(*given),
    ),
    decimal.Decimal: ("decimal", str, decimal.Decimal),
    fractions.Fraction: (
        "fraction",
        lambda value: [value.numerator, value.denominator],
        lambda given: fractions.Fraction(*given),
    ),
    uuid.UUID: ("uuid", str, uuid.UUID),
    pathlib.PosixPath: ("path", str, pathlib.PosixPath),
    pathlib.PurePosixPath: ("pure_path", str, pathlib.PurePosixPath),
    zoneinfo.ZoneInfo: ("zone", lambda value: value.key, zoneinfo.ZoneInfo),
    datetime.timezone: (
        "timezone",
        lambda value: value.utcoffset(None).total_seconds(),
        lambda given: datetime.timezone(datetime.timedelta(seconds=given)),
    ),
    re.Pattern: ("pattern", lambda value: [value.pattern, value.flags], lambda given: re.compile(*given)),
    array.array: (
        "array",
        lambda value: [value.typecode, base64.b64encode(value.tobytes()).decode()],
        lambda given: array.array(given[0], base64.b64decode(given[1])),
    ),
}
READERS: dict[str, Decoder] = {name: read for name, _, read in PLAIN.values()}


def plain_text(value: Any) -> str:
    """A plain value as JSON. Raises `UnsavedError` for any other."""
    return json.dumps(_Store(None).encode(value), allow_nan=False)


def store(value: Any, folder: Path, source: str | None = None) -> Any:
    """Save a value: what is large as files in `folder`, the rest in the JSON value that is returned. `source`: of the
    statement that defined it. Raises `UnsavedError` and OSError, and what a value's own methods raise."""
    kind = type(value)
    if isinstance(value, types.ModuleType):
        return {"$": "module", "name": value.__name__}
    if isinstance(value, types.FunctionType | type) and value.__module__ == "__main__":
        if source is None:
            raise UnsavedError(f"a {kind.__name__} is saved when a cell defines it by a statement of its own")
        return {"$": "source", "name": value.__name__, "text": source}
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return {"$": "import", "module": value.__module__, "name": value.__qualname__}
    stored = _Store(folder).encode(value)
    if len(json.dumps(stored, allow_nan=False)) > MOST_JSON_BYTES:
        raise UnsavedError(f"it is larger than {MOST_JSON_BYTES >> 20} MiB as text")
    return stored


def load(stored: Any, folder: Path, names: dict[str, Any]) -> Any:
    """The value that `store` has saved. `names`: of the session, for functions and classes. Raises whatever a damaged
    file makes a library raise."""
    if isinstance(stored, dict):
        match stored.get("$"):
            case "module":
                return importlib.import_module(stored["name"])
            case "import":
                found: Any = importlib.import_module(stored["module"])
                for part in stored["name"].split("."):
                    found = getattr(found, part)
                return found
            case "source":
                exec(compile(stored["text"], f"<saved {stored['name']}>", "exec", dont_inherit=True), names)
                return names[stored["name"]]
    return _Load(folder).decode(stored)


class _Store:
    """Encodes one variable."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._parts = 0
        self._inside: list[int] = []

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return value if abs(value) < 2**63 else {"$": "int", "value": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$": "float", "value": str(value)}
        if kind in PLAIN:
            name, write, _ = PLAIN[kind]
            return {"$": name, "value": write(value)}
        if kind in (datetime.datetime, datetime.time):
            zone = None if value.tzinfo is None else self.encode(value.tzinfo)
            text = value.replace(tzinfo=None).isoformat()
            return {"$": kind.__name__, "value": text, "zone": zone, "fold": value.fold}
        if kind is slice:
            return {"$": "slice", "value": [self.encode(one) for one in (value.start, value.stop, value.step)]}
        if isinstance(value, list | tuple | set | frozenset | dict | collections.deque | types.SimpleNamespace):
            return self._container(value)
        return self._large(value)

    def _container(self, value: Any) -> Any:
        kind = type(value)
        if id(value) in self._inside:
            raise UnsavedError("it contains itself")
        if len(self._inside) >= DEEPEST:
            raise UnsavedError(f"it is nested deeper than {DEEPEST} levels")
        self._inside.append(id(value))
        try:
            if kind is list:
                return [self.encode(one) for one in value]
            if kind in (tuple, set, frozenset):
                return {"$": kind.__name__, "value": [self.encode(one) for one in value]}
            if kind is collections.deque:
                return {"$": "deque", "value": [self.encode(one) for one in value], "most": value.maxlen}
            if kind is types.SimpleNamespace:
                return {"$": "SimpleNamespace", "value": self._pairs(vars(value))}
            if kind is dict and all(type(key) is str for key in value) and "$" not in value:
                return {key: self.encode(one) for key, one in value.items()}
            if kind in (dict, collections.OrderedDict, collections.Counter):
                return {"$": kind.__name__, "value": self._pairs(value)}
            if kind is collections.defaultdict:
                factory = value.default_factory
                name = None if factory is None else getattr(factory, "__name__", "")
                if name is not None and FACTORIES.get(name) is not factory:
                    raise UnsavedError("the factory of a defaultdict is saved if it is one of Python's own types")
                return {"$": "defaultdict", "value": self._pairs(value), "factory": name}
        finally:
            self._inside.pop()
        raise UnsavedError(f"its class {kind.__module__}.{kind.__name__} has no format that is saved")

    def _pairs(self, value: Any) -> list[Any]:
        return [[self.encode(key), self.encode(one)] for key, one in value.items()]

    def _large(self, value: Any) -> Any:
        kind = type(value)
        numpy: Any = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic) and not value.dtype.hasobject:
            held = base64.b64encode(numpy.asarray(value).tobytes()).decode()
            return {"$": "numpy", "dtype": _written_dtype(numpy, value.dtype), "value": held}
        if numpy is not None and isinstance(value, numpy.dtype) and not value.hasobject:
            return {"$": "dtype", "value": _written_dtype(numpy, value)}
        if numpy is not None and kind is numpy.ndarray:
            if value.dtype.hasobject:
                flat = [self.encode(one) for one in value.ravel().tolist()]
                return {"$": "objects", "shape": list(value.shape), "value": flat}
            path = self._part("npy")
            numpy.save(path, value, allow_pickle=False)
            return {"$": "npy", "file": path.name}
        if numpy is not None and kind is numpy.ma.MaskedArray:
            parts = {"data": self.encode(value.data), "mask": self.encode(numpy.ma.getmaskarray(value))}
            return {"$": "masked", **parts, "fill": self.encode(value.fill_value)}
        pandas: Any = sys.modules.get("pandas")
        if pandas is not None and saved_frames.is_of_pandas(pandas, value):
            return saved_frames.store(pandas, value, self.encode, self._part)
        if "sklearn" in sys.modules and isinstance(value, sys.modules["sklearn.base"].BaseEstimator):
            return self._estimator(value)
        if kind.__module__.startswith("matplotlib."):
            raise UnsavedError("figures are saved as pictures, at the end of the cell that draws them")
        raise UnsavedError(f"its class {kind.__module__}.{kind.__name__} has no format that is saved")

    def _estimator(self, value: Any) -> Any:
        try:
            skops: Any = importlib.import_module("skops.io")
        except ImportError:
            raise UnsavedError("models of scikit-learn are saved if the package skops is installed") from None
        path = self._part("skops")
        skops.dump(value, path)
        return {"$": "skops", "file": path.name}

    def _part(self, ending: str) -> Path:
        """A path for a file of the variable. Raises `UnsavedError` where only plain values may be."""
        if self._folder is None:
            raise UnsavedError("it is not plain")
        self._parts += 1
        return self._folder / f"{self._parts}.{ending}"


class _Load:
    """Decodes one variable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def decode(self, stored: Any) -> Any:
        if isinstance(stored, list):
            return [self.decode(one) for one in stored]
        if not isinstance(stored, dict):
            return stored
        if "$" not in stored:
            return {key: self.decode(one) for key, one in stored.items()}
        name = stored["$"]
        if name in READERS:
            return READERS[name](stored["value"])
        return self._tagged(name, stored)

    def _tagged(self, name: str, stored: dict[str, Any]) -> Any:
        value = stored.get("value")
        match name:
            case "int":
                return int(stored["value"], 16)
            case "float":
                return float(stored["value"])
            case "datetime" | "time":
                kind = datetime.datetime if name == "datetime" else datetime.time
                return kind.fromisoformat(stored["value"]).replace(
                    tzinfo=self.decode(stored["zone"]), fold=stored["fold"]
                )
            case "slice":
                return slice(*self.decode(value))
            case "tuple" | "set" | "frozenset":
                return {"tuple": tuple, "set": set, "frozenset": frozenset}[name](self.decode(value))
            case "deque":
                return collections.deque(self.decode(value), stored["most"])
            case "SimpleNamespace":
                return types.SimpleNamespace(**self._pairs(value))
            case "dict":
                return self._pairs(value)
            case "OrderedDict":
                return collections.OrderedDict(self._pairs(value))
            case "Counter":
                return collections.Counter(self._pairs(value))
            case "defaultdict":
                factory = stored["factory"]
                return collections.defaultdict(None if factory is None else FACTORIES[factory], self._pairs(value))
            case "numpy" | "dtype" | "npy" | "objects" | "masked":
                return self._of_numpy(name, stored)
            case "skops":
                return self._estimator(self._folder / stored["file"])
            case _:
                return saved_frames.load(importlib.import_module("pandas"), stored, self.decode, self._folder)

    def _pairs(self, pairs: Any) -> dict[Any, Any]:
        return {self.decode(key): self.decode(one) for key, one in pairs}

    def _of_numpy(self, name: str, stored: dict[str, Any]) -> Any:
        numpy: Any = importlib.import_module("numpy")
        match name:
            case "numpy":
                data = base64.b64decode(stored["value"])
                return numpy.frombuffer(data, _read_dtype(numpy, stored["dtype"]), 1)[0]
            case "dtype":
                return _read_dtype(numpy, stored["value"])
            case "npy":
                return numpy.load(self._folder / stored["file"], allow_pickle=False)
            case "masked":
                data, mask = self.decode(stored["data"]), self.decode(stored["mask"])
                return numpy.ma.MaskedArray(data, mask, fill_value=self.decode(stored["fill"]))
        made = numpy.empty(math.prod(stored["shape"]), dtype=object)
        for place, one in enumerate(stored["value"]):
            made[place] = self.decode(one)
        return made.reshape(stored["shape"])

    def _estimator(self, path: Path) -> Any:
        skops: Any = importlib.import_module("skops.io")
        # Whatever it names was made by this session's own code, and nothing outside of its sandbox trusts it.
        return skops.load(path, trusted=skops.get_untrusted_types(file=path))


def _written_dtype(numpy: Any, dtype: Any) -> Any:
    return numpy.lib.format.dtype_to_descr(dtype)


def _read_dtype(numpy: Any, written: Any) -> Any:
    def as_descr(part: Any) -> Any:
        """JSON has no tuples, which numpy wants for fields."""
        if not isinstance(part, list):
            return part
        return [
            tuple(
                as_descr(one) if isinstance(one, list) and place != 2 else _shape(one, place)
                for place, one in enumerate(field)
            )
            for field in part
        ]

    def _shape(one: Any, place: int) -> Any:
        return tuple(one) if place == 2 and isinstance(one, list) else one

    return numpy.lib.format.descr_to_dtype(as_descr(written))
