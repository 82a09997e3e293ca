"""The text of a document: its pages one after the other, and which page a place of it is on."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

BETWEEN = "\n"
"""Between two pages. A sentence may go on over it."""
_HYPHENS = re.compile("[\x02\ufffe\u00ad]\n?")
"""How pdfium and typesetters write the hyphen of a word that is broken at the end of a line."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufdd0-\ufdef\uffff]")
_BLANKS = re.compile(r"[^\S\n]+")
_AT_END = re.compile(r"[ \t]+\n")
_EMPTY_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Page:
    """A page. `index`: from 0. `label`: as printed, like `iv` or `A-3`; None: the document has no pages, and this is
    all of it, or a slide. `start`: the place of its first character in the document's text."""

    index: int
    label: str | None
    start: int
    text: str


@dataclass(frozen=True)
class Text:
    """The text of a document, with its pages."""

    whole: str
    pages: tuple[Page, ...]

    def page_at(self, place: int) -> int:
        """The index of the page that has the character at `place`; what is between two pages belongs to the first."""
        return bisect_right(self.pages, place, key=lambda page: page.start) - 1


def text_of(pages: Sequence[tuple[str | None, str]]) -> Text:
    """The text of pages, which are given as label and text as they were read."""
    made: list[Page] = []
    start = 0
    for index, (label, text) in enumerate(pages):
        made.append(Page(index, label, start, normalised(text)))
        start += len(made[-1].text) + len(BETWEEN)
    return Text(BETWEEN.join(page.text for page in made), tuple(made))


def normalised(text: str) -> str:
    """`text` as it is searched, shown and cited: words that were broken at the end of a line are whole, there are no
    control characters, and runs of white space are short.

    Only white space, control characters and such hyphens are changed. With long runs, cutting the text into passages
    would take quadratic time.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _HYPHENS.sub("", text)
    text = re.sub("[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    text = _CONTROL.sub(" ", text)
    text = _BLANKS.sub(_blank, text)
    return _EMPTY_LINES.sub("\n\n", _AT_END.sub("\n", text)).strip("\n")


def _blank(found: "re.Match[str]") -> str:
    """A tab between cells stays a tab; other runs become one or two spaces."""
    run = found[0]
    return "\t" if "\t" in run else " " if len(run) == 1 else "  "
