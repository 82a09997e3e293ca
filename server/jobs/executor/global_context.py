"""The global context: JSON values that the agent, its tools and its jobs share.

The values are in the executor's process (`SharedValues`). `GlobalContext` is the same dictionary in each process: it
sends requests to the values, directly or over the socket of the job.
"""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import BaseModel

Operation = Literal["read", "write", "compare_and_set", "increment", "delete", "keys", "clear"]


class ContextRequest(BaseModel):
    """One request. `value` is JSON text, so that a value can't be shared by accident."""

    operation: Operation
    key: str = ""
    value: str = "null"
    version: int = 0
    """For `compare_and_set`: the version that was read."""
    amount: int | float = 1


class SharedValues:
    """The values. Each request is executed under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        """How often each key was written. The entry outlives the value."""

    def execute(self, request: ContextRequest) -> dict[str, Any]:
        """The reply: JSON. Raises `TypeError` for an increment of what is no number."""
        key = request.key
        with self._lock:
            match request.operation:
                case "read":
                    return {"value": self._values.get(key), "version": self._versions.get(key, 0)}
                case "write":
                    self._write(key, request.value)
                case "compare_and_set":
                    if self._versions.get(key, 0) != request.version:
                        return {"written": False}
                    self._write(key, request.value)
                    return {"written": True}
                case "increment":
                    before = json.loads(self._values.get(key, "0"))
                    if isinstance(before, bool) or not isinstance(before, int | float):
                        raise TypeError(f"{key!r} is no number: {self._values[key][:100]}")
                    self._write(key, json.dumps(before + request.amount, allow_nan=False))
                    return {"value": self._values[key]}
                case "delete":
                    existed = self._values.pop(key, None) is not None
                    self._versions[key] = self._versions.get(key, 0) + 1
                    return {"existed": existed}
                case "keys":
                    return {"keys": list(self._values)}
                case "clear":
                    for one in list(self._values):
                        del self._values[one]
                        self._versions[one] += 1
        return {}

    def _write(self, key: str, value: str) -> None:
        self._values[key] = value
        self._versions[key] = self._versions.get(key, 0) + 1


class GlobalContext:
    """A dictionary of JSON values. Each method is atomic, in every process.

    Values are copied: changing a list that `get` returned changes nothing here. Raises `TypeError` or `ValueError`
    for a value that is not JSON, and `ConnectionError` in a job whose executor has ended.
    """

    def __init__(self, ask: Callable[[ContextRequest], dict[str, Any]]) -> None:
        self._ask = ask

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default`."""
        return _decoded(self._ask(ContextRequest(operation="read", key=key))["value"], default)

    def set(self, key: str, value: Any) -> None:
        """Write a value."""
        self._ask(ContextRequest(operation="write", key=key, value=_encoded(value)))

    def update(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace the value by `fn(value)`, and return the new one. A missing value is `default`.

        `fn` runs in this process. If somebody else has written meanwhile, `fn` is called again with the newer value,
        so it must have no side effects.
        """
        while True:
            read = self._ask(ContextRequest(operation="read", key=key))
            value = _encoded(fn(_decoded(read["value"], default)))
            request = ContextRequest(operation="compare_and_set", key=key, value=value, version=read["version"])
            if self._ask(request)["written"]:
                return json.loads(value)

    def increment(self, key: str, amount: int | float = 1) -> Any:
        """Add `amount` to a number, and return the sum. A missing number is 0. Raises `TypeError` if the value is no
        number."""
        return json.loads(self._ask(ContextRequest(operation="increment", key=key, amount=amount))["value"])

    def delete(self, key: str) -> bool:
        """Remove a value. Returns whether there was one."""
        return bool(self._ask(ContextRequest(operation="delete", key=key))["existed"])

    def clear(self) -> None:
        """Remove all values."""
        self._ask(ContextRequest(operation="clear"))

    def keys(self) -> list[str]:
        """All keys, in the order in which they were first written."""
        return list(self._ask(ContextRequest(operation="keys"))["keys"])

    def __getitem__(self, key: str) -> Any:
        found = self._ask(ContextRequest(operation="read", key=key))["value"]
        if found is None:
            raise KeyError(key)
        return json.loads(found)

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def __contains__(self, key: str) -> bool:
        return self._ask(ContextRequest(operation="read", key=key))["value"] is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


def _encoded(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _decoded(text: str | None, default: Any) -> Any:
    return default if text is None else json.loads(text)
