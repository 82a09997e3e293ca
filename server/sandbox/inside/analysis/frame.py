"""What an analysis says about a table: its columns with types, missing values and ranges, and its first rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from .result import counted, cut

MAX_COLUMNS = 200
FIRST_ROWS = 5


def describe_frame(frame: Any, notes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`columns` (at most 200), `column_count` and `first_rows` of a DataFrame; `notes` has remarks by column."""
    shown = frame.iloc[:, :MAX_COLUMNS]
    columns = [
        _describe_column(shown.iloc[:, index], (notes or {}).get(str(name)))
        for index, name in enumerate(shown.columns)
    ]
    rows = [[_shown(value) for value in row] for row in shown.head(FIRST_ROWS).itertuples(index=False, name=None)]
    return {"column_count": frame.shape[1], "columns": columns, "first_rows": rows}


def left_out_columns(count: int) -> list[str]:
    """What `skipped` says of columns above the maximum."""
    if count <= MAX_COLUMNS:
        return []
    return [f"{counted(count - MAX_COLUMNS, 'column')} after the first {MAX_COLUMNS} are not described."]


def column_names(frame_details: Mapping[str, Any]) -> Sequence[str]:
    return [column["name"] for column in frame_details["columns"]]


def _shown(value: Any) -> Any:
    return None if value is None or value != value else value


def _describe_column(column: Any, note: str | None) -> dict[str, Any]:
    from pandas.api import types

    described: dict[str, Any] = {"name": str(column.name)}
    present = column.dropna()
    described["missing"] = len(column) - len(present)
    if not len(present):
        described["type"] = "empty"
    elif types.is_bool_dtype(column.dtype):
        described |= {"type": "boolean", "true": int(present.astype(bool).sum())}
    elif types.is_datetime64_any_dtype(column.dtype):
        described |= {"type": "date", "min": present.min(), "max": present.max()}
    elif types.is_timedelta64_dtype(column.dtype):
        described |= {"type": "duration", "min": str(present.min()), "max": str(present.max())}
    elif types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype):
        kind = "integer" if types.is_integer_dtype(column.dtype) or _are_whole(present) else "number"
        described |= {"type": kind, "min": present.min(), "max": present.max(), "mean": float(present.mean())}
    else:
        described |= _describe_values(present)
    if note:
        described["note"] = note
    return described


def _are_whole(present: Any) -> bool:
    """Integers that pandas made floats because some are missing."""
    import numpy

    values = present.to_numpy(dtype=float)
    return bool(numpy.isfinite(values).all() and (values == numpy.floor(values)).all() and abs(values).max() < 2**53)


def _describe_values(present: Any) -> dict[str, Any]:
    """A column of texts, or of values of several types."""
    kinds = {type(value).__name__ for value in present.head(1000)}
    if kinds != {"str"}:
        names = sorted(
            {"str": "text", "int": "integer", "float": "number", "bool": "boolean"}.get(kind, kind) for kind in kinds
        )
        return {
            "type": names[0] if len(names) == 1 else f"mixed: {', '.join(names)}",
            "examples": [cut(str(value), 80) for value in present.head(3)],
        }
    counts = present.value_counts()
    described: dict[str, Any] = {"type": "text", "distinct": len(counts)}
    if len(counts) <= 12:
        described["values"] = {cut(str(value), 60): int(number) for value, number in counts.items()}
    else:
        described["examples"] = [cut(str(value), 80) for value in present.drop_duplicates().head(3)]
    lengths = present.head(10_000).str.len()
    described["longest"] = int(lengths.max())
    return described
