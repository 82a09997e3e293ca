"""What differs between two generations: modules, tools, and the lines of files."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from server.reload.snapshot import Snapshot

LONGEST_TEXT = 256 * 1024
"""Bytes. The time for a difference grows with the square of the lines."""


def changed_modules(before: Snapshot | None, after: Snapshot) -> list[str]:
    """The names of the modules that were added, removed or edited, and the paths of such data files, in order."""
    old, new = dict(before.files) if before else {}, dict(after.files)
    return sorted({module_name(path) for path in old.keys() | new.keys() if old.get(path) != new.get(path)})


def module_name(path: str) -> str:
    """`tools.calculator` for `tools/calculator.py`, `tools` for `tools/__init__.py`; of a data file its path."""
    pure = PurePosixPath(path)
    if pure.suffix != ".py":
        return path
    parts = pure.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class ToolInfo:
    """A tool. Two tools of one name are the same if all fields are equal.

    `args_schema`: the JSON schema of its arguments. `sources`: hashes of the modules that it rests on, by name; see
    `server.workers.inside.toolset.describe_tool`. `is_background`: an agent's call of it returns at once.
    `is_idempotent`: a job of it may be started twice. `resources`: what a job of it needs on a cluster; see
    `server.sdk.jobs.resources`. `title` and `annotations` are for MCP clients.
    """

    name: str
    description: str
    args_schema: Mapping[str, Any]
    sources: Mapping[str, str]
    is_background: bool = False
    is_idempotent: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)
    title: str | None = None
    annotations: Mapping[str, bool] = field(default_factory=dict)


def changed_tools(before: Mapping[str, ToolInfo], after: Mapping[str, ToolInfo]) -> dict[str, list[str]]:
    """The names of the tools `added`, `removed` and `changed`, each list in order."""
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
    }


def unified_diffs(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, str]:
    """The unified diff of each path whose bytes differ, in order, in the form of `diff -u`."""
    return {
        path: _unified_diff(path, before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }


def _is_data(data: bytes | None) -> bool:
    return data is not None and (len(data) > LONGEST_TEXT or b"\0" in data)


def _unified_diff(path: str, old: bytes | None, new: bytes | None) -> str:
    """None: there is no such file."""
    if any(_is_data(data) for data in (old, new)):
        return f"Binary files a/{path} and b/{path} differ\n"

    def lines(data: bytes | None) -> list[str]:
        return (data or b"").decode("utf-8", "replace").splitlines(keepends=True)

    text = ""
    for line in difflib.unified_diff(
        lines(old),
        lines(new),
        "/dev/null" if old is None else f"a/{path}",
        "/dev/null" if new is None else f"b/{path}",
    ):
        text += line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
    return text
