"""A variable as a file that other programs read."""

import collections
import json
import sys
from pathlib import Path
from typing import Any

from .saved_formats import plain_text

FOLDER = "exports"


def export(name: str, value: Any, state: Path) -> str:
    """Write `value` into the session's state: a frame as CSV, an array as .npy, text and bytes as they are, another
    plain value as JSON. Returns the file's name. Raises `UnsavedError` for any other, TypeError for keys that JSON
    does not have, and OSError."""
    folder = state / FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():  # a link would be followed
        old.unlink()
    numpy: Any = sys.modules.get("numpy")
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series):
        path = folder / f"{name}.csv"
        value.to_csv(path)
    elif numpy is not None and isinstance(value, numpy.ndarray) and not value.dtype.hasobject:
        path = folder / f"{name}.npy"
        numpy.save(path, value, allow_pickle=False)
    elif isinstance(value, str):
        path = folder / f"{name}.txt"
        path.write_bytes(value.encode(errors="replace"))
    elif isinstance(value, bytes | bytearray):
        path = folder / f"{name}.bin"
        path.write_bytes(value)
    elif type(value).__module__.startswith("PIL."):
        path = folder / f"{name}.png"
        value.save(path)
    else:
        plain_text(value)  # raises for what is no plain value
        path = folder / f"{name}.json"
        path.write_text(json.dumps(value, indent=1, default=_as_json))
    return path.name


def _as_json(value: Any) -> Any:
    """What stands for a plain value that JSON does not have."""
    return list(value) if isinstance(value, set | frozenset | collections.deque | range) else str(value)
