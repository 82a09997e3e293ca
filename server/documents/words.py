"""The words of a text, as the index by words counts them."""

import re
import unicodedata
from functools import lru_cache

IDENTIFIER = re.compile(r"((?<!\w)(?:--?|::|[\\.$@#%&~]))?([^\W_]+(?:[-._'/][^\W_]+|_+[^\W_]+)*)(\(?)")
"""Letters and digits, joined by single marks or underscores: `XR-450`, `na.omit`, `read_csv`, `3.14`, `don't`. First
the mark before a name, if there is one: `.External`, `\\title`, `$HOME`, `--quiet`."""
PART = re.compile(r"[^\W\d_]+|\d+")
SEPARATOR = re.compile(r"[-._'/]+")
CAMEL_CASE = re.compile(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")
"""Scripts without spaces between words: two characters in a row stand for a word."""
SYMBOLS = re.compile(r"(?<![^\s(])(?![.,;:\u2022\u2013\u2014]+(?:\s|$))([^\w\s]{1,4}?)[,.;:)]*(?!\S)")
"""Operators that stand alone, such as `%%`, `<-` and `||`."""
HYPHENATED = re.compile(r"(?<=[^\W\d_])[-\u2010\u00ad][ \t]*\r?\n[ \t]*(?=[^\W\d_])")
"""A word that a line's end divides."""
LONGEST_WORD = 80
"""Characters. What is longer is no word: base64, a sequence. Its first characters count."""

STOP_WORDS = frozenset(
    "a about an and any are as at be been but by can could did do does for from get give had has have he her him "
    "his how i if in into is it its just know let me my need no not of off on or our out please she should so some "
    "tell than that the their them then there these they this those to too up us was we were what when where which "
    "who why will with would you your "
    "aber als am an auch auf aus bei bin bis da das dass dem den der des die doch ein eine einem einen einer eines "
    "er es für hat hatte ich ihr im in ist ja kann man mit nach nicht noch nur ob oder sein sich sie sind so über "
    "um und uns von vom vor war was welche welcher welches wenn wer wie wir wird wo zu zum zur".split()
)
"""Words that say nothing about a subject, in English and German: a query leaves them out where it has others."""


def words(text: str) -> list[str]:
    """The words of `text`, in their order, in small letters and without accents. A compound is there as a whole and
    with its parts: `XR-450` gives `xr-450`, `xr` and `450`; `DataFrame` gives `dataframe`, `data` and `frame`. What
    has capital letters within it, or a mark before it, is there once more as it stands: `PATH` is not any `path`.
    What is called is there with parentheses: `what()` is no stop word."""
    text = HYPHENATED.sub("", unicodedata.normalize("NFKC", text)).replace("\u00ad", "")
    found: list[str] = []
    for match in IDENTIFIER.finditer(text):
        found += _forms(match[1] or "", match[2][:LONGEST_WORD], bool(match[3]))
    found += SYMBOLS.findall(text)
    return found


def query_words(text: str) -> list[str]:
    """The words to search for: those of `text` without stop words, or with them where it has no others."""
    found = words(text)
    return [word for word in found if word not in _FOLDED_STOP_WORDS] or found


def has_subject(text: str) -> bool:
    """Whether there is a word that says something. Without one, a search by meaning finds what chance gives."""
    return any(word not in _FOLDED_STOP_WORDS and any(map(str.isalnum, word)) for word in words(text))


@lru_cache(maxsize=100_000)
def _forms(mark: str, word: str, is_called: bool) -> tuple[str, ...]:
    if UNSPACED.search(word):
        return _unspaced(word)
    forms = [_folded(word)]
    parts = [_folded(part) for piece in SEPARATOR.split(word) for part in _pieces(piece)]
    if len(parts) > 1:
        forms += parts
    pieces = word.split(".")
    forms += [_folded(piece) for piece in pieces if len(pieces) > 1 and "_" in piece]
    if is_called:
        forms.append(f"{pieces[-1]}()")
    if mark or any(map(str.isupper, word[1:] or word)):
        forms.append(mark + word)
    return tuple(forms)


def _pieces(word: str) -> list[str]:
    """A word divided at underscores, at capital letters, and between letters and digits."""
    return [part for piece in CAMEL_CASE.split(word) for part in PART.findall(piece)]


def _unspaced(word: str) -> tuple[str, ...]:
    found: list[str] = []
    end = 0
    for match in UNSPACED.finditer(word):
        if match.start() > end:
            found.append(_folded(word[end : match.start()]))
        run, end = match.group(), match.end()
        found += [run[at : at + 2] for at in range(max(len(run) - 1, 1))]
    return tuple([*found, _folded(word[end:])] if end < len(word) else found)


def _folded(word: str) -> str:
    """In small letters, without accents: `Müller` and `MULLER` are one word."""
    small = word.casefold()
    if small.isascii():
        return small
    return "".join(one for one in unicodedata.normalize("NFKD", small) if not unicodedata.combining(one))


_FOLDED_STOP_WORDS = frozenset(map(_folded, STOP_WORDS))
