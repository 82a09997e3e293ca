"""HTML pages."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from .encoding import Encoding
from .result import Analysis, File, Refused, counted, cut, long_text

_READ = 1536 * 1024
"""Bytes. lxml takes about ten times as much memory."""
_TEXT = 8_000
_MAX_TABLES = 20
_MAX_HEADINGS = 200
_LEFT_OUT = ("script", "style", "template", "noscript", "svg", "head")


def texts(
    file: File, kind: str, encoding: Encoding, skipped: list[str]
) -> Iterator[tuple[str | None, str, str | None]]:
    """See `page_texts`: one page."""
    root, _ = _parse(file, encoding, skipped)
    yield None, _text(root), None


def _parse(file: File, encoding: Encoding, skipped: list[str]) -> tuple[Any, str]:
    """The root element, and the encoding that it was read in."""
    from lxml import html

    with open(file.path, "rb") as content:
        data = content.read(_READ)
    declared = re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{2,30})", data[:4096], re.IGNORECASE)
    name = (
        encoding.name
        if encoding.name.startswith("utf")
        else declared[1].decode("ascii")
        if declared
        else encoding.name
    )
    if file.size > _READ:
        skipped.append(f"Only the first {_READ:,} bytes were read.")
    parser = html.HTMLParser(
        encoding=None if name.startswith(("utf-16", "utf-32")) else _known(name), no_network=True
    )
    if name.startswith(("utf-16", "utf-32")):
        data = data.decode(name, "replace").encode()
        parser = html.HTMLParser(encoding="utf-8", no_network=True)
    try:
        root = html.document_fromstring(data, parser=parser)
    except Exception as error:  # lxml raises several types of its own
        raise Refused(f"The HTML can't be parsed: {error}.") from error
    if any("depth" in entry.message.lower() for entry in parser.error_log):
        skipped.append("Elements that are nested more than 255 levels deep were left out.")
    return root, name


def _text(root: Any) -> str:
    """The visible text. What is never shown is removed from the tree."""
    for element in list(root.iter(*_LEFT_OUT)):
        if element.tag != "head" and element.getparent() is not None:
            element.drop_tree()
    body = root.find("body")
    return _visible(body if body is not None else root)


def analyse(file: File, encoding: Encoding) -> Analysis:
    """Title, headings, tables, links and the visible text."""
    skipped: list[str] = []
    root, name = _parse(file, encoding, skipped)
    every = list(root.iter("table"))
    tables = [_table(table) for table in every[:_MAX_TABLES]]
    headings = [
        {"level": int(element.tag[1]), "text": cut(_text_of(element), 120)}
        for element in itertools.islice(root.iter("h1", "h2", "h3", "h4", "h5", "h6"), _MAX_HEADINGS)
    ]
    text = _text(root)
    title = root.findtext(".//title")
    details: dict[str, Any] = {
        "encoding": name,
        "title": cut(" ".join((title or "").split()), 200) or None,
        "words": len(text.split()),
        "link_count": sum(1 for _ in root.iter("a")),
        "image_count": sum(1 for _ in root.iter("img")),
        "headings": headings,
        "tables": tables,
        "text": long_text(text, _TEXT),
    }
    if len(every) > _MAX_TABLES:
        left = counted(len(every) - _MAX_TABLES, "table")
        skipped.append(f"{left} after the first {_MAX_TABLES} are not described.")
    code = (
        f"from bs4 import BeautifulSoup\n\nwith open({file.name!r}, encoding={name!r}, errors='replace') as file:\n"
    )
    code += "    page = BeautifulSoup(file, 'lxml')\ntext = page.get_text('\\n', strip=True)"
    if tables:
        code = f"import pandas as pd\n\ntables = pd.read_html({file.name!r}, encoding={name!r})\ndf = tables[0]"
    shown = f": {details['title']}" if details["title"] else ""
    summary = f"HTML page of {counted(details['words'], 'word')}, {counted(len(every), 'table')}{shown}"
    return Analysis("html", summary, details, code, skipped)


def _known(name: str) -> str | None:
    """The encoding, if lxml knows it; None lets it guess."""
    from lxml import etree

    try:
        etree.HTMLParser(encoding=name)
    except LookupError:
        return None
    return name.removesuffix("-sig")


def _text_of(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())


def _visible(element: Any) -> str:
    """A line for each block, with single spaces."""
    blocks = {
        "p",
        "div",
        "br",
        "li",
        "tr",
        "table",
        "section",
        "article",
        "pre",
        "blockquote",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
    }
    parts: list[str] = []
    for event, part in _walk(element):
        tag = part.tag if isinstance(part.tag, str) else ""
        if tag in blocks:
            parts.append("\n")
        elif tag in ("td", "th") and event == "start":
            parts.append(" ")
        parts.append((part.text if event == "start" else part.tail) or "" if tag or event == "end" else "")
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _walk(element: Any) -> Any:
    from lxml import etree

    return etree.iterwalk(element, events=("start", "end", "comment"))


def _table(table: Any) -> dict[str, Any]:
    rows = list(table.iter("tr"))
    first = [[cut(_text_of(cell), 100) for cell in list(row.iterchildren("td", "th"))[:50]] for row in rows[:10]]
    return {"row_count": len(rows), "first_rows": first}
