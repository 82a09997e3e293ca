"""Markdown."""

import re
from typing import Any

from .encoding import Encoding
from .result import Analysis, File, counted, cut, long_text
from .text_file import how_to_read

_READ = 2 * 1024 * 1024


def analyse(file: File, encoding: Encoding) -> Analysis:
    """Headings with their lines, tables, code blocks, and the first 4,000 characters."""
    text = encoding.read(file, _READ)
    lines = text.splitlines()
    headings: list[dict[str, Any]] = []
    tables: list[dict[str, Any]] = []
    blocks: list[str] = []
    fence = None
    for number, line in enumerate(lines, 1):
        mark = re.match(r" {0,3}(`{3,}|~{3,})(.*)", line)
        if mark and (fence is None or (mark[1].startswith(fence) and not mark[2].strip())):
            if fence is None:
                blocks.append(cut(mark[2].strip() or "text", 30))
            fence = mark[1] if fence is None else None
            continue
        if fence is not None:
            continue
        if found := re.match(r" {0,3}(#{1,6})\s+(.{1,300})", line):
            headings.append({"level": len(found[1]), "text": cut(found[2].rstrip("# ").strip(), 120), "line": number})
        elif (
            number > 1
            and re.fullmatch(r"\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*", line)
            and "|" in lines[number - 2]
        ):
            tables.append(_table(lines, number - 2))
    skipped = [f"Only the first {counted(_READ, 'character')} were read."] if len(text) == _READ else []
    details: dict[str, Any] = {
        "encoding": encoding.name,
        "lines": len(lines),
        "words": len(text.split()),
        "headings": headings[:200],
        "tables": tables[:20],
        "code_blocks": blocks[:50],
        "text": long_text(text[:4_000], 4_000),
    }
    parts = [counted(len(headings), "heading"), counted(len(tables), "table"), counted(details["words"], "word")]
    title = f": {headings[0]['text']}" if headings else ""
    return Analysis(
        "markdown", f"Markdown with {', '.join(parts)}{title}", details, how_to_read(file, encoding), skipped
    )


def _table(lines: list[str], header: int) -> dict[str, Any]:
    rows = []
    for line in lines[header + 2 :]:
        if "|" not in line:
            break
        rows.append(_cells(line))
    names = _cells(lines[header])
    return {"line": header + 1, "header": names[:50], "rows": len(rows), "first_rows": [row[:50] for row in rows[:5]]}


def _cells(line: str) -> list[str]:
    return [cut(cell.strip(), 80) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
