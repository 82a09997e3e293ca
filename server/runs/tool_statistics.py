"""How the tools of a workspace have fared: calls, failures and times of each, by generation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any


@dataclass
class ToolUse:
    """The calls of one tool by runs of one generation."""

    tool: str
    generation: str
    calls: int = 0
    failures: int = 0
    last_at: float = 0.0
    """When the run of its last call was asked, in seconds since 1970."""
    _seconds: list[float] = field(default_factory=list)

    def add(self, line: Mapping[str, Any], asked: float) -> None:
        """Count a step of a run that was asked at that time; `line` as `Line` has it."""
        self.calls += 1
        self.failures += line["has_error"]
        self.last_at = max(self.last_at, asked)
        if (seconds := line.get("tool_seconds")) is not None:
            self._seconds.append(seconds)

    def shown(self) -> dict[str, Any]:
        """As the routes show it. The times are null where no step has one."""
        values = sorted(self._seconds)
        return {
            "tool": self.tool,
            "generation": self.generation,
            "calls": self.calls,
            "failures": self.failures,
            "p50_seconds": _percentile(values, 0.5),
            "p95_seconds": _percentile(values, 0.95),
            "last_at": self.last_at,
        }


def tool_statistics(lines: Iterable[tuple[str, float, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The use of each tool in each generation, by the tool's name and then the latest use first. `lines`: see
    `TraceStore.lines_of_runs`."""
    uses: dict[tuple[str, str], ToolUse] = {}
    for generation, asked, line in lines:
        uses.setdefault((line["tool"], generation), ToolUse(line["tool"], generation)).add(line, asked)
    return [one.shown() for one in sorted(uses.values(), key=lambda one: (one.tool, -one.last_at))]


def _percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of the sorted `values` that is not below `share` of them (nearest rank)."""
    return values[ceil(share * len(values)) - 1] if values else None
