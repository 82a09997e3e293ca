"""Saving frames, series and indexes of pandas, exactly: names and types of columns, index, time zones, categories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKED_CELLS = 2**20
"""A frame of at most so many values is read again after it was saved, and compared."""


def is_of_pandas(pandas: Any, value: Any) -> bool:
    """Whether this module has a format for the value."""
    kinds = (pandas.DataFrame, pandas.Series, pandas.Index, pandas.Timestamp, pandas.Timedelta)
    scalars = (pandas.Period, pandas.Interval, pandas.api.extensions.ExtensionDtype)
    return value is pandas.NA or value is pandas.NaT or isinstance(value, kinds + scalars)


def store(pandas: Any, value: Any, encode: Callable[[Any], Any], part: Callable[[str], Path]) -> Any:
    """See `saved_formats.store`. `encode`: for values inside; `part`: the path for a file with this ending. Raises
    TypeError for a subclass."""
    kind = type(value)
    if value is pandas.NA or value is pandas.NaT:
        return {"$": "pandas.NA" if value is pandas.NA else "pandas.NaT"}
    if kind is pandas.Timestamp:
        zone = None if value.tz is None else str(value.tz)
        return {"$": "Timestamp", "value": value.asm8.view("int64").item(), "unit": value.unit, "zone": zone}
    if kind is pandas.Timedelta:
        return {"$": "Timedelta", "value": value.asm8.view("int64").item(), "unit": value.unit}
    if kind is pandas.Period:
        return {"$": "Period", "value": value.ordinal, "freq": value.freqstr}
    if kind is pandas.Interval:
        sides = {"left": encode(value.left), "right": encode(value.right)}
        return {"$": "Interval", **sides, "closed": value.closed}
    if kind is pandas.DataFrame:
        return _store_frame(pandas, value, encode, part)
    if kind is pandas.Series:
        frame = pandas.DataFrame({0: value})
        return {"$": "Series", "frame": _store_frame(pandas, frame, encode, part), "name": encode(value.name)}
    if isinstance(value, pandas.Index) and kind.__module__.partition(".")[0] == "pandas":
        return {"$": "Index", **_store_index(pandas, value, encode, part)}
    raise TypeError(f"its class {kind.__module__}.{kind.__name__} has no format that is saved")


def load(pandas: Any, stored: dict[str, Any], decode: Callable[[Any], Any], folder: Path) -> Any:
    """See `saved_formats.load`."""
    match stored["$"]:
        case "pandas.NA":
            return pandas.NA
        case "pandas.NaT":
            return pandas.NaT
        case "Timestamp":
            moment = pandas.Timestamp(stored["value"], unit=stored["unit"]).as_unit(stored["unit"])
            return moment if stored["zone"] is None else moment.tz_localize("UTC").tz_convert(stored["zone"])
        case "Timedelta":
            return pandas.Timedelta(stored["value"], unit=stored["unit"]).as_unit(stored["unit"])
        case "Period":
            return pandas.Period(ordinal=stored["value"], freq=stored["freq"])
        case "Interval":
            return pandas.Interval(decode(stored["left"]), decode(stored["right"]), stored["closed"])
        case "Series":
            series = _load_frame(pandas, stored["frame"], decode, folder)[0]
            series.name = decode(stored["name"])
            return series
        case "Index":
            return _load_index(pandas, stored, decode, folder)
        case "DataFrame":
            return _load_frame(pandas, stored, decode, folder)
    raise ValueError(f"There is no format {stored['$']!r}.")


def _store_frame(pandas: Any, frame: Any, encode: Callable[[Any], Any], part: Callable[[str], Path]) -> Any:
    columns = [frame.iloc[:, place].reset_index(drop=True) for place in range(frame.shape[1])]
    objects = {place: column for place, column in enumerate(columns) if column.dtype == object}
    # Parquet has one type for a column: what has several is written as JSON.
    plain = pandas.DataFrame({str(place): column for place, column in enumerate(columns) if place not in objects})
    path = part("parquet")
    plain.to_parquet(path, index=False)
    stored = {
        "$": "DataFrame",
        "file": path.name,
        "rows": len(frame),
        "objects": {str(place): [encode(one) for one in column] for place, column in objects.items()},
        "columns": _store_index(pandas, frame.columns, encode, part),
        "index": _store_index(pandas, frame.index, encode, part),
        "attrs": encode(dict(frame.attrs)),
    }
    if frame.size <= CHECKED_CELLS:
        _check(pandas, plain, path)
    return stored


def _check(pandas: Any, frame: Any, path: Path) -> None:
    again = pandas.read_parquet(path)
    same = list(again.dtypes) == list(frame.dtypes) and again.equals(frame)
    if not same:
        differing = [str(old) for old, new in zip(frame.dtypes, again.dtypes, strict=True) if old != new]
        raise TypeError(f"Parquet can't hold it exactly ({', '.join(differing) or 'its values'})")


def _load_frame(pandas: Any, stored: dict[str, Any], decode: Callable[[Any], Any], folder: Path) -> Any:
    plain = pandas.read_parquet(folder / stored["file"])
    objects, rows = stored["objects"], stored["rows"]
    columns = {}
    for place in range(plain.shape[1] + len(objects)):
        given = objects.get(str(place))
        columns[place] = (
            plain[str(place)] if given is None else pandas.Series([decode(one) for one in given], dtype=object)
        )
    frame = pandas.DataFrame(columns, index=pandas.RangeIndex(rows))
    frame.columns = _load_index(pandas, stored["columns"], decode, folder)
    frame.index = _load_index(pandas, stored["index"], decode, folder)
    frame.attrs = decode(stored["attrs"])
    return frame


def _store_index(pandas: Any, index: Any, encode: Callable[[Any], Any], part: Callable[[str], Path]) -> Any:
    names = [encode(name) for name in index.names]
    if isinstance(index, pandas.RangeIndex):
        return {"kind": "range", "value": [index.start, index.stop, index.step], "names": names}
    if isinstance(index, pandas.MultiIndex):
        levels = [_store_index(pandas, level, encode, part) for level in index.levels]
        return {
            "kind": "levels",
            "levels": levels,
            "codes": [list(map(int, one)) for one in index.codes],
            "names": names,
        }
    freq = index.freqstr if isinstance(index, pandas.DatetimeIndex | pandas.TimedeltaIndex) else None
    if index.dtype == object:
        return {"kind": "objects", "value": [encode(one) for one in index], "names": names}
    path = part("parquet")
    frame = pandas.DataFrame({"0": index.array})
    frame.to_parquet(path, index=False)
    _check(pandas, frame, path)
    return {"kind": "parquet", "file": path.name, "names": names, "freq": freq}


def _load_index(pandas: Any, stored: dict[str, Any], decode: Callable[[Any], Any], folder: Path) -> Any:
    names = [decode(name) for name in stored["names"]]
    match stored["kind"]:
        case "range":
            return pandas.RangeIndex(*stored["value"], name=names[0])
        case "levels":
            levels = [_load_index(pandas, level, decode, folder) for level in stored["levels"]]
            return pandas.MultiIndex(levels, stored["codes"], names=names)
        case "objects":
            return pandas.Index(
                [decode(one) for one in stored["value"]], dtype=object, name=names[0], tupleize_cols=False
            )
        case "parquet":
            values = pandas.read_parquet(folder / stored["file"])["0"]
            index = pandas.Index(values.array, name=names[0])
            if stored["freq"] is not None:
                index.freq = stored["freq"]
            return index
    raise ValueError(f"There is no kind of index {stored['kind']!r}.")
