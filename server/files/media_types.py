"""The media type of a file by its content. Its name only tells one kind of plain text from another."""

import codecs
import re
from pathlib import PurePosixPath

import puremagic

SAMPLE_BYTES = 1024
"""How much of the beginning and of the end decides."""
UNKNOWN = "application/octet-stream"
TEXT = "text/plain"
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
"""Characters that no text has, other than tabs, ends of lines and pages, and the colours of terminals."""
FEWEST_BYTES = 3
"""Shorter signatures occur by chance."""

# What puremagic does not know.
SIGNATURES = (
    (b"PAR1", "application/vnd.apache.parquet"),
    (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
    (b"\x93NUMPY", "application/x-npy"),
    (b"SQLite format 3\0", "application/vnd.sqlite3"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"GGUF", "application/x-gguf"),
    (b"\xff\xfe", TEXT),  # UTF-16
    (b"\xfe\xff", TEXT),
)
ZIP, ZIP_START = "application/zip", b"PK\x03\x04"
OFFICE = "application/vnd.openxmlformats-officedocument"
IN_ZIP = (
    (b"xl/", f"{OFFICE}.spreadsheetml.sheet"),
    (b"word/", f"{OFFICE}.wordprocessingml.document"),
    (b"ppt/", f"{OFFICE}.presentationml.presentation"),
)
"""Names of members by which a ZIP file is a document."""
MARKUP = (
    (b"<svg", "image/svg+xml"),
    (b"<html", "text/html"),
    (b"<!doctype html", "text/html"),
    (b"<script", "text/html"),
    (b"<body", "text/html"),
    (b"<head", "text/html"),
    (b"<?xml", "application/xml"),
)
"""By what is near the beginning of a text; the first one counts."""
TEXTS = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".py": "text/x-python",
    ".ipynb": "application/x-ipynb+json",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".tex": "text/x-tex",
}
"""Kinds of plain text, by their extension."""
SYNONYMS = {
    "application/x-gzip": "application/gzip",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
}
SHORT_NAMES = {
    UNKNOWN: "binary",
    TEXT: "text",
    "text/tab-separated-values": "TSV",
    "text/x-python": "Python",
    "text/markdown": "Markdown",
    "application/x-ipynb+json": "notebook",
    "application/vnd.apache.parquet": "Parquet",
    "application/x-hdf5": "HDF5",
    "application/x-npy": "NumPy array",
    "application/vnd.sqlite3": "SQLite",
    IN_ZIP[0][1]: "Excel",
    IN_ZIP[1][1]: "Word",
    IN_ZIP[2][1]: "PowerPoint",
}


def media_type(head: bytes, tail: bytes, name: str) -> str:
    """The media type of a file with the first bytes `head` and the last bytes `tail`, `SAMPLE_BYTES` of each or the
    whole file in both."""
    if not head:
        return TEXT
    for signature, kind in SIGNATURES:
        if head.startswith(signature):
            return kind
    if _is_text(head):
        return _kind_of_text(head, name)
    known = [one for one in _matches(head + tail) if one.mime_type and len(one.byte_match) >= FEWEST_BYTES]
    if head.startswith(ZIP_START):
        # All documents in ZIP files have this signature. Longer ones say which document it is.
        longer = [one.mime_type for one in known if len(one.byte_match) > len(ZIP_START)]
        inside = [kind for member, kind in IN_ZIP if member in head or member in tail]
        document: str = (*longer, *inside, ZIP)[0]
        return document
    found: str = known[0].mime_type if known else UNKNOWN
    return SYNONYMS.get(found, found)


def short_name(kind: str) -> str:
    """What people call a media type: `CSV`, `PNG`, `Excel`."""
    return SHORT_NAMES.get(kind) or kind.rpartition("/")[2].removeprefix("x-").partition("+")[0].upper()


def _matches(sample: bytes) -> "list[puremagic.PureMagicWithConfidence]":
    try:
        return puremagic.magic_string(sample)
    except puremagic.PureError:
        return []  # no signature of its list


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return not CONTROL.search(text)


def _kind_of_text(head: bytes, name: str) -> str:
    start = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith(b"<"):
        for mark, kind in MARKUP:
            if mark in start:
                return kind
    return TEXTS.get(PurePosixPath(name).suffix.lower(), TEXT)
