"""What a file is, by its content. The name decides only between kinds of text."""

import re
import zipfile

from . import csv_file
from .encoding import Encoding
from .result import File, Refused
from .zip_bounds import open_zip

_MAGIC = (
    (b"PAR1", "parquet"),
    (b"SQLite format 3\0", "sqlite"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF87a", "image"),
    (b"GIF89a", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
)
_UNREADABLE = (
    (b"7z\xbc\xaf\x27\x1c", "A 7z archive can't be listed here. Pack its files as a zip."),
    (b"Rar!\x1a\x07", "A RAR archive can't be listed here. Pack its files as a zip."),
    (b"\x28\xb5\x2f\xfd", "A Zstandard file can't be read here. Unpack it first."),
    (b"\x89HDF\r\n\x1a\n", "An HDF5 file can't be read here. Export its tables as Parquet or CSV."),
    (b"II+\0", "A BigTIFF image can't be read here. Save it as an ordinary TIFF."),
    (b"MM\0+", "A BigTIFF image can't be read here. Save it as an ordinary TIFF."),
    (b"\x7fELF", "A program, not data."),
    (b"MZ", "A program, not data."),
    (b"{\\rtf", "RTF can't be read here. Save it as DOCX."),
)
_MARKDOWN = (".md", ".markdown", ".mkd", ".qmd", ".rmd")
_JSON = (".json", ".jsonl", ".ndjson", ".geojson", ".ipynb")


def binary_kind(file: File) -> str | None:
    """The kind of a file that is no text; None for what may be text.

    Raises `Refused` for kinds that are known but not read.
    """
    head = file.head
    for magic, reason in _UNREADABLE:
        if head.startswith(magic) and not (magic == b"MZ" and b"\0" not in head):
            raise Refused(reason)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(file)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    if head[:2] == b"BM" and b"\0" in head[:64]:
        return "image"
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head[257:262] == b"ustar":
        return "tar"
    return None


def text_kind(file: File, encoding: Encoding) -> str:
    """The kind of a text: `json`, `html`, `xml`, `markdown`, `csv` or `text`."""
    beginning = encoding.read(file, 4_096).lstrip("\ufeff \t\r\n")
    if beginning.startswith(("{", "[")) and (
        file.suffix in _JSON or re.match(r'[\[{]\s*["{\[\]}0-9tfn-]', beginning)
    ):
        return "json"
    if beginning.startswith("<"):
        if re.search(r"<!doctype html|<html[\s>]", beginning, re.IGNORECASE) or file.suffix in (".html", ".htm"):
            return "html"
        if re.match(r"<(\?xml|!DOCTYPE|!--|[A-Za-z])", beginning):
            return "xml"
    if file.suffix in _MARKDOWN:
        return "markdown"
    if file.suffix in _JSON:
        return "json"
    return "csv" if csv_file.looks_like_table(file, encoding) else "text"


def _zip_kind(file: File) -> str:
    """Office formats are zip archives with certain members."""
    with open_zip(file) as archive:
        names = set(archive.namelist())
        if "[Content_Types].xml" in names:
            for folder, kind in (("xl/", "xlsx"), ("word/", "docx"), ("ppt/", "pptx")):
                if any(name.startswith(folder) for name in names):
                    return "xlsb" if kind == "xlsx" and "xl/workbook.bin" in names else kind
        if "mimetype" in names:
            return _open_document_kind(archive)
    return "zip"


def _open_document_kind(archive: zipfile.ZipFile) -> str:
    with archive.open("mimetype") as member:
        mimetype = member.read(200).decode("ascii", "replace")
    if "opendocument.spreadsheet" in mimetype:
        return "ods"
    if "opendocument" in mimetype:
        raise Refused("OpenDocument texts and slides can't be read here. Save the file as DOCX or PPTX.")
    return "zip"
