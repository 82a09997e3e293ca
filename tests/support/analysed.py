"""Files that tests analyse, and the code of an analysis, executed."""

from pathlib import Path
from typing import Any

import pytest

from server.sandbox.inside.analysis import analyse, profile


def analyse_bytes(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    """The analysis of a file with this content. Its profile obeys its bounds too."""
    path = folder / name
    path.write_bytes(content)
    analysis = analyse(str(path))
    assert len(profile(analysis)) <= 4_000
    return analysis


def execute(
    analysis: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, code: str | None = None
) -> dict[str, Any]:
    """What `how_to_read` (or `code`) defines, when it runs as people's code does: in the folder of the file."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code or analysis["how_to_read"], "how_to_read", "exec"), names)
    return names


def values_of(frame: Any, row: int = 0) -> list[Any]:
    """A row of a DataFrame: dates as ISO 8601, missing values as None."""
    values: list[Any] = []
    for value in frame.iloc[row].tolist():
        if value is None or value != value:
            values.append(None)
        elif hasattr(value, "isoformat"):
            values.append(value.isoformat().removesuffix("T00:00:00"))
        else:
            values.append(value)
    return values
