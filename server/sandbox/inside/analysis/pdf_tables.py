"""Tables in PDF files: those with ruled lines."""

from collections.abc import Mapping
from typing import Any

from .interrupt import Interrupted, interrupted_after
from .result import Deadline, File, counted, cut, listed

_MAX_FILE = 64 * 1024 * 1024
_MAX_TABLES = 10
_MAX_ROWS = 30
"""Rows of a table in the analysis."""


def find_tables(
    file: File, pages: list[int], labels: Mapping[int, str], seconds: float, skipped: list[str]
) -> list[dict[str, Any]]:
    """The tables of these pages (indices), at most ten: `page_index`, `page_label`, `row_count` and `rows` of cells.

    Every cell is a text, as printed: lone numbers too. pdfplumber takes 10 to 500 ms for a page, so time bounds it.
    """
    if not pages:
        return []
    if file.size > _MAX_FILE:
        skipped.append("Tables were not looked for: the file is larger than 64 MiB.")
        return []
    tables: list[dict[str, Any]] = []
    deadline = Deadline(seconds)
    done = 0
    try:
        with interrupted_after(seconds):
            done = _search(file, pages, labels, deadline, tables)
    except Interrupted:
        done = len({table["page_index"] for table in tables})
    except Exception as error:  # the boundary to pdfminer, which raises errors of any type for damaged files
        skipped.append(f"Tables could not be read: {type(error).__name__}.")
        return tables
    if done < len(pages):
        left = [labels.get(index, str(index + 1)) for index in pages[done:]]
        skipped.append(f"Tables were not looked for on {counted(len(left), 'page')} with lines: {listed(left)}.")
    return tables


def _search(
    file: File, pages: list[int], labels: Mapping[int, str], deadline: Deadline, tables: list[dict[str, Any]]
) -> int:
    """Adds to `tables`. Returns the number of pages that were searched."""
    import pdfplumber

    with pdfplumber.open(file.path, pages=[index + 1 for index in pages]) as pdf:
        for done, (index, page) in enumerate(zip(pages, pdf.pages, strict=False)):
            if deadline.passed() or len(tables) >= _MAX_TABLES:
                return done
            for rows in page.extract_tables():
                cells = [[" ".join((cell or "").split()) for cell in row] for row in rows]
                if len(cells) < 2 or max(map(len, cells)) < 2 or not any(map(any, cells)):
                    continue  # a frame around a text
                tables.append(
                    {
                        "page_index": index,
                        "page_label": labels.get(index, str(index + 1)),
                        "row_count": len(cells),
                        "rows": [[cut(cell, 100) for cell in row[:50]] for row in cells[:_MAX_ROWS]],
                    }
                )
            page.close()
    return len(pages)
