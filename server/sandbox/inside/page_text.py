"""The text of a page of the web, as a person sees it. Runs in the sandbox, on hostile pages.

The process does nothing else, has limits of memory and time, and ends afterwards.
"""

import re
from pathlib import Path
from typing import Any

from .hidden_text import remove_hidden, without_invisible

READ_BYTES = 4 * 1024 * 1024
"""Of an HTML page. lxml takes about ten times as much memory."""
LONGEST_TEXT = 400_000
"""Characters."""
LONGEST_TITLE = 300
MOST_ELEMENTS = 100_000
SHARE = 0.1
"""trafilatura's text is used if it has at least this share of the visible one: it leaves out menus and banners, and
of some pages everything."""


class Unreadable(Exception):
    """The page has no text that can be read. The message says why."""


def page_text(path: str, kind: str, charset: str | None) -> dict[str, Any]:
    """The text of the file at `path`: `title` (or None), `text`, and `skipped` (what was left out, and why).

    `kind`: html, pdf or text. `charset`: as the page's server claims, or None. Raises `Unreadable`, and whatever the
    libraries raise for a hostile file.
    """
    read = {"html": _of_html, "pdf": _of_pdf, "text": _of_text}[kind]
    title, text, skipped = read(Path(path), charset)
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT]
        skipped.append(f"Only the first {LONGEST_TEXT:,} characters are here.")
    return {"title": _line(title)[:LONGEST_TITLE] or None, "text": tidy(text), "skipped": skipped}


def tidy(text: str) -> str:
    """Without characters that have no shape, without spaces at the ends of lines, with at most one empty line."""
    text = without_invisible(text.replace("\r\n", "\n").replace("\r", "\n"))
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()


def _of_html(path: Path, charset: str | None) -> tuple[str, str, list[str]]:
    from lxml import html

    with open(path, "rb") as file:
        data = file.read(READ_BYTES + 1)
    skipped = [f"Only the first {READ_BYTES:,} bytes were read."] if len(data) > READ_BYTES else []
    # Decoded here: libxml2 would stop at the first byte that does not fit.
    text = re.sub(r"^\s*<\?xml[^>]*>", "", _decoded(data[:READ_BYTES], charset))
    if not text.strip():
        raise Unreadable("it is empty")
    root = html.document_fromstring(text.replace("\0", ""), parser=html.HTMLParser(no_network=True))
    count = sum(1 for _ in root.iter())
    if count > MOST_ELEMENTS:
        raise Unreadable(f"it has {count:,} elements, and {MOST_ELEMENTS:,} are the most")
    head = root.find("head")
    title = (head.findtext("title") if head is not None else None) or ""
    if removed := remove_hidden(root):
        skipped.append(f"Hidden parts were left out: {removed:,}.")
    visible = _visible(root)
    return title, _article(root, visible), skipped


def _article(root: Any, visible: str) -> str:
    """The text without menus and banners, or all of it."""
    try:
        from trafilatura import extract
    except ImportError:  # an optional package, or one that it needs
        return visible
    try:
        # Without its fallbacks: jusText takes endless time for some texts.
        found = extract(
            root, fast=True, favor_recall=True, include_comments=False, include_tables=True, deduplicate=False
        )
    except Exception:  # boundary: a hostile page makes any library fail, and the plain text is there
        return visible
    return found if found and len(found) >= SHARE * len(visible) else visible


def _visible(root: Any) -> str:
    """A line for each block, with single spaces."""
    blocks = frozenset(
        "address article aside blockquote br dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 "
        "h5 h6 header hr li main nav ol p pre section summary table tr ul".split()
    )
    from lxml import etree

    parts: list[str] = []
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if element.tag in blocks:
            parts.append("\n")
        elif element.tag in ("td", "th") and event == "start":
            parts.append(" | ")
        parts.append((element.text if event == "start" else element.tail) or "")
    lines = (_line(line) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _of_pdf(path: Path, charset: str | None) -> tuple[str, str, list[str]]:
    from .analysis.pdf_file import page_texts

    parts, length, skipped = list[str](), 0, list[str]()
    for page in page_texts(path):
        if page.error is not None:
            skipped.append(f"Page {page.label} can't be read.")
        parts.append(f"[page {page.label}]\n{page.text}")
        length += len(page.text)
        if length > LONGEST_TEXT:
            break
    if not any(part.partition("\n")[2].strip() for part in parts):
        raise Unreadable("the PDF has no text: its pages are pictures")
    return "", "\n\n".join(parts), skipped[:20]


def _of_text(path: Path, charset: str | None) -> tuple[str, str, list[str]]:
    with open(path, "rb") as file:
        data = file.read(4 * LONGEST_TEXT)
    return "", _decoded(data, charset), []


def _decoded(data: bytes, charset: str | None) -> str:
    """As a browser decodes it: a byte order mark, the server's claim, the page's own, UTF-8, Windows-1252."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    declared = re.search(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]{2,30})", data[:4096], re.IGNORECASE)
    claims = [charset, declared[1].decode("ascii") if declared else None]
    for claim in claims:
        # UTF-7 and codecs such as idna or zlib are no encodings of pages.
        if claim and re.fullmatch(
            r"(?i)(utf-?8|utf-?16(le|be)?|iso-?8859-?\d+|latin-?1|windows-?\d+|cp\d+|koi8-[ru]|"
            r"gb2312|gbk|gb18030|big5|euc-?(jp|kr)|shift[_-]?jis|us-ascii|ascii)",
            claim,
        ):
            try:
                return data.decode(claim, "replace")
            except LookupError:
                continue
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _line(text: str) -> str:
    return " ".join(without_invisible(text).split())
