"""Word documents (DOCX)."""

from collections.abc import Iterator
from typing import Any

from .result import Analysis, Deadline, File, Refused, counted, cut, long_text
from .zip_bounds import check_office_zip

_MAX_BODY = 16 * 1024 * 1024
"""Bytes of XML. lxml takes about ten times as much memory."""
_TEXT = 8_000
_MAX_TABLES = 30
_MAX_CELLS = 50
"""Of a row."""


def texts(file: File, kind: str, encoding: None, skipped: list[str]) -> Iterator[tuple[str | None, str, str | None]]:
    """See `page_texts`: one page, since only a printer knows the pages."""
    from docx.table import Table

    document, sizes = _open(file)
    skipped += _other_parts(sizes)
    blocks = []
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            rows = ([_cell_text(cell) for cell in row.tc_lst] for row in block._tbl.tr_lst)
            blocks.append("\n".join(" | ".join(row) for row in rows))
        else:
            level = _heading_level(block)
            blocks.append(block.text if level is None else f"{'#' * max(1, level)} {block.text}")
    yield None, "\n\n".join(blocks), None


def _open(file: File) -> tuple[Any, dict[str, int]]:
    """The document, and the sizes of its parts."""
    import docx

    sizes = check_office_zip(file)
    large = [name for name, size in sizes.items() if name.endswith(".xml") and size > _MAX_BODY]
    if large:
        raise Refused(f"The document's part {large[0]!r} is larger than 16 MiB. Save it in parts.")
    return docx.Document(str(file.path)), sizes


def analyse(file: File, kind: str) -> Analysis:
    """Headings, paragraphs and tables in the order of the text."""
    from docx.table import Table

    document, sizes = _open(file)
    deadline = Deadline(1.0)
    headings: list[dict[str, Any]] = []
    tables: list[dict[str, Any]] = []
    text: list[str] = []
    paragraphs = words = characters = 0
    skipped: list[str] = []
    for block in document.iter_inner_content():
        if deadline.passed():
            skipped.append(f"The document was read up to paragraph {paragraphs:,}, for lack of time.")
            break
        if isinstance(block, Table):
            tables.append(_table(block, len(tables) < _MAX_TABLES))
            line = "\n".join(" | ".join(row) for row in tables[-1].get("first_rows", []))
        else:
            line = block.text
            paragraphs, words = paragraphs + 1, words + len(line.split())
            level = _heading_level(block)
            if level is not None and line.strip() and len(headings) < 200:
                headings.append({"level": level, "text": cut(line.strip(), 120), "paragraph": paragraphs})
                line = f"{'#' * max(1, level)} {line}"
        if characters < _TEXT and line.strip():
            text.append(line)
            characters += len(line)
    skipped += _other_parts(sizes)
    if len(tables) > _MAX_TABLES:
        skipped.append(
            f"{counted(len(tables) - _MAX_TABLES, 'table')} after the first {_MAX_TABLES} are not described."
        )
    details: dict[str, Any] = {
        "paragraphs": paragraphs,
        "words": words,
        "images": sum(name.startswith("word/media/") for name in sizes),
        "headings": headings,
        "tables": tables[:_MAX_TABLES],
        "text": long_text("\n".join(text), _TEXT),
    }
    parts = [counted(words, "word"), counted(len(headings), "heading"), counted(len(tables), "table")]
    return Analysis("docx", f"Word document of {', '.join(parts)}", details, _code(file, bool(tables)), skipped)


def _heading_level(paragraph: Any) -> int | None:
    """0 for the title; None for ordinary text."""
    # The style's name, of which Word has one for each language, would have to be looked up.
    identifier = str(paragraph._p.style or "")
    if identifier == "Title":
        return 0
    digits = identifier.removeprefix("Heading").removeprefix("berschrift")
    return int(digits) if digits.isdigit() and len(digits) == 1 and digits != identifier else None


def _table(table: Any, described: bool) -> dict[str, Any]:
    # A hostile cell says that it spans billions of columns, and python-docx believes it: each cell counts once here.
    rows = table._tbl.tr_lst
    if not described:
        return {}
    return {
        "row_count": len(rows),
        "first_rows": [[_cell(cell) for cell in row.tc_lst[:_MAX_CELLS]] for row in rows[:20]],
    }


def _cell(cell: Any) -> str:
    return cut(_cell_text(cell), 100)


def _cell_text(cell: Any) -> str:
    return " ".join(" ".join(paragraph.text for paragraph in cell.p_lst).split())


def _other_parts(sizes: dict[str, int]) -> list[str]:
    """What has text that is not in the body."""
    names = {
        "footnotes": "footnotes",
        "endnotes": "endnotes",
        "comments": "comments",
        "header": "headers",
        "footer": "footers",
    }
    found = sorted({words for name in sizes for part, words in names.items() if name.startswith(f"word/{part}")})
    return [f"Not in the text: {', '.join(found)}."] if found else []


def _code(file: File, has_tables: bool) -> str:
    code = f"import docx\n\ndocument = docx.Document({file.name!r})\n"
    code += 'text = "\\n".join(paragraph.text for paragraph in document.paragraphs)'
    if has_tables:
        code += "\ntables = [[[cell.text for cell in row.cells] for row in table.rows] for table in document.tables]"
    return code
