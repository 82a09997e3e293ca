"""A cell: what it gave, and what it printed."""

import codecs
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MOST_OUTPUT = 200_000
"""Characters of a cell's output that are shown: the first and the last half of them."""
MOST_OUTPUT_READ = 64 * 2**20
"""Bytes. A cell that prints more is ended."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """The text without what would act in a terminal."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text).replace("\r\n", "\n"))


def _printable(value: object) -> object:
    """A text of the sandbox without what would act in a terminal, and without lone surrogates, which UTF-8 lacks."""
    return clean(value.encode(errors="replace").decode()) if isinstance(value, str) else value


def _inside(path: str) -> str:
    """The path, which must lead to a file below the session's folder."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError("a path leads out of the session's folder")
    return path


Text = Annotated[str, BeforeValidator(_printable)]
FilePath = Annotated[str, BeforeValidator(_printable), AfterValidator(_inside)]


class CellError(BaseModel):
    """How a cell failed. `line`: of its code, if one is to blame."""

    type: Text = Field(max_length=200)
    message: Text = Field(max_length=4000)
    traceback: Text = Field("", max_length=20_000)
    line: int | None = None


class Table(BaseModel):
    """The first and the last rows of a frame, as text."""

    model_config = ConfigDict(extra="forbid")

    columns: list[Text] = Field(max_length=100)
    index: list[Text] = Field(max_length=100)
    rows: list[list[Text]] = Field(max_length=100)
    row_count: int
    column_count: int


class Shown(BaseModel):
    """What a value looks like."""

    model_config = ConfigDict(extra="forbid")

    type: Text = Field(max_length=200)
    text: Text = Field(max_length=50_000)
    table: Table | None = Field(None, description="of a frame or a series")
    png: str | None = Field(None, pattern=r"^[A-Za-z0-9+/=]*$", description="of a picture, in base64")


class Figure(BaseModel):
    """A figure of matplotlib, by the names of its files in the session; or why it was not drawn."""

    model_config = ConfigDict(extra="forbid")

    png: FilePath | None = Field(None, max_length=200)
    svg: FilePath | None = Field(None, max_length=200)
    error: Text | None = Field(None, max_length=1000)


class Variable(BaseModel):
    """A variable of a session."""

    model_config = ConfigDict(extra="forbid")

    name: Text = Field(max_length=200)
    type: Text = Field(max_length=200)
    saved: bool = Field(description="whether it outlives the interpreter")
    why: Text | None = Field(None, max_length=1000, description="only if it is not saved: the reason")
    bytes: int | None = Field(None, description="size of what is saved")
    shape: list[int] | None = Field(None, max_length=100)
    dtype: Text | None = Field(None, max_length=200)
    columns: dict[Text, Text] | None = Field(None, max_length=100, description="of a frame: their types")
    text: Text | None = Field(None, max_length=1000)


class Reply(BaseModel):
    """The sandbox's reply to a cell. Untrusted code may have written it."""

    model_config = ConfigDict(extra="forbid")

    number: int = Field(ge=0, le=10**9)
    result: Shown | None
    error: CellError | None
    figures: list[Figure] = Field(max_length=20)
    files: list[FilePath] = Field(max_length=50)
    variables: list[Variable] = Field(max_length=200)
    unsaved: dict[Text, Text] = Field(max_length=10_000)


class OfVariable(BaseModel):
    """The sandbox's reply about one variable. Untrusted code may have written it."""

    model_config = ConfigDict(extra="forbid")

    shown: Shown | None = None
    file: str | None = Field(None, pattern=r"^[^/\x00]{1,250}$")
    unknown: str | None = None
    failed: str | None = Field(None, max_length=2000)


class CellResult(BaseModel):
    """A cell that has ended."""

    number: int | None = Field(description="of the session's cells; null: its interpreter was ended")
    output: str = Field(description="what it printed")
    result: Shown | None = Field(None, description="the value of its last line, if that is an expression")
    error: CellError | None = None
    figures: list[Figure] = Field(default_factory=list, description="drawn with matplotlib")
    files: list[str] = Field(default_factory=list, description="files of the session that it has made or changed")
    variables: list[Variable] = Field(default_factory=list, description="of the session, after the cell")
    seconds: float
    isolation: str = Field(description="how its process was separated from the machine")


class Output:
    """Collects what a cell prints: the first and the last part of it, without control characters."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        """`on_text`: gets the first part as it comes."""
        self._on_text = on_text
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._first = ""
        self._last = bytearray()
        """Not decoded: a flood must not take the server's time."""
        self._left_out = False
        self.read_bytes = 0

    def add(self, data: bytes) -> None:
        """Take what has arrived."""
        self.read_bytes += len(data)
        room = MOST_OUTPUT // 2 - len(self._first)
        if room > 0:
            text = clean(self._decode(data[:room]))
            self._first += text
            self._on_text(text)
            data = data[room:]
        self._last += data
        if len(self._last) > MOST_OUTPUT:
            self._left_out = True
            del self._last[: -MOST_OUTPUT // 2]

    @property
    def text(self) -> str:
        """All of it, or its first and last part."""
        middle = "\n… (a part of the output is left out) …\n" if self._left_out else ""
        return self._first + middle + clean(self._last.decode(errors="replace"))
