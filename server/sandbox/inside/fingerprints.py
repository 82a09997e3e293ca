"""Noticing that a variable has changed since it was saved, also if it was changed in place."""

import hashlib
import sys
from typing import Any

from .saved_formats import UnsavedError, plain_text

CONSTANT = (type(None), int, float, complex, str, bytes)
CONSTANT_KINDS = ("module", "function", "builtin_function_or_method")
MOST_HASHED = 256 * 2**20
"""Bytes. A larger value counts as changed."""


class Fingerprints:
    """What the saved values looked like. A value whose type it does not know counts as changed."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def knows(self, name: str) -> bool:
        """Whether the variable was saved or loaded here."""
        return name in self._known

    def remember(self, name: str, value: Any) -> None:
        """The variable is saved as it is now."""
        self._known[name] = fingerprint(value)

    def forget(self, name: str) -> None:
        """The variable is gone."""
        self._known.pop(name, None)

    def is_same(self, name: str, value: Any) -> bool:
        """Whether the variable is as it was when it was saved."""
        known = self._known.get(name)
        return known is not None and bool(known == fingerprint(value))


def fingerprint(value: Any) -> Any:
    """Something that differs for different values; None if that can't be said."""
    kind = type(value)
    if kind in CONSTANT or kind.__name__ in CONSTANT_KINDS:
        # The id alone: a long text is not compared.
        return (id(value), _Held(value))
    numpy: Any = sys.modules.get("numpy")
    pandas: Any = sys.modules.get("pandas")
    if numpy is not None and kind is numpy.ndarray:
        return _of_array(numpy, value)
    if pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series | pandas.Index):
        return _of_pandas(numpy, pandas, value)
    try:
        return (kind, hashlib.blake2b(plain_text(value).encode(), digest_size=16).digest())
    except UnsavedError:
        return None


class _Held:
    """Holds a value, so that its id is no other's. Equal to every other one."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    __hash__ = None  # type: ignore[assignment]


def _of_array(numpy: Any, value: Any) -> Any:
    if value.dtype.hasobject or value.nbytes > MOST_HASHED:
        return None
    data = numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8)
    return (value.shape, str(value.dtype), hashlib.blake2b(data.data, digest_size=16).digest())


def _of_pandas(numpy: Any, pandas: Any, value: Any) -> Any:
    if numpy.sum(value.memory_usage()) > MOST_HASHED:
        return None
    if isinstance(value, pandas.Index):
        parts, names = [], [tuple(map(repr, value.names))]
        indexes = [value]
    elif isinstance(value, pandas.Series):
        parts, names = [value.array], [(repr(value.name),), tuple(map(repr, value.index.names))]
        indexes = [value.index]
    else:
        parts = [value.iloc[:, place].array for place in range(value.shape[1])]
        names = [tuple(map(repr, value.index.names)), tuple(map(repr, value.columns.names)), (repr(value.attrs),)]
        indexes = [value.index, value.columns]
    for index in indexes:
        if isinstance(index, pandas.MultiIndex):
            parts += [*(level.array for level in index.levels), *(numpy.asarray(codes) for codes in index.codes)]
        else:
            parts.append(index.array)
    found = [_of_column(numpy, pandas, part) for part in parts]
    return None if None in found else (type(value), names, found)


def _of_column(numpy: Any, pandas: Any, part: Any) -> Any:
    """Of an array of pandas. Its inner arrays have names that are pandas' own."""
    if isinstance(part, numpy.ndarray):
        return _of_array(numpy, part)
    if isinstance(part, pandas.Categorical):
        return (repr(part.categories), part.ordered, _of_array(numpy, numpy.asarray(part.codes)))
    arrow = getattr(part, "_pa_array", None)
    if arrow is not None:  # Arrow's arrays never change
        return (str(part.dtype), id(arrow), _Held(arrow))
    inner = [getattr(part, name, None) for name in ("_ndarray", "_data", "_mask")]
    found = [_of_array(numpy, one) for one in inner if isinstance(one, numpy.ndarray)]
    return None if not found or None in found else (str(part.dtype), found)
