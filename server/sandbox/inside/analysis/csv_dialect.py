"""Separator, quotes and comments of a table in a text file."""

import contextlib
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, replace

SEPARATORS = (",", ";", "\t", "|", "\x1f", "^", "~")
WHITESPACE = r"\s+"
_NUMBER_WITH_COMMA = re.compile(r"[-+]?[\d.' \u00a0\u202f]*\d,\d+(?:[eE][-+]?\d+)?\s*[%€]?$")
_MAX_FIELD = 1024 * 1024


@dataclass(frozen=True)
class Dialect:
    separator: str
    quote: str | None = '"'
    """None if a quote is a character as any other."""
    escape: str | None = None
    """What stands before a quote in a quoted field, if quotes are not doubled."""
    skip_initial_space: bool = False
    first_line_names_separator: bool = False
    """Is the first line `sep=;`, as Excel understands it?"""

    def records(self, text: str) -> list[list[str]]:
        """The fields of each line; an empty line is an empty list."""
        if self.separator == WHITESPACE:
            field = re.compile(r'"[^"]*"|\S+' if self.quote else r"\S+")
            return [
                [part.strip('"') if self.quote else part for part in field.findall(line)]
                for line in text.splitlines()
            ]
        csv.field_size_limit(_MAX_FIELD)
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=self.separator,
            quotechar=self.quote or '"',
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar=self.escape,
            doublequote=self.escape is None,
            skipinitialspace=self.skip_initial_space,
        )
        found: list[list[str]] = []
        with contextlib.suppress(csv.Error):  # a field of more than a mebibyte: the lines before it are enough
            found.extend(reader)
        return found


def sniff(sample: str, is_table: bool) -> tuple[Dialect, float] | None:
    """The dialect that explains the sample best, and how many of its lines fit, 0 to 1.

    `is_table` says that the name promises a table: then a single column is one too. None if it looks like none.
    """
    first, _, rest = sample.partition("\n")
    if named := re.fullmatch(r"sep=(.)\r?", first):
        dialect = _with_quotes(Dialect(named[1], first_line_names_separator=True), rest)
        return dialect, 1.0
    best: tuple[float, float, Dialect] | None = None
    for separator in (*SEPARATORS, WHITESPACE):
        if separator != WHITESPACE and separator not in sample:
            continue
        dialect = _with_quotes(Dialect(separator), sample)
        score, fitting = _score(dialect, sample)
        if separator == WHITESPACE:
            score *= 0.8
        if score and (best is None or score > best[0]):
            best = score, fitting, dialect
    if best and (best[1] >= 0.25 if is_table else best[1] >= 0.8 and not _is_prose(best[2], sample)):
        return best[2], best[1]
    return (_with_quotes(Dialect(","), sample), 1.0) if is_table else None


def _is_prose(dialect: Dialect, sample: str) -> bool:
    """Few lines, or sentences with commas: no table, if not even the name says so."""
    records = [record for record in dialect.records(sample)[:1_000] if any(record)]
    later = [field for record in records for field in record[1:]]
    spaced = sum(field.startswith(" ") for field in later)
    return len(records) < 3 or (dialect.separator in (",", ";") and spaced > 0.5 * len(later))


def _with_quotes(dialect: Dialect, sample: str) -> Dialect:
    """Finds the quote: a character that begins and ends fields."""
    if dialect.separator == WHITESPACE:
        return replace(dialect, quote='"' if re.search(r'(^|\s)"[^"\n]*"(\s|$)', sample) else None)
    separator = re.escape(dialect.separator)
    space = r" ?" if dialect.separator != "\t" else ""
    for quote in ('"', "'"):
        opened = len(re.findall(rf"(?:^|{separator}){space}{quote}", sample, re.MULTILINE))
        closed = len(re.findall(rf"{quote}\s*(?:$|{separator})", sample, re.MULTILINE))
        if not opened:
            continue
        if quote == "'" and (opened < 2 or abs(opened - closed) > 0.1 * opened):
            continue  # an apostrophe
        escape = (
            "\\" if f"\\{quote}" in sample and f"{quote}{quote}" not in sample.replace(f"\\{quote}", "") else None
        )
        spaced = bool(re.search(rf"{separator} {quote}", sample))
        if closed < 0.5 * opened:  # inches, or a quote that never ends
            return replace(dialect, quote=None)
        return replace(dialect, quote=quote, escape=escape, skip_initial_space=spaced)
    return replace(dialect, quote='"' if '"' not in sample else None)


def _score(dialect: Dialect, sample: str) -> tuple[float, float]:
    """How well the lines agree, weighted by how few fields contain another separator; and the former alone."""
    records = [record for record in dialect.records(sample) if any(record)]
    lengths = Counter(len(record) for record in records if len(record) > 1)
    if not lengths:
        return 0.0, 0.0
    # Of lengths that are equally frequent, the longer: a title has few fields.
    width = max(lengths, key=lambda length: (lengths[length], length))
    # The last column may be left out where it is empty: shorter lines count half.
    fitting = (lengths[width] + 0.5 * sum(lengths[near] for near in (width - 1, width + 1))) / len(records)
    if dialect.separator == WHITESPACE:
        # Words of a text have no equal numbers; only the header, as R writes it, may be shorter.
        exact = lengths[width] + (len(records[0]) == width - 1)
        if exact < 0.9 * len(records):
            return 0.0, 0.0
    fields = [field for record in records if len(record) == width for field in record][:5_000]
    others = [other for other in SEPARATORS if other != dialect.separator]
    alone = sum(_is_one_value(field, others) for field in fields) / max(1, len(fields))
    return min(1.0, fitting) * (0.1 + alone), min(1.0, fitting)


def _is_one_value(field: str, others: list[str]) -> bool:
    if not any(other in field for other in others):
        return True
    # A comma in a number or before a space separates nothing.
    if _NUMBER_WITH_COMMA.match(field):
        return True
    return not any(other in field.replace(", ", " ") for other in others) and not field.startswith(" ")
