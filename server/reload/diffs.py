"""Unified diffs between the files of two generations."""

import difflib
from collections.abc import Mapping


def unified_diffs(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, str]:
    """The unified diff of each path whose bytes differ, in order, in the form of `diff -u`."""
    return {
        path: _unified_diff(path, before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }


LONGEST_TEXT = 256 * 1024
"""Bytes. The time for a difference grows with the square of the lines."""


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
