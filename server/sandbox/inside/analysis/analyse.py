"""The entry: from a path to a bounded JSON value."""

import importlib
import os
from pathlib import Path
from typing import Any

from . import encoding, kinds
from .result import Analysis, File, Refused, refusing

VERSION = 1
"""Part of the key of saved analyses. It rises with each change of what an analysis says."""

_HEAD = 64 * 1024
# Each module has `analyse(file)`. They are imported when a file needs them, because most import a heavy library.
_BINARY = {
    "xlsx": "workbook",
    "xlsb": "workbook",
    "ods": "workbook",
    "xls": "workbook",
    "ole": "ole_file",
    "parquet": "parquet_file",
    "sqlite": "sqlite_file",
    "pdf": "pdf_file",
    "docx": "docx_file",
    "pptx": "pptx_file",
    "image": "image_file",
    "zip": "archives",
    "tar": "archives",
    "gzip": "archives",
    "bzip2": "archives",
    "xz": "archives",
}
# Each has `analyse(file, encoding)`.
_TEXT = {
    "csv": "csv_file",
    "json": "json_file",
    "html": "html_file",
    "xml": "xml_file",
    "markdown": "markdown_file",
    "text": "text_file",
}


def analyse(path: str) -> dict[str, Any]:
    """What the regular file at `path` contains, as a JSON value of at most 64 KiB:

    `kind`, `summary` (a line), `details`, `how_to_read` (Python for code whose working directory has the file) and
    `skipped` (what was left out, and why). The same bytes with the same name have the same analysis, as far as time
    allows.

    Raises `Refused` with a reason that a person can act on. A hostile file may still end the process or use its time
    up: run this in the sandbox, with limits.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as content:
        head = content.read(_HEAD)
    file = File(Path(path), size, head)
    if not size:
        return Analysis("empty", "An empty file", {"bytes": 0}, "").as_json()
    kind = kinds.binary_kind(file)
    with refusing(kind):
        analysis = _analyse_binary(file, kind) if kind else _analyse_text(file)
        analysis.details.setdefault("bytes", size)
        return analysis.as_json()


def _analyse_binary(file: File, kind: str) -> Analysis:
    analysis: Analysis = importlib.import_module(f".{_BINARY[kind]}", __package__).analyse(file, kind)
    return analysis


def _analyse_text(file: File) -> Analysis:
    if not encoding.is_text(file.head):
        raise Refused("The content is binary, in no format that is known here.")
    found = encoding.detect(file)
    kind = kinds.text_kind(file, found)
    analysis: Analysis = importlib.import_module(f".{_TEXT[kind]}", __package__).analyse(file, found)
    return analysis
