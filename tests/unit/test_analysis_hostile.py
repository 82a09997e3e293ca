"""Hostile files are refused, or read, in two seconds and with 256 MiB more memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_files import hostile_files

# pdfium ends its process when it gets no memory, and overflows its stack on page labels that contain themselves. The
# sandbox reports such an end as a refusal.
MAY_DIE = {"pdf_content_bomb.pdf", "pdf_form_loop.pdf", "pdf_labels_loop.pdf", "pdf_object_stream.pdf"}
REFUSED = {
    "xlsx_bomb.xlsx": "inflates from",
    "xlsx_that_lies.xlsx": "more than it claims",
    "xlsx_more_strings.xlsx": "48 MiB of texts",
    "xlsx_laughs.xlsx": "declares XML entities",
    "xlsx_external.xlsx": "declares XML entities",
    "xlsx_encrypted.xlsx": "encrypted",
    "ods_repeating.ods": "repeat cells",
    "docx_laughs.docx": "declares XML entities",
    "docx_laughs_utf16.docx": "declares XML entities",
    "pptx_laughs.pptx": "declares XML entities",
    "laughs.svg": "declares entities",
    "laughs.xml": "declares entities",
    "external.xml": "declares entities",
    "deep.xml": "levels deep",
    "deep.json": "levels deep",
    "deep_objects.json": "levels deep",
    "cut.json": "broken at line 1",
    "many_columns.csv": "columns",
    "png_of_2500_megapixels.png": "pixels",
    "tiff_bomb.tif": "pixels",
    "parquet_footer_size.parquet": "footer",
    "cut_a.zip": "cut off",
    "cut_a.parquet": "cut off",
    "noise.bin": "binary",
}
MOST_SECONDS = 10.0
"""A deadline, and no measure: then the sandbox ends an analysis. benchmarks/RESULTS.md has how long they take."""
NAMES = list(hostile_files())
# Each takes a second or more, to make or to read.
LARGE = {
    "docx_large.docx", "docx_many.docx", "empty_rows.csv", "gzip_bomb.gz", "many_attributes.xml", "many_items.json",
    "many_keys.json", "many_rows.csv", "pdf_content_bomb.pdf", "pdf_object_stream.pdf", "png_inflates.png",
    "sqlite_many_tables.db", "tar_gzip_bomb.tar.gz", "tar_many.tar", "xlsx_many_cells.xlsx", "xlsx_more_strings.xlsx",
    "xlsx_strings.xlsx",
}  # fmt: skip
PARTS = 4


def analyse_all(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """What `tests.support.limited_analysis` reports of each file, by name."""
    makers = hostile_files()
    for name in names:
        (folder / name).write_bytes(makers[name]())
    command = [sys.executable, "-m", "tests.support.limited_analysis", *(str(folder / name) for name in names)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in names:
        (folder / name).unlink()
    return {Path(report["path"]).name: report for report in map(json.loads, ended.stdout.splitlines())}


@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_files_are_refused_or_read_within_the_limits(part: int, tmp_path: Path) -> None:
    check(tmp_path, [name for name in NAMES if name not in LARGE][part::PARTS])


@pytest.mark.slow
def test_large_hostile_files_are_refused_or_read_within_the_limits(tmp_path: Path) -> None:
    check(tmp_path, sorted(LARGE))


def check(tmp_path: Path, names: list[str]) -> None:
    reports = analyse_all(tmp_path, names)
    assert reports.keys() == set(names)
    for name, report in reports.items():
        assert report["seconds"] <= MOST_SECONDS, (name, report)
        assert report["outcome"] != "died" or name in MAY_DIE, (name, report)
        if name in REFUSED:
            assert REFUSED[name] in report.get("reason", ""), (name, report)
        if report["outcome"] == "read":
            assert len(json.dumps(report["analysis"], ensure_ascii=False).encode()) <= 64 * 1024, name
            assert len(report["profile"]) <= 4_000, name
            assert "lollol" not in report["profile"] and "root:x:" not in report["profile"], name
        elif report["outcome"] == "refused":
            assert len(report["reason"]) < 500 and "Traceback" not in report["reason"], (name, report)


def test_there_are_many_hostile_files() -> None:
    assert len(NAMES) >= 100
    assert REFUSED.keys() | MAY_DIE | LARGE <= set(NAMES)
