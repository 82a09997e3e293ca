"""What an analyser gets and gives, and the bounds that every analysis obeys."""

import datetime
import json
import math
import numbers
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 1024
"""Of an analysis, serialised as JSON."""
MAX_TEXT = 400
"""Characters of one value; `long_text` has a maximum of its own."""
MAX_DIGITS = 100
"""Of one integer. JSON has no maximum, but Python refuses to write more than 4,300."""


class Refused(Exception):
    """The file is not analysed. The message says why, in words that a person can act on."""


@contextmanager
def refusing(kind: str | None) -> Iterator[None]:
    """The boundary to libraries that parse what may be damaged or hostile: they raise errors of any type, and these
    become `Refused`. `kind`: of the file; None: some text."""
    try:
        yield
    except Refused:
        raise
    except MemoryError as error:
        raise Refused(f"Reading this {kind or 'text'} file needs more memory than an analysis has.") from error
    except RecursionError as error:
        raise Refused(f"This {kind or 'text'} file is nested too deeply.") from error
    except BaseException as error:
        # A panic of a library in Rust is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).strip().splitlines()
        raise Refused(
            f"This {kind or 'text'} file is damaged, or not what it claims to be: "
            f"{type(error).__name__}{': ' + reason[0][:200] if reason else ''}."
        ) from error


@dataclass(frozen=True)
class File:
    """A regular file that may be hostile."""

    path: Path
    size: int
    """In bytes."""
    head: bytes
    """The first bytes, at most 64 KiB."""

    @property
    def name(self) -> str:
        """Code that reads the file runs in its folder, so its name is enough."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """In lower case, with the dot. Only a hint."""
        return self.path.suffix.lower()


@dataclass
class Analysis:
    kind: str
    summary: str
    details: dict[str, Any]
    how_to_read: str
    skipped: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The bounded value. Lists in `details` become shorter until it fits, and `skipped` says so."""
        value: dict[str, Any] = {
            "kind": self.kind,
            "summary": cut(clean(self.summary)),
            "details": plain(self.details),
            "how_to_read": clean(self.how_to_read),
            "skipped": [cut(clean(reason)) for reason in self.skipped[:40]],
        }
        if _bytes_of(value) <= MAX_BYTES:
            return value
        value["skipped"].append("The longest lists and texts were cut, so that this analysis stays below 64 KiB.")
        while _bytes_of(value) > MAX_BYTES:
            _shorten(value["details"])
        return value


class Deadline:
    """A span of time from now on. Code asks; nothing is interrupted."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def passed(self) -> bool:
        return time.monotonic() >= self._end

    def left(self) -> float:
        """In seconds, at least 0."""
        return max(0.0, self._end - time.monotonic())


class LongText(str):
    """A text that `plain` leaves whole. Its maker has bounded it."""


def long_text(text: str, maximum: int) -> LongText:
    return LongText(clean(text)[:maximum])


def cut(text: str, maximum: int = MAX_TEXT) -> str:
    return text if len(text) <= maximum else text[: maximum - 1] + "…"


def clean(text: str) -> str:
    """Without NUL and lone surrogates, which databases and UTF-8 do not take."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode("utf-8")


def listed(names: Iterable[str], maximum: int = 10) -> str:
    """Names as a text, with how many more there are."""
    every = list(names)
    more = f" and {len(every) - maximum} more" if len(every) > maximum else ""
    return ", ".join(cut(name, 60) for name in every[:maximum]) + more


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `1,234 rows`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def plain(value: Any) -> Any:
    """The value as JSON has it: missing values are null, dates ISO 8601, and texts and numbers are bounded."""
    if value is None or isinstance(value, bool | LongText):
        return value
    if isinstance(value, str):
        return cut(clean(value))
    if isinstance(value, dict):
        return {cut(clean(str(key)), 200): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, numbers.Integral):
        return _bounded_integer(int(value))
    if isinstance(value, numbers.Real):
        return _bounded_float(float(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    if hasattr(value, "isoformat"):  # dates and times, of pandas too; NaT is not equal to itself
        return value.isoformat().removesuffix("T00:00:00") if value == value else None
    if isinstance(value, datetime.timedelta):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a value of numpy
        return plain(value.item())
    text = str(value)
    return None if text in ("<NA>", "NaT") else cut(clean(text))


def _bounded_integer(value: int) -> Any:
    # 10 binary digits are 3 decimal ones.
    return value if value.bit_length() < MAX_DIGITS * 10 // 3 else f"an integer of {value.bit_length():,} bits"


def _bounded_float(value: float) -> Any:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("-infinity" if value < 0 else "infinity")


def _bytes_of(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _shorten(details: dict[str, Any]) -> None:
    """Halves the list or text in `details` that is the longest when it is serialised."""
    longest, holder, key = 0, None, None
    waiting: list[Any] = [details]
    while waiting:
        container = waiting.pop()
        for name, entry in list(container.items() if isinstance(container, dict) else enumerate(container)):
            if isinstance(entry, dict | list):
                waiting.append(entry)
            # A list of one entry is searched further, but can't be halved; nor can an object.
            is_text = isinstance(entry, str) and len(entry) > 40 and name != "how_to_read"  # half of a code is none
            halvable = (isinstance(entry, list) and len(entry) > 1) or is_text
            if halvable and (size := _bytes_of(entry)) > longest:
                longest, holder, key = size, container, name
    if holder is None:  # many small entries: an object with very many names
        details.clear()
        return
    holder[key] = holder[key][: len(holder[key]) // 2]
