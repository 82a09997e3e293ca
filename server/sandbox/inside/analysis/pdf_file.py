"""PDF: text by page with pdfium, tables with pdfplumber."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .pdf_tables import find_tables
from .result import Analysis, Deadline, File, Refused, counted, cut, listed, long_text

_MAX_PAGES = 100_000
_SHOWN_PAGES = 200
_MAX_OUTLINE = 150
_MAX_DEPTH = 8
_TEXT = 6_000
"""Characters of text in the analysis."""
_SECONDS = 1.0
_SECONDS_FOR_TABLES = 0.7
_MAX_RULED = 20
"""Pages with lines, of which the tables are read if time allows."""
_OBJECTS = 400
"""Of a page, searched for lines that may be those of a table."""
_MAX_OBJECTS = 20_000
"""Of a page whose tables are read: pdfplumber takes seconds for more."""


@dataclass(frozen=True)
class PageText:
    index: int
    """From 0, as code counts pages."""
    label: str
    """As printed on the page: `iv`, `A-3`. Of a document without labels, the index plus 1."""
    text: str
    error: str | None = None
    """Why the page can't be read."""
    has_lines: bool = False
    """May it have a ruled table? Only looked for in an analysis."""


def page_texts(path: Path) -> Iterator[PageText]:
    """The text of each page. Raises `Refused` if the file is no PDF or is encrypted.

    Nothing is left out: not headers, footers or lone numbers. A page of a scan has no text.
    """
    document = _open(path)
    try:
        for index in range(_count(document)):
            yield _page_text(document, index)
    finally:
        document.close()


def texts(file: File, kind: str, encoding: None, skipped: list[str]) -> Iterator[tuple[str | None, str, str | None]]:
    """See `page_texts` of the package."""
    for page in page_texts(file.path):
        yield page.label, page.text, page.error


def analyse(file: File, kind: str) -> Analysis:
    document = _open(file.path)
    try:
        return _analyse(file, document)
    finally:
        document.close()


def _open(path: Path) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Refused("The PDF is encrypted. Save it without a password.") from error
        raise Refused(f"The PDF is damaged or cut off: {error}.") from error


def _count(document: Any) -> int:
    count = len(document)
    if not 0 < count <= _MAX_PAGES:
        raise Refused(f"The PDF claims {count:,} pages; the maximum is {_MAX_PAGES:,}.")
    return count


def _page_text(document: Any, index: int, look_for_lines: bool = False) -> PageText:
    import pypdfium2

    label = _label(document, index)
    try:
        page = document[index]
        try:
            content = page.get_textpage()
            try:
                text = content.get_text_bounded()
            finally:
                content.close()
            return PageText(index, label, text, has_lines=look_for_lines and _has_lines(page))
        finally:
            page.close()
    except pypdfium2.PdfiumError as error:
        return PageText(index, label, "", str(error))


def _label(document: Any, index: int) -> str:
    return cut(document.get_page_label(index), 40) or str(index + 1)


def _analyse(file: File, document: Any) -> Analysis:
    count = _count(document)
    deadline, skipped = Deadline(_SECONDS), []
    pages: list[dict[str, Any]] = []
    empty: list[str] = []
    broken: list[str] = []
    ruled: list[int] = []
    text, characters = "", 0
    for index in range(count):
        page = _page_text(document, index, look_for_lines=len(ruled) < _MAX_RULED)
        if page.error:
            broken.append(page.label)
        elif not page.text.strip():
            empty.append(page.label)
        characters += len(page.text)
        if len(pages) < _SHOWN_PAGES:
            start = " ".join(page.text[:200].split())
            pages.append({"index": index, "label": page.label, "characters": len(page.text), "start": cut(start, 60)})
        if len(text) < _TEXT and page.text.strip():
            text += f"[page {page.label}]\n{page.text.strip()}\n"
        if page.has_lines:
            ruled.append(index)
        left = count - index - 1
        if left and deadline.passed():
            skipped.append(f"For lack of time, {left:,} pages after page {page.label} (index {index}) were not read.")
            break
    if empty:
        skipped.append(f"{counted(len(empty), 'page')} without text, such as scans or pictures: {listed(empty)}.")
    if broken:
        skipped.append(f"{counted(len(broken), 'page')} can't be read: {listed(broken)}.")
    if count > len(pages):
        skipped.append(f"Only the first {counted(len(pages), 'page')} are listed one by one.")
    labels = {page["index"]: page["label"] for page in pages}
    tables = find_tables(file, ruled, labels, _SECONDS_FOR_TABLES, skipped)
    details: dict[str, Any] = {
        "page_count": count,
        "characters": characters,
        "labels_differ_from_numbers": any(page["label"] != str(page["index"] + 1) for page in pages),
        "title": _metadata(document).get("Title") or None,
        "metadata": _metadata(document),
        "outline": _outline(document, skipped),
        "tables": tables,
        "pages": pages,
        "text": long_text(text, _TEXT),
    }
    summary = f"PDF of {counted(count, 'page')} with {counted(characters, 'character')} of text"
    if tables:
        summary += f" and {counted(len(tables), 'table')}"
    return Analysis("pdf", summary, details, _code(file, tables), skipped)


def _has_lines(page: Any) -> bool:
    """Has the page at least four drawn paths, as ruled tables have? A plot or a map has far more than these."""
    from pypdfium2 import raw

    count = raw.FPDFPage_CountObjects(page)
    if count > _MAX_OBJECTS:
        return False
    paths = 0
    for number in range(min(count, _OBJECTS)):
        paths += raw.FPDFPageObj_GetType(raw.FPDFPage_GetObject(page, number)) == raw.FPDF_PAGEOBJ_PATH
        if paths == 4:
            return True
    return False


def _metadata(document: Any) -> dict[str, str]:
    return {key: cut(value, 200) for key, value in document.get_metadata_dict(skip_empty=True).items()}


def _outline(document: Any, skipped: list[str]) -> list[dict[str, Any]]:
    """The bookmarks, at most 150, eight levels deep."""
    entries: list[dict[str, Any]] = []
    for bookmark in itertools.islice(document.get_toc(max_depth=_MAX_DEPTH), _MAX_OUTLINE + 1):
        if len(entries) == _MAX_OUTLINE:
            skipped.append(f"The outline has more than {_MAX_OUTLINE} entries: the rest is left out.")
            break
        destination = bookmark.get_dest()
        index = destination.get_index() if destination else None
        entry: dict[str, Any] = {"level": bookmark.level + 1, "title": cut(bookmark.get_title(), 120)}
        if index is not None and 0 <= index < len(document):
            entry |= {"page_index": index, "page_label": _label(document, index)}
        entries.append(entry)
    return entries


def _code(file: File, tables: list[dict[str, Any]]) -> str:
    lines = [
        "import pypdfium2",
        "",
        f"pdf = pypdfium2.PdfDocument({file.name!r})",
        "texts = [page.get_textpage().get_text_bounded() for page in pdf]  # texts[0] is the first page",
        "labels = [pdf.get_page_label(i) or str(i + 1) for i in range(len(pdf))]  # as printed on the pages",
    ]
    if tables:
        lines[0:1] = ["import pdfplumber", "import pypdfium2"]
        lines += [
            f"with pdfplumber.open({file.name!r}) as pdf:",
            f"    tables = pdf.pages[{tables[0]['page_index']}].extract_tables()  # rows of cells",
        ]
    return "\n".join(lines)
