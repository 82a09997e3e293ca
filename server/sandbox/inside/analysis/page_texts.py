"""The whole text of a file, by page, for documents that are searched and cited."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import encoding, kinds
from .result import Deadline, File, Refused, clean, counted, cut, listed, refusing

MAX_CHARACTERS = 10_000_000
MAX_PAGES = 20_000
SECONDS = 30.0
_HEAD = 64 * 1024
_MODULES = {
    "pdf": "pdf_file",
    "docx": "docx_file",
    "pptx": "pptx_file",
    "html": "html_file",
    "markdown": "text_file",
    "text": "text_file",
    "csv": "text_file",
    "json": "text_file",
    "xml": "text_file",
}
"""Each has `texts(file, kind, encoding, skipped)`: an iterator over `(label, text, error)`. `label`: as printed on
the page; None: what has no pages. `error`: why the page can't be read; None: it can. `encoding`: of a text, and else
None. What is left out is added to the list `skipped`."""


def write_page_texts(path: str, target: Path) -> dict[str, Any]:
    """Write the text of the regular file at `path` to `target`, as UTF-8, page after page with nothing between them.

    Returns `kind`; `pages`, a list of `[label, bytes]`; and `skipped`: what was left out, and why. Pages without text
    are named there. Raises `Refused` with a reason that a person can act on.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as content:
        file = File(Path(path), size, content.read(_HEAD))
    if not size:
        raise Refused("The file is empty.")
    kind = kinds.binary_kind(file)
    with refusing(kind):
        found = None
        if kind is None:
            if not encoding.is_text(file.head):
                raise Refused("The content is binary, in no format that is known here.")
            found = encoding.detect(file)
            kind = kinds.text_kind(file, found)
        if kind not in _MODULES:
            raise Refused(
                f"It is of the kind {kind}, which has no text by page. Documents are PDF, DOCX, PPTX, HTML, "
                "Markdown, and plain text."
            )
        skipped: list[str] = []
        module = importlib.import_module(f".{_MODULES[kind]}", __package__)
        pages = _write(module.texts(file, kind, found, skipped), target, skipped)
        return {"kind": kind, "pages": pages, "skipped": [cut(clean(reason)) for reason in skipped[:40]]}


def _write(texts: Iterator[tuple[str | None, str, str | None]], target: Path, skipped: list[str]) -> list[Any]:
    deadline, room = Deadline(SECONDS), MAX_CHARACTERS
    pages: list[Any] = []
    empty: list[str] = []
    broken: list[str] = []
    with target.open("wb") as out:
        for label, text, error in texts:
            named = label or str(len(pages) + 1)
            if error is not None:
                broken.append(named)
            elif not text.strip():
                empty.append(named)
            if len(text) > room:
                skipped.append(
                    f"The text was cut on page {named}: a document has at most {MAX_CHARACTERS:,} characters."
                )
            data = clean(text[:room]).encode()
            room -= len(text)
            out.write(data)
            pages.append([None if label is None else cut(clean(label), 40), len(data)])
            if room <= 0 or len(pages) >= MAX_PAGES or deadline.passed():
                if next(texts, None) is not None:
                    why = (
                        "lack of time"
                        if deadline.passed()
                        else f"its length: {counted(len(pages), 'page')} were read"
                    )
                    skipped.append(f"All that comes after page {named} was not read, because of {why}.")
                break
    if empty:
        skipped.append(
            f"{counted(len(empty), 'page')} without text, such as scans or pictures: {listed(empty, 100)}."
        )
    if broken:
        skipped.append(f"{counted(len(broken), 'page')} can't be read: {listed(broken, 100)}.")
    return pages
