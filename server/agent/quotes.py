"""Where a quote stands in a text, whatever white space, hyphens at line ends, ligatures and quotation marks do."""

import re
import unicodedata
from dataclasses import dataclass

LEAST_CHARACTERS = 8
"""A shorter quote proves nothing."""
MOST_CHARACTERS = 1000

_BREAK = "\x01"
"""A hyphen at a line's end in a folded text: the word's own, or made by the break."""
_LINE_END = re.compile(r"(?<=[^\W\d_])[-\u2010\u00ad][^\S\n]*\n\s*(?=[^\W\d_])")
_LIGATURES = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
_MARKS = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032`\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
}
_WORD = re.compile(r"[^\W\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""A character of a word, in scripts with spaces between words."""
_AROUND = " \t\n\"'\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u2026"


@dataclass(frozen=True)
class Line:
    """A text on one line. `places`: of each of its characters, in the text that it was made of."""

    text: str
    places: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where its characters from `start` to `end` stand in the text that it was made of."""
        return self.places[start], self.places[end - 1] + 1


def one_line(text: str) -> Line:
    """`text` as a model is shown it: white space as single spaces, words put together that a line's end divides,
    ligatures as letters, and no character that can't be seen, such as marks of the writing direction."""
    return _line(text, folds=False)


def find_quote(text: str, quote: str) -> tuple[int, int] | None:
    """Where `quote` stands in `text`, word for word: the first place, as start and end.

    None: nowhere as whole words (`able to` is no quote of `unable to`), or it is shorter than `LEAST_CHARACTERS` and
    not the whole text, or longer than `MOST_CHARACTERS`.
    """
    if len(quote) > MOST_CHARACTERS:
        return None
    said = quote.strip(_AROUND).removeprefix("...").removesuffix("...").strip(_AROUND)
    searched, wanted = _line(text, folds=True), _line(said, folds=True).text
    if not wanted or (len(wanted) < LEAST_CHARACTERS and wanted != searched.text):
        return None
    found = re.search(_pattern(wanted), searched.text)
    return None if found is None else searched.span(*found.span())


def _line(text: str, folds: bool) -> Line:
    """`folds`: marks that look alike become one, and a hyphen at a line's end becomes `_BREAK`."""
    divided = {found.start(): found for found in _LINE_END.finditer(text)}
    characters: list[str] = []
    places: list[int] = []
    skip_to = 0
    for place, character in enumerate(text):
        if place < skip_to:
            continue
        if (found := divided.get(place)) is not None:
            skip_to = found.end()
            # `Mould-Ing` is two words that belong together; `mould-ing` most likely is one.
            said = _BREAK if folds else "" if text[skip_to].islower() else "-"
        elif character.isspace():
            said = "" if not characters or characters[-1] == " " else " "
        elif character in _LIGATURES:
            said = _LIGATURES[character]
        elif folds and character in _MARKS:
            said = _MARKS[character]
        else:
            said = "" if unicodedata.category(character) in ("Cf", "Cc", "Cs", "Co") else character
        characters += said
        places += [place] * len(said)
    if characters and characters[-1] == " ":
        del characters[-1], places[-1]
    return Line("".join(characters), tuple(places))


def _pattern(wanted: str) -> str:
    """Matches whole words of a folded text that may have breaks where `wanted` has a hyphen, or nothing."""
    parts: list[str] = []
    for character in wanted:
        if character in (_BREAK, "-"):
            parts.append(f"[-{_BREAK}]" if character == "-" else f"[-{_BREAK}]?")
            continue
        if parts and character.isalpha() and parts[-1].isalpha():
            parts.append(f"{_BREAK}?")
        parts.append(re.escape(character))
    begin, end = (
        side if _WORD.match(wanted[at]) else ""
        for at, side in ((0, rf"(?<![\w{_BREAK}])"), (-1, rf"(?![\w{_BREAK}])"))
    )
    return f"{begin}{''.join(parts)}{end}"
