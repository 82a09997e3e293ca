"""Questions whose answers' pages are known: the printed indexes of R's manuals, and Python's index.

Debian's packages `r-doc-pdf` and `python3-doc` have them. A term of an index is a query, and each page that the
index lists for it is right. An index knows its own manual alone, so the term is searched in that manual.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

from server.documents.words import words
from server.sandbox.inside.analysis.pdf_file import PageText, page_texts

MANUALS = Path("/usr/share/R/doc/manual")
PYTHON = next(iter(sorted(Path("/usr/share/doc").glob("python3*/html/genindex-all.html"))), Path("/no")).parent
INSTALL = "apt-get install r-doc-pdf python3-doc"
R_MANUALS = ("R-exts", "R-intro", "R-admin", "R-ints", "R-lang", "R-data")

INDEX_TITLE = re.compile(r"(function and variable|concept|environment variable) index", re.IGNORECASE)
ENTRY = re.compile(r"^(.+?)[ .]*(?:\. ?){2,}\s*(\d+(?:, ?\d+)*,?)$")
PAGES_ALONE = re.compile(r"^\d+(?:, ?\d+)*$")
EXAMPLES = 40
"""Pages of Python's documentation, of which each has several terms."""


@dataclass(frozen=True)
class Page:
    """A page of a document, or a document without pages."""

    document: str
    index: int
    text: str


@dataclass(frozen=True)
class Question:
    query: str
    pages: frozenset[tuple[str, int]]
    """Those that the index lists, as document and index of the page."""
    document: str | None = None
    """The only document to search in; None: all."""


@dataclass(frozen=True)
class RetrievalSet:
    name: str
    pages: list[Page]
    questions: list[Question]


def is_installed() -> bool:
    """Whether the system has the manuals and the documentation."""
    return (MANUALS / "R-exts.pdf").is_file() and (PYTHON / "genindex-all.html").is_file()


@cache
def r_manuals(manuals: Sequence[str] = R_MANUALS) -> RetrievalSet:
    """R's manuals. Their printed indexes are not among the pages: they are the truth."""
    pages: list[Page] = []
    truth: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    for manual in manuals:
        read = list(page_texts(MANUALS / f"{manual}.pdf"))
        first = next(page.index for page in read if page.index > len(read) // 2 and _is_index(page.text))
        by_label = {page.label: page.index for page in read[:first]}
        pages += [Page(manual, page.index, page.text) for page in read[:first]]
        for page in read[first:]:
            for term, labels in _entries(page.text):
                for listed in [by_label[label] for label in labels if label in by_label]:
                    truth[term, manual].update((manual, index) for index in _pages_of(term, listed, read[:first]))
    questions = [Question(term, frozenset(found), manual) for (term, manual), found in sorted(truth.items()) if found]
    return RetrievalSet("R's manuals", pages, questions)


@cache
def python_pages(most: int | None = EXAMPLES) -> RetrievalSet:
    """Python's documentation: `most` of its pages, evenly spread; None: all that its index names."""
    import lxml.html

    truth: dict[str, set[str]] = defaultdict(set)
    for link in lxml.html.parse(str(PYTHON / "genindex-all.html")).iterfind(".//table//a"):
        path, term = unquote(urldefrag(link.get("href")).url), " ".join(link.text_content().split())
        term = term.partition(" (")[0]  # "(in module os)" would name the page
        if term and not re.fullmatch(r"\[\d+\]", term) and path.startswith(("library/", "c-api/", "howto/")):
            truth[term].add(path)
    names = sorted(set().union(*truth.values()))
    names = names if most is None else names[:: max(1, len(names) // most)][:most]
    pages = []
    for name in names:
        body = lxml.html.parse(str(PYTHON / name)).find(".//div[@role='main']")
        if body is not None:
            pages.append(Page(name, 0, re.sub(r"\n\s*\n+", "\n\n", body.text_content())))
    there = {page.document for page in pages}
    questions = [
        Question(term, frozenset((name, 0) for name in found))
        for term, found in sorted(truth.items())
        # A term with a page outside would be a question with half of its truth.
        if found <= there and not term.startswith("(") and len(term) > 1
    ]
    return RetrievalSet("Python's documentation", pages, questions)


def _pages_of(term: str, listed: int, pages: Sequence[PageText]) -> list[int]:
    """The listed page. TeX lists the page on which the paragraph before the term ends: where the term's words are on
    the next page and not on the listed one, the next is right as well."""
    wanted = set(words(term))
    on_next = listed + 1 < len(pages) and wanted <= set(words(pages[listed + 1].text))
    return [listed, listed + 1] if on_next and not wanted <= set(words(pages[listed].text)) else [listed]


def _is_index(text: str) -> bool:
    return INDEX_TITLE.search(text[:80]) is not None and len(re.findall(r"(?:\. ){8}", text)) > 3


def _entries(text: str) -> list[tuple[str, list[str]]]:
    """The terms of a printed index's page, with the labels of their pages. A term may take two lines."""
    found: list[tuple[str, list[str]]] = []
    begun = ""
    for line in map(str.strip, text.splitlines()):
        if INDEX_TITLE.search(line) or len(line) <= 1 or PAGES_ALONE.match(line):
            if PAGES_ALONE.match(line) and found and not begun and found[-1][1][-1:] == [""]:
                found[-1] = found[-1][0], [*found[-1][1][:-1], *re.split(", ?", line)]
            continue
        entry = ENTRY.match(line)
        if entry is None:
            begun = f"{begun}{'' if begun.endswith('_') or not begun else ' '}{line}"
            continue
        joined = f"{begun}{'' if begun.endswith('_') or not begun else ' '}{entry[1]}"
        found.append((joined.strip(), re.split(", ?", entry[2])))
        begun = ""
    return found
