"""The encoding of a text file."""

import codecs
import itertools
from dataclasses import dataclass
from typing import IO

from .result import Deadline, File, Refused

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHUNK = 1024 * 1024
_GUESSED_FROM = 16 * 1024
"""Bytes that charset-normalizer reads: it tries dozens of encodings on them."""

_WESTERN = frozenset(
    "äöüÄÖÜßéèêëÉÈàâáãåÀÁÂÃÅæÆçÇñÑíìîïÍóòôõøÓÖØúùûÚýœŒšŠžŽŸ°µ²³±·÷§«»¿¡½¼¾€£©®„…•‰™ºª¨"
    # Multiplication sign, dashes, quotation marks, acute accent, no-break space.
    "\u00d7\u2013\u2014\u2018\u2019\u201c\u201d\u00b4\u00a0"
)


@dataclass(frozen=True)
class Encoding:
    name: str
    """As Python and pandas call it."""
    longest_run: int
    """Bytes of the longest part without a line end, to within a mebibyte."""
    checked: bool
    """Was the whole file decoded? A very large file is checked in part."""

    def open(self, file: File) -> IO[str]:
        """The text, with its line ends as they are. Bytes that do not fit become U+FFFD."""
        return open(file.path, encoding=self.name, errors="replace", newline="")

    def read(self, file: File, characters: int) -> str:
        """The first characters of the text."""
        with self.open(file) as text:
            return text.read(characters)


def detect(file: File) -> Encoding:
    """Decides by the byte order mark, by zeros (UTF-16 without a mark), by whether it is UTF-8, and else by guessing.

    Raises `Refused` for content that is no text.
    """
    for bom, name in _BOMS:
        if file.head.startswith(bom):
            return Encoding(name, *_scan(file, None))
    if b"\0" in file.head:
        return Encoding(_utf16_without_mark(file.head), *_scan(file, None))
    try:
        return Encoding("utf-8", *_scan(file, "utf-8"))
    except UnicodeDecodeError as error:
        with open(file.path, "rb") as content:
            content.seek(max(0, error.start - 2_000))
            return Encoding(_guess(content.read(_GUESSED_FROM)), *_scan(file, None))


def is_text(head: bytes) -> bool:
    """Is this the beginning of a text in some encoding?"""
    if head.startswith(tuple(bom for bom, _ in _BOMS)):
        return True
    if b"\0" in head:
        try:
            _utf16_without_mark(head)
        except Refused:
            return False
        return True
    controls = sum(head.count(bytes([code])) for code in range(32) if code not in (9, 10, 11, 12, 13, 27, 31))
    return controls <= len(head) * 0.005


def _utf16_without_mark(head: bytes) -> str:
    head = head[: len(head) // 2 * 2]
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if zeros.count(0) > len(zeros) * 0.5:
            try:
                text = head.decode(name)
            except UnicodeDecodeError:
                continue
            if sum(character < " " and character not in "\t\r\n\f" for character in text) <= len(text) * 0.005:
                return name
    raise Refused("The content is binary, in no format that is known here.")


def _scan(file: File, encoding: str | None) -> tuple[int, bool]:
    """The longest part without a line end, and whether all of it was read. Decodes it if there is an encoding.

    Raises UnicodeDecodeError, with the position in the file.
    """
    decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
    deadline, position, run, longest = Deadline(0.6), 0, 0, 0
    with open(file.path, "rb") as content:
        while chunk := content.read(_CHUNK):
            if decoder:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError as error:
                    start = position + error.start
                    raise UnicodeDecodeError(error.encoding, b"?", start, start + 1, error.reason) from None
            last = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
            first = last if last < 0 else min(found for found in (chunk.find(b"\n"), chunk.find(b"\r")) if found >= 0)
            longest = max(longest, run + (len(chunk) if last < 0 else first))
            run = run + len(chunk) if last < 0 else len(chunk) - last - 1
            position += len(chunk)
            if deadline.passed() and position < file.size:
                return max(longest, run), False
    if decoder and not file.size - position:
        decoder.decode(b"", final=False)  # a character that is cut off at the end is no reason for another encoding
    return max(longest, run), True


def _guess(part: bytes) -> str:
    """Windows-1252 if all characters are ones that Western European texts have, else what charset-normalizer says."""
    try:
        text = part.decode("cp1252")
    except UnicodeDecodeError:
        pass
    else:
        beyond = [character for character in text if character > "\x7f"]
        if sum(character in _WESTERN for character in beyond) >= 0.95 * len(beyond) and not _is_mojibake(text):
            return "cp1252"
    if _is_cyrillic(part):
        return "cp1251"
    import charset_normalizer

    best = charset_normalizer.from_bytes(part).best()
    return best.encoding if best is not None and best.encoding != "ascii" else "latin-1"


def _is_cyrillic(part: bytes) -> bool:
    """As Windows-1251: nearly all bytes beyond ASCII are letters, and most of these small ones."""
    beyond = [byte for byte in part if byte > 0x7F]
    letters = sum(byte >= 0xC0 or byte in (0xA8, 0xB8) for byte in beyond)
    return letters > 0.95 * len(beyond) and sum(byte >= 0xE0 for byte in beyond) > 0.6 * len(beyond)


def _is_mojibake(text: str) -> bool:
    """Are most letters beyond ASCII next to one another? In Western European words they are rare and alone."""
    beyond = sum(character > "\x7f" for character in text)
    neighbours = sum(one > "\x7f" and other > "\x7f" for one, other in itertools.pairwise(text))
    return neighbours > beyond * 0.4
