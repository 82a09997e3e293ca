"""Each type of variable that the sandbox saves comes back exactly."""

import array
import collections
import datetime
import decimal
import fractions
import math
import pathlib
import re
import types
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from server.sandbox.inside.fingerprints import fingerprint
from server.sandbox.inside.saved_formats import UnsavedError, load, store

UTC = datetime.UTC
MOMENT = datetime.datetime(2026, 11, 30, 12, 30, 15, 250, UTC)
PLAIN: dict[str, Any] = {
    "none": None,
    "bool": True,
    "int": -7,
    "large int": 3**200,
    "float": 0.1,
    "infinite": -math.inf,
    "complex": complex(1.5, -0.0),
    "str": "Grüße \udc80 \x00 🔥",
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"abc"),
    "list": [1, [2.5, None], "x"],
    "tuple": (1, (2,), ()),
    "set": {1, "a", (2, 3)},
    "frozenset": frozenset({1, 2}),
    "dict": {"a": 1, "b": {"c": [True]}},
    "dict of ints": {1: "a", (2, 3): "b", None: 0.5},
    "dict with a dollar": {"$": "npy", "file": "/etc/passwd"},
    "ordered dict": collections.OrderedDict([("b", 1), ("a", 2)]),
    "counter": collections.Counter("hearth"),
    "deque": collections.deque([1, 2, 3], maxlen=5),
    "range": range(1, 20, 3),
    "slice": slice(None, 5, 2),
    "ellipsis": ...,
    "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
    "datetime in UTC": MOMENT,
    "datetime with a zone": MOMENT.astimezone(zoneinfo.ZoneInfo("Europe/Berlin")),
    "second of two hours": datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
    "date": datetime.date(2026, 11, 30),
    "time": datetime.time(23, 59, 59, 999999),
    "timedelta": datetime.timedelta(days=-1, microseconds=3),
    "timezone": datetime.timezone(datetime.timedelta(hours=5, minutes=30)),
    "decimal": decimal.Decimal("0.10"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=7),
    "path": pathlib.Path("data/sales.csv"),
    "pattern": re.compile("a+", re.IGNORECASE),
    "array": array.array("d", [1.0, 2.0]),
    "namespace": types.SimpleNamespace(a=1, b=[2]),
    "numpy float": np.float32(0.1),
    "numpy int": np.int8(-3),
    "numpy moment": np.datetime64("2026-11-30T12:00"),
    "dtype": np.dtype("<f4"),
    "dtype with fields": np.dtype([("a", "<i4"), ("b", "<f8", (2, 2))]),
    "timestamp": pd.Timestamp("2026-11-30 12:00:00.123456789"),
    "timestamp with a zone": pd.Timestamp("2026-11-30 12:00", tz="Asia/Tokyo"),
    "pandas timedelta": pd.Timedelta("1 days 02:03:04.000000005"),
    "period": pd.Period("2026-11", freq="M"),
    "interval": pd.Interval(0, 1.5, closed="left"),
}
ARRAYS: dict[str, Any] = {
    "floats": np.linspace(0, 1, 7),
    "ints": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "bools": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "text": np.array(["a", "bcd"]),
    "moments": np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"),
    "fields": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "objects": np.array([[1, "a"], [None, 2.5]], dtype=object),
    "nothing": np.empty((0, 3)),
    "a number": np.array(5.0),
    "in Fortran's order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}
INDEX = pd.date_range("2026-01-01", periods=3, freq="D", tz="Europe/Berlin", name="day")
FRAMES: dict[str, Any] = {
    "columns": pd.DataFrame(
        {"a": [1, 2, 3], "b": [0.5, np.nan, 1.5], "c": ["x", None, "z"], "d": [True, False, True]}
    ),
    "zones": pd.DataFrame({"when": pd.to_datetime(["2026-03-29", "2026-10-25"]).tz_localize("Europe/Berlin")}),
    "categories": pd.DataFrame({"size": pd.Categorical(["s", "l", "s"], ["s", "m", "l"], ordered=True)}),
    "nullable": pd.DataFrame({"n": pd.array([1, None, 3], "Int64"), "b": pd.array([True, None, False], "boolean")}),
    "durations": pd.DataFrame({"t": pd.to_timedelta(["1s", None, "2h"])}),
    "small types": pd.DataFrame({"i": np.array([1, 2], "int8"), "f": np.array([1, 2], "float32")}),
    "mixed": pd.DataFrame({"m": [1, "a", None, [1, 2]]}),
    "an index": pd.DataFrame({"v": [1, 2, 3]}, index=INDEX),
    "levels": pd.DataFrame({"v": range(4)}, index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["k", "n"])),
    "columns that are numbers": pd.DataFrame(np.eye(2)),
    "columns of one name": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "columns in levels": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="int64")}),
    "no columns": pd.DataFrame(index=[1, 2]),
}
SERIES: dict[str, Any] = {
    "named": pd.Series([1.5, 2.5], index=["x", "y"], name="v"),
    "unnamed": pd.Series(["a", "b"]),
    "periods": pd.Series(pd.period_range("2026-01", periods=2, freq="M")),
    "intervals": pd.Series(pd.interval_range(0, 2)),
    "an index with a name": pd.Series([1, 2], index=pd.Index([10, 20], name="id")),
}


def there_and_back(value: Any, folder: Path, source: str | None = None) -> Any:
    import json

    return load(json.loads(json.dumps(store(value, folder, source))), folder, {"__name__": "__main__"})


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN)
def test_plain_values(value: Any, tmp_path: Path) -> None:
    again = there_and_back(value, tmp_path)
    assert type(again) is type(value)
    assert again == value
    assert repr(again) == repr(value)
    assert getattr(again, "fold", 0) == getattr(value, "fold", 0)


def test_not_a_number(tmp_path: Path) -> None:
    values = there_and_back([math.nan, pd.NaT, pd.NA], tmp_path)
    assert math.isnan(values[0])
    assert values[1] is pd.NaT and values[2] is pd.NA


def test_a_default_dict(tmp_path: Path) -> None:
    value = collections.defaultdict(list, {"a": [1]})
    again = there_and_back(value, tmp_path)
    again["b"].append(2)
    assert again == {"a": [1], "b": [2]}


@pytest.mark.parametrize("value", ARRAYS.values(), ids=ARRAYS)
def test_arrays(value: Any, tmp_path: Path) -> None:
    again = there_and_back(value, tmp_path)
    assert again.dtype == value.dtype and again.shape == value.shape
    np.testing.assert_array_equal(again, value)


def test_a_masked_array(tmp_path: Path) -> None:
    value = np.ma.MaskedArray([1, 2, 3], [False, True, False], fill_value=-1)
    again = there_and_back(value, tmp_path)
    np.testing.assert_array_equal(again.mask, value.mask)
    assert again.fill_value == -1 and again.sum() == 4


@pytest.mark.parametrize("value", FRAMES.values(), ids=FRAMES)
def test_frames(value: Any, tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(there_and_back(value, tmp_path), value, check_freq=True)


@pytest.mark.parametrize("value", SERIES.values(), ids=SERIES)
def test_series(value: Any, tmp_path: Path) -> None:
    pd.testing.assert_series_equal(there_and_back(value, tmp_path), value)


def test_an_index(tmp_path: Path) -> None:
    pd.testing.assert_index_equal(there_and_back(INDEX, tmp_path), INDEX)


def test_values_inside_of_others(tmp_path: Path) -> None:
    value: dict[str, Any] = {"frames": [pd.DataFrame({"a": [1]}), pd.DataFrame({"b": ["x"]})], "array": np.arange(3)}
    again = there_and_back(value, tmp_path)
    pd.testing.assert_frame_equal(again["frames"][1], value["frames"][1])
    np.testing.assert_array_equal(again["array"], value["array"])


def test_modules_functions_and_classes(tmp_path: Path) -> None:
    assert there_and_back(math, tmp_path) is math
    assert there_and_back(math.sin, tmp_path) is math.sin
    assert there_and_back(decimal.Decimal, tmp_path) is decimal.Decimal
    names: dict[str, Any] = {"__name__": "__main__"}
    source = "def double(x):\n    return 2 * x"
    exec(source, names)
    assert there_and_back(names["double"], tmp_path, source)(4) == 8


def test_a_model_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    fitted = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    assert there_and_back(fitted, tmp_path).predict([[2.0]]) == pytest.approx([5.0])


class Own:
    pass


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Own(), "has no format"),
        (LOOP, "contains itself"),
        ([Own()], "has no format"),
        (iter(()), "has no format"),
        (lambda: 0, "defines it by a statement"),
        (collections.defaultdict(Own), "Python's own types"),
    ],
    ids=["class", "loop", "inside", "generator", "lambda", "factory"],
)
def test_what_is_not_saved_says_why(value: Any, why: str, tmp_path: Path) -> None:
    if callable(value) and getattr(value, "__name__", "") == "<lambda>":
        value.__module__ = "__main__"
    with pytest.raises(UnsavedError, match=why):
        store(value, tmp_path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.array([Own()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        load({"$": "npy", "file": "1.npy"}, tmp_path, {})


def change_list(value: Any) -> None:
    value[1].append(3)


def change_array(value: Any) -> None:
    value[0, 0] = 9


def change_frame(value: Any) -> None:
    value.iloc[0, 0] = 9


def change_text(value: Any) -> None:
    value.loc[0, "c"] = "other"


def change_name(value: Any) -> None:
    value.index.name = "other"


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1, [2]], change_list),
        (ARRAYS["ints"].copy(), change_array),
        (FRAMES["small types"].copy(), change_frame),
        (FRAMES["columns"].copy(), change_text),
        (FRAMES["nullable"].copy(), change_frame),
        (FRAMES["levels"].copy(), change_frame),
        (FRAMES["columns"].copy(), change_name),
    ],
    ids=["list", "array", "frame", "text", "nullable", "levels", "name of the index"],
)
def test_a_change_in_place_is_noticed(value: Any, change: Any) -> None:
    before = fingerprint(value)
    assert before is not None and fingerprint(value) == before
    change(value)
    assert fingerprint(value) != before
