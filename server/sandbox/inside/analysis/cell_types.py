"""The type of a column of text cells: numbers in some national format, dates in some order, or text."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# What pandas reads as missing, of itself.
PANDAS_MISSING = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null|".split("|")
)
# What people write besides.
OTHER_MISSING = frozenset(
    (
        "-|--|---|\u2013|\u2014|.|..|?|*|na|N.A.|n.a.|n. a.|nd|ND|n.d.|N.D.|missing|Missing|MISSING|unknown|Unknown|"
        "none|NAN|Null|k.A.|k. A.|keine Angabe|#DIV/0!|#VALUE!|#REF!|#NUM!|#NAME?|#NULL!|(null)|NR|n.r.|<LOD|BDL"
    ).split("|")
)


@dataclass(frozen=True)
class NumberFormat:
    decimal: str = "."
    thousands: str | None = None


_FORMATS = (
    NumberFormat(),
    NumberFormat(","),
    NumberFormat(".", ","),
    NumberFormat(",", "."),
    NumberFormat(".", " "),
    NumberFormat(",", " "),
    NumberFormat(".", "'"),
    NumberFormat(",", "'"),
    NumberFormat(".", "\u2019"),
)
# In any national format.
ANY_NUMBER = re.compile(r"[-+\u2212]?[€$£]?\s?\d[\d.,' \u00a0\u202f]*(?:[eE][-+]?\d+)?\s?[%€$£]?$|[-+]?\.\d+$")
ANY_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([ T]\d{1,2}:\d{2}.*)?$|\d{1,2}:\d{2}(:\d{2})?$")
_LEADING_ZERO = re.compile(r"[-+]?0\d+$")
_PHONE = re.compile(r"\+\d{6,}$")
_LIKE_EXPONENT = re.compile(r"\d+[Ee]\d+$")
_TIME = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?$")
_DECORATED = re.compile(
    r"(?:(?P<before>[€$£¥]|EUR|USD|CHF|GBP)\s?)?(?P<number>[-+\u2212]?[\d.,'\u2019\u00a0\u202f\u2009 ]*\d)\s?"
    r"(?P<after>%|‰|[€$£¥]|EUR|USD|CHF|GBP)?$"
)


def _pattern(number_format: NumberFormat) -> re.Pattern[str]:
    decimal = re.escape(number_format.decimal)
    whole = r"\d+"
    if number_format.thousands:
        thousands = re.escape(number_format.thousands)
        whole = rf"(?:[1-9]\d{{0,2}}(?:{thousands}\d{{3}})+|\d+)"
    return re.compile(rf"[-+]?(?:{whole}(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][-+]?\d+)?$")


PATTERNS = {number_format: _pattern(number_format) for number_format in _FORMATS}


@dataclass(frozen=True)
class DateFormat:
    pattern: re.Pattern[str]
    format: str
    """Of strptime, or `ISO8601`."""
    order: str
    """`year`, `day` or `month`: what stands first; `name` if the month is a word."""


def _dates() -> list[DateFormat]:
    time = r"(?P<time>[ T]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?: ?[AaPp][Mm])?)?"
    known = [
        DateFormat(
            re.compile(r"\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?$"),
            "ISO8601",
            "year",
        )
    ]
    for separator in ("/", "."):
        sign = re.escape(separator)
        known.append(
            DateFormat(
                re.compile(rf"\d{{4}}{sign}\d{{1,2}}{sign}\d{{1,2}}{time}$"), f"%Y{separator}%m{separator}%d", "year"
            )
        )
    for separator in (".", "/", "-"):
        sign = re.escape(separator)
        for digits, year in ((4, "%Y"), (2, "%y")):
            pattern = re.compile(rf"(\d{{1,2}}){sign}(\d{{1,2}}){sign}\d{{{digits}}}{time}$")
            known.append(DateFormat(pattern, f"%d{separator}%m{separator}{year}", "day"))
            if separator != ".":
                known.append(DateFormat(pattern, f"%m{separator}%d{separator}{year}", "month"))
    for named, form in (
        (r"\d{1,2}-[A-Za-z]{3}-\d{4}", "%d-%b-%Y"),
        (r"\d{1,2}-[A-Za-z]{3}-\d{2}", "%d-%b-%y"),
        (r"\d{1,2} [A-Za-z]{3} \d{4}", "%d %b %Y"),
        (r"\d{1,2} [A-Za-z]{3,9} \d{4}", "%d %B %Y"),
        (r"[A-Za-z]{3} \d{1,2}, \d{4}", "%b %d, %Y"),
        (r"[A-Za-z]{3,9} \d{1,2}, \d{4}", "%B %d, %Y"),
    ):
        known.append(DateFormat(re.compile(rf"{named}{time}$"), form, "name"))
    return known


_DATES = _dates()


@dataclass
class ColumnType:
    type: str
    """`number`, `date`, `code` (digits that are no number), `decorated` (a number with % or a currency), `text` or
    `empty`."""
    format: str | None = None
    """Of a date."""
    missing: list[str] = field(default_factory=list)
    """Words for a missing value that pandas does not know."""
    note: str | None = None


def classify(cells: Sequence[str], numbers: NumberFormat, day_first: bool | None) -> ColumnType:
    """The type of a column. `day_first` is what the rest of the file suggests for dates such as 03/04/2021."""
    values = [cell.strip() for cell in cells]
    values = [value for value in values if value not in PANDAS_MISSING]
    if not values:
        return ColumnType("empty")
    rest = [value for value in values if value not in OTHER_MISSING]
    missing = sorted({value for value in values if value in OTHER_MISSING})
    if not rest or len(rest) < 0.3 * len(values):
        return ColumnType("text")
    if code := _code(rest):
        return code
    if all(PATTERNS[numbers].match(value) for value in rest):
        return ColumnType("number", missing=missing)
    if found := _date(rest, day_first):
        found.missing = missing
        return found
    if all(_DECORATED.match(value) and len(value) < 40 for value in rest) and not any(map(_TIME.match, rest)):
        return _decorated(rest, missing)
    others = [value for value in rest if not PATTERNS[numbers].match(value)]
    note = f"mostly numbers, but not {others[0][:60]!r}" if len(others) < 0.02 * len(rest) else None
    return ColumnType("text", note=note)


def _code(values: list[str]) -> ColumnType | None:
    if all(value.lstrip("+-").isdigit() for value in values):
        if any(map(_LEADING_ZERO.match, values)):
            return ColumnType("code", note="digits with leading zeros: text, not numbers")
        if all(map(_PHONE.match, values)):
            return ColumnType("code", note="digits with a leading +: text, not numbers")
        if any(len(value) > 18 for value in values):
            return ColumnType("code", note="digits that are too long for a 64-bit integer: text")
    elif any(map(_LEADING_ZERO.match, values)) and not any(map(_TIME.match, values)) and not _any_fraction(values):
        return ColumnType("code", note="leading zeros: text, not numbers")
    if all(map(_LIKE_EXPONENT.match, values)):
        return ColumnType("code", note="looks like 1E5 but has no sign or decimals, so it is a name: text")
    return None


def _any_fraction(values: list[str]) -> bool:
    return any(re.match(r"[-+]?\d+[.,]\d", value) for value in values)


def _decorated(values: list[str], missing: list[str]) -> ColumnType:
    percent = sum(value.endswith("%") for value in values)
    note = "in percent: 12 % is 12" if percent == len(values) else "numbers with a sign or spaces, which are removed"
    return ColumnType("decorated", missing=missing, note=note)


def decorated_format(cells: Sequence[str], numbers: NumberFormat) -> NumberFormat | None:
    """The format of the numbers in a decorated column once signs and spaces are removed; None if they have none."""
    bare = [strip_decoration(cell) for cell in cells]
    bare = [value for value in bare if value and value not in PANDAS_MISSING and value not in OTHER_MISSING]
    for candidate in (numbers, *_FORMATS[:4]):
        if bare and all(PATTERNS[candidate].match(value) for value in bare):
            return candidate
    return None


DECORATION = "[€$£¥%‰'\u2019\\s]|EUR|USD|CHF|GBP"


def strip_decoration(cell: str) -> str:
    return re.sub(DECORATION, "", cell).replace("\u2212", "-")


def _date(values: list[str], day_first: bool | None) -> ColumnType | None:
    fitting = []
    for known in _DATES:
        times = [known.pattern.match(value) for value in values]
        if not all(times):
            continue
        form = known.format
        if form != "ISO8601":
            written = {(match.groupdict().get("time") or "") for match in times if match}
            with_time = _time_format(written)
            if with_time is None:
                continue
            form += with_time
        if _parse_all(values, form):
            fitting.append((known, form))
    if not fitting:
        return None
    orders = {known.order for known, _ in fitting}
    if {"day", "month"} <= orders:
        if day_first is None:
            return ColumnType(
                "text",
                note="dates whose day and month can't be distinguished: left as text. Read them with "
                f"pd.to_datetime(…, format={fitting[0][1]!r}) or format={fitting[1][1]!r}",
            )
        fitting = [(known, form) for known, form in fitting if known.order == ("day" if day_first else "month")]
    return ColumnType("date", format=fitting[0][1])


def _time_format(written: set[str]) -> str | None:
    """The strptime format of all these times of day; None if they differ."""
    if written == {""}:
        return ""
    forms = set()
    for time in written:
        match = re.match(r"([ T])\d{1,2}:\d{2}(:\d{2})?(\.\d+)?( ?[AaPp][Mm])?$", time)
        if not match:
            return None
        space, seconds, fraction, half = match.groups()
        hour = "%I" if half else "%H"
        end = half.replace(half.strip(), "%p") if half else ""
        forms.add(f"{space}{hour}:%M{':%S' if seconds else ''}{'.%f' if fraction else ''}{end}")
    return forms.pop() if len(forms) == 1 else None


def _parse_all(values: list[str], form: str) -> bool:
    """Do up to 2,000 different values parse?"""
    for value in list(dict.fromkeys(values))[:2_000]:
        try:
            if form == "ISO8601":
                datetime.datetime.fromisoformat(value)
            else:
                datetime.datetime.strptime(value, form)
        except ValueError:
            return False
    return True


def dates_are_day_first(columns: Sequence[Sequence[str]], separator: str, numbers: NumberFormat) -> bool | None:
    """What the file suggests for ambiguous dates: another column that is clear, or a European format of numbers."""
    clear = set()
    for cells in columns:
        values = [value for cell in cells if (value := cell.strip()) not in PANDAS_MISSING | OTHER_MISSING]
        if values and ("/" in values[0] or "-" in values[0]):
            found = {
                known.order
                for known in _DATES
                if all(map(known.pattern.match, values))
                and known.order in ("day", "month")
                and _parse_all([value.split()[0] for value in values], known.format)
            }
            if len(found) == 1:
                clear |= found
    if len(clear) == 1:
        return clear == {"day"}
    return True if numbers.decimal == "," or separator == ";" else None


def number_format(columns: Sequence[Sequence[str]], separator: str) -> tuple[NumberFormat, str | None]:
    """The format that makes the most columns numbers, and what is doubtful about it."""
    lacking = PANDAS_MISSING | OTHER_MISSING
    values = [[value for cell in cells if (value := cell.strip()) not in lacking] for cells in columns]
    values = [column for column in values if column and not all(value.isdigit() for value in column)]
    fits = {candidate: [all(map(PATTERNS[candidate].match, column)) for column in values] for candidate in _FORMATS}
    comma, grouped = NumberFormat(","), NumberFormat(".", ",")
    order = list(_FORMATS)
    if (
        separator != ";"
    ):  # where the comma separates, or may, a comma in a number stands before three digits of a group
        order.remove(grouped)
        order.insert(order.index(comma), grouped)
    best = max(order, key=lambda candidate: sum(fits[candidate]))
    doubt = None
    # Only in columns without other evidence do both fit, and then both fit the same columns.
    ambiguous = fits[comma] == fits[grouped] and sum(fits[comma]) > sum(fits[NumberFormat()])
    if best in (comma, grouped) and ambiguous:
        meaning = "decimals" if best == comma else "thousands"
        doubt = f"A comma before three digits was taken for {meaning}; nothing in the file decides it."
    return best, doubt
