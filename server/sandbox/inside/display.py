"""What values look like: text, and for tables and pictures more than that. Bounded."""

import base64
import contextlib
import io
import os
import reprlib
import sys
from pathlib import Path
from typing import Any

LONGEST_TEXT = 20_000
MOST_ROWS = 20
MOST_COLUMNS = 30
LONGEST_CELL = 200
MOST_FIGURES = 10
MOST_PICTURE_BYTES = 4 * 2**20
WIDEST_FIGURE = 40
"""Inches. A larger figure is not drawn: it would take gigabytes."""


def shown(value: Any) -> dict[str, Any]:
    """`type`, `text`, and, where it fits, `table` (a frame's first and last rows) or `png` (a picture, in base64)."""
    found: dict[str, Any] = {"type": type(value).__name__[:200], "text": as_text(value)}
    pandas: Any = sys.modules.get("pandas")
    with contextlib.suppress(Exception):  # boundary: any value; its text is enough
        if pandas is not None and isinstance(value, pandas.Series):
            value = value.to_frame()
        if pandas is not None and isinstance(value, pandas.DataFrame):
            found["table"] = _table(value)
        elif type(value).__module__.startswith("PIL."):
            held = io.BytesIO()
            value.save(held, "PNG")
            if held.tell() <= MOST_PICTURE_BYTES:
                found["png"] = base64.b64encode(held.getvalue()).decode()
    return found


def as_text(value: Any) -> str:
    """The value's text, as a notebook prints it."""
    try:
        text = value if type(value) is str else None
        text = repr(value) if text is None else repr(text) if len(text) < LONGEST_TEXT else repr(text[:LONGEST_TEXT])
    except Exception as error:  # boundary: the value's class may be anything
        text = f"<{type(value).__name__}, which can't be shown: {type(error).__name__}: {reprlib.repr(str(error))}>"
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]} … ({len(text) - LONGEST_TEXT} more characters)"
    # A lone surrogate has no place in UTF-8.
    return text.encode(errors="replace").decode()


def _table(frame: Any) -> dict[str, Any]:
    rows, columns = frame.shape
    part = frame.iloc[:, :MOST_COLUMNS]
    if rows > MOST_ROWS:
        half = MOST_ROWS // 2
        top, bottom = part.iloc[:half], part.iloc[-half:]
        index, cells = [*top.index, *bottom.index], [*top.itertuples(index=False), *bottom.itertuples(index=False)]
    else:
        index, cells = list(part.index), list(part.itertuples(index=False))
    return {
        "columns": [_cell(name) for name in part.columns],
        "index": [_cell(label) for label in index],
        "rows": [[_cell(value) for value in row] for row in cells],
        "row_count": rows,
        "column_count": columns,
    }


def _cell(value: Any) -> str:
    text = str(value)
    return (text if len(text) <= LONGEST_CELL else text[:LONGEST_CELL] + "…").encode(errors="replace").decode()


def save_figures(folder: Path, prefix: str, dpi: int) -> list[dict[str, Any]]:
    """Write matplotlib's open figures into `folder`, as PNG and SVG, and close them. Returns for each the names of
    its files, or why it was not drawn."""
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    saved: list[dict[str, Any]] = []
    try:
        for place, number in enumerate(pyplot.get_fignums()[:MOST_FIGURES], 1):
            saved.append(_save_figure(pyplot.figure(number), folder, f"{prefix}_{place}", dpi))
        pyplot.close("all")
    except Exception as error:  # boundary: code may have changed matplotlib
        saved.append({"error": f"{type(error).__name__}: {error}"[:500]})
    return saved


def _save_figure(figure: Any, folder: Path, name: str, dpi: int) -> dict[str, Any]:
    if max(figure.get_size_inches()) > WIDEST_FIGURE:
        return {"error": f"The figure is wider or higher than {WIDEST_FIGURE} inches, so it was not drawn."}
    made: dict[str, Any] = {}
    for kind in ("png", "svg"):
        path = folder / f"{name}.{kind}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # a link would be followed
            figure.savefig(path, dpi=dpi, bbox_inches="tight")
            made[kind] = path.name
        except Exception as error:  # boundary: what is in the figure may be anything
            made["error"] = f"{type(error).__name__}: {error}"[:500]
    return made
