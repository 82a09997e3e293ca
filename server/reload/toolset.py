"""The description of a generation's tools, and the difference between two generations' tools."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolInfo:
    """A tool. Two tools of one name are the same if all fields are equal.

    `args_schema`: the JSON schema of its arguments. `sources`: hashes of the modules that it rests on, by name; see
    `server.workers.inside.toolset.describe_tool`.
    """

    name: str
    description: str
    args_schema: Mapping[str, Any]
    sources: Mapping[str, str]


def compare(before: Mapping[str, ToolInfo], after: Mapping[str, ToolInfo]) -> dict[str, list[str]]:
    """The names of the tools `added`, `removed` and `changed`, each list in order."""
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
    }
