"""Tools' results as the text that the model reads."""

import base64
import dataclasses
import datetime
import decimal
import enum
import io
import json
import math
import subprocess
import sys
from collections import Counter, OrderedDict, deque, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic.v1
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import Command
from matplotlib.figure import Figure
from PIL import Image
from pydantic import BaseModel, RootModel

from server.sdk.tool_result import MOST_CHARACTERS, MOST_ITERATED, as_text

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.booleans(), inner),
)


@given(plain.filter(lambda value: not isinstance(value, str)))
def test_simple_values_are_the_json_that_the_embedded_model_learned(value: Any) -> None:
    assert as_text(value) == json.dumps(value, ensure_ascii=False)


@given(st.text())
def test_text_stays_as_it_is(text: str) -> None:
    assert as_text(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (-0.5, "-0.5"),
        (True, "true"),
        (None, "null"),
        ("", ""),
        ("Zürich", "Zürich"),
        ([1, 2.5, "a"], '[1, 2.5, "a"]'),
        ((1, "é"), '[1, "é"]'),
        ({"name": "Zürich", "id": 3}, '{"name": "Zürich", "id": 3}'),
        ({1: "a", None: "b", 2.5: "c", False: 4}, json.dumps({1: "a", None: "b", 2.5: "c", False: 4})),
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_simple_results_word_for_word(value: Any, text: str) -> None:
    assert as_text(value) == text


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Sample:
    name: str
    taken: datetime.date
    values: np.ndarray


class Reading(BaseModel):
    sample: Point | None = None
    value: float = math.nan


class OldReading(pydantic.v1.BaseModel):
    value: int = 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pd.DataFrame({"n": [1, 2]})["n"].sum(), "3"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.5), "0.5"),
        (np.bool_(True), "true"),
        (np.str_("a"), "a"),
        (np.datetime64("2026-08-19"), "2026-08-19"),
        (np.array(2.5), "2.5"),
        (np.arange(3), "[0, 1, 2]"),
        (np.array([[1.0, math.nan]]), '[[1.0, "NaN"]]'),
        (torch.tensor([1, 2]), "[1, 2]"),
        (torch.tensor(0.5, requires_grad=True), "0.5"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        ([math.nan, -math.inf], '["NaN", "-Infinity"]'),
        (datetime.date(2026, 8, 19), "2026-08-19"),
        (datetime.datetime(2026, 8, 19, 12, 30), "2026-08-19T12:30:00"),
        (datetime.timedelta(hours=1), "1:00:00"),
        (pd.Timestamp("2026-08-19"), "2026-08-19T00:00:00"),
        (pd.NaT, "null"),
        ([pd.NA], "[null]"),
        (decimal.Decimal("1.10"), "1.10"),
        (Path("/data/a.csv"), "/data/a.csv"),
        (Colour.RED, "red"),
        ([Level.HIGH, Colour.RED], '[3, "red"]'),
        (Point(1, np.int64(2)), '{"x": 1, "y": 2}'),
        (
            Sample("a", datetime.date(2026, 1, 2), np.arange(2)),
            '{"name": "a", "taken": "2026-01-02", "values": [0, 1]}',
        ),
        (OldReading(), '{"value": 3}'),
        (RootModel[list[int]]([1, 2]), "[1, 2]"),
        ({datetime.date(2026, 1, 2): 1}, '{"2026-01-02": 1}'),
        ({(1, "a"): 2, np.int64(3): np.int64(4)}, '{"1, a": 2, "3": 4}'),
        ({math.nan: 1}, '{"NaN": 1}'),
        ({datetime.date(2026, 1, 2): 1, "2026-01-02": 2}, '[["2026-01-02", 1], ["2026-01-02", 2]]'),
        ({3, 1, 2}, "[1, 2, 3]"),
        (Counter("aab"), '{"a": 2, "b": 1}'),
        (OrderedDict(b=1, a=2).keys(), '["b", "a"]'),
        (deque([1, 2]), "[1, 2]"),
        (range(3), "[0, 1, 2]"),
        ((one * 2 for one in (1, 2)), "[2, 4]"),
        (1 + 2j, "(1+2j)"),
        (subprocess.run(["echo", "grün"], capture_output=True, check=True).stdout, "grün\n"),
    ],
)
def test_values_of_everyday_are_readable(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_a_model_is_its_fields_and_valid_json() -> None:
    text = as_text({"reading": Reading()})
    assert text == '{"reading": {"sample": null, "value": "NaN"}}'
    json.loads(text, parse_constant=pytest.fail)


def test_a_table_is_plain_text_with_its_shape() -> None:
    text = as_text(pd.DataFrame({"metal": ["tin", "lead"], "melts": [231.9, 327.5]}))
    assert text.splitlines() == ["  metal  melts", "0   tin  231.9", "1  lead  327.5", "(2 rows x 2 columns)"]
    assert as_text(pd.DataFrame()).endswith("(0 rows x 0 columns)")
    assert as_text(pd.Series([1, 2], ["a", "b"], name="n")) == "a  1\nb  2\n(n, 2 values of type int64)"


def test_a_large_table_or_array_is_bounded_and_tells_its_shape() -> None:
    frame = pd.DataFrame(np.zeros((100_000, 60)))
    for value in (frame, frame[0], frame.to_numpy(), torch.zeros(1000, 1000), np.array(["x" * 50] * 10_000)):
        assert len(as_text(value)) < 20_000
    assert as_text(frame).endswith("(100,000 rows x 60 columns)")
    assert as_text(frame.to_numpy()).startswith("array of 100000 x 60 values of type float64:\n")
    inner = json.loads(as_text({"table": frame}))["table"]
    assert inner["shape"] == [100_000, 60] and len(inner["rows"]) == 50 and len(inner["rows"][0]) == 20
    assert len(json.loads(as_text({"column": frame[0]}))["column"]) == MOST_ITERATED


def test_text_and_endless_iterators_are_bounded() -> None:
    def count() -> Any:
        while True:
            yield 1

    assert len(json.loads(as_text(count()))) == MOST_ITERATED
    assert as_text("x" * (MOST_CHARACTERS + 5)).endswith("x (5 more characters are cut off)")


def test_what_no_text_can_show_is_named_with_its_size() -> None:
    file = io.BytesIO()
    image = Image.new("RGB", (80, 60))
    image.save(file, "PNG")
    png = file.getvalue()
    assert as_text(png) == f"(PNG image, {len(png)} bytes, not shown)"
    assert as_text({"raw": bytes(range(256))}) == '{"raw": "(binary data, 256 bytes, not shown)"}'
    assert as_text(image) == "(PIL image of 80 x 60 pixels, not shown)"
    figure = Figure(figsize=(4, 3), dpi=100)
    assert as_text(figure) == as_text(figure.subplots()) == "(matplotlib figure of 400 x 300 pixels, not shown)"
    block = {"type": "image", "base64": base64.b64encode(png).decode(), "mime_type": "image/png"}
    assert as_text([{"type": "text", "text": "Here."}, block]).startswith("Here.\n(image/png, about ")
    address = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    assert as_text([address]) == "(image at https://example.org/a.png, not shown)"


def test_content_blocks_and_messages_are_their_text() -> None:
    blocks: list[Any] = [{"type": "text", "text": "one"}, {"type": "text", "text": "two", "annotations": None}]
    assert as_text(blocks) == "one\ntwo"
    assert as_text(AIMessage(blocks)) == as_text(AIMessage(["one", "two"])) == "one\ntwo"
    message = ToolMessage("stored", tool_call_id="1")
    assert as_text(message) == as_text(Command(update={"messages": [message]})) == "stored"
    # Data that only looks a little like it stays data.
    listing = [{"type": "file", "name": "a.csv"}, {"type": "text", "text": "b", "words": 3}]
    assert as_text(listing) == json.dumps(listing)
    assert as_text(["one", "two"]) == '["one", "two"]'


def test_a_value_that_holds_itself_is_an_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises((ValueError, RecursionError)):
        as_text(endless)


def test_libraries_are_not_imported_for_it() -> None:
    code = """
import sys, datetime
from server.sdk.tool_result import as_text
for value in (1, "a", [1.5, {"a": datetime.date(2026, 1, 2)}], {1, 2}, b"\\x00", object()):
    as_text(value)
print(sorted({"numpy", "pandas", "torch", "PIL", "matplotlib", "langchain_core"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
