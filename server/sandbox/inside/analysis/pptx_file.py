"""Slides (PPTX)."""

from collections.abc import Iterator
from typing import Any

from .result import Analysis, Deadline, File, Refused, counted, cut, long_text
from .zip_bounds import check_office_zip

_MAX_PART = 8 * 1024 * 1024
_MAX_ALL = 32 * 1024 * 1024
_TEXT = 8_000
_MAX_SHAPES = 500
"""Of a slide."""


def texts(file: File, kind: str, encoding: None, skipped: list[str]) -> Iterator[tuple[str | None, str, str | None]]:
    """See `page_texts`: a page for each slide, with its tables and notes."""
    pictures = 0
    for slide in _open(file).slides:
        lines: list[str] = []
        shapes = _shapes(slide)
        for shape in shapes:
            if getattr(shape, "has_table", False) and shape.has_table:
                rows = ([" ".join(cell.text.split()) for cell in row.tc_lst] for row in shape.table._tbl.tr_lst)
                lines += [" | ".join(row) for row in rows]
            elif shape.has_text_frame:
                lines += [paragraph.text for paragraph in shape.text_frame.paragraphs if paragraph.text.strip()]
            pictures += hasattr(shape, "image")
        if len(shapes) == _MAX_SHAPES:
            skipped.append(f"A slide has more than {_MAX_SHAPES} shapes; the rest is left out.")
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            lines.append(slide.notes_slide.notes_text_frame.text)
        yield None, "\n".join(lines), None
    if pictures:
        skipped.append(f"Text in {counted(pictures, 'picture')} is not read.")


def _open(file: File) -> Any:
    import pptx

    sizes = check_office_zip(file)
    xml = {name: size for name, size in sizes.items() if name.endswith((".xml", ".rels"))}
    if max(xml.values(), default=0) > _MAX_PART or sum(xml.values()) > _MAX_ALL:
        raise Refused("The slides have parts of more than 8 MiB, or 32 MiB of XML in all. Save them in parts.")
    return pptx.Presentation(str(file.path))


def _shapes(slide: Any) -> list[Any]:
    """The shapes of a slide, those in groups too, at most `_MAX_SHAPES`."""
    waiting, found = list(slide.shapes), []
    seen = 0
    while waiting and seen < _MAX_SHAPES:
        shape = waiting.pop(0)
        seen += 1
        if hasattr(shape, "shapes"):  # a group
            waiting[:0] = list(shape.shapes)
        else:
            found.append(shape)
    return found


def analyse(file: File, kind: str) -> Analysis:
    """Each slide's title, text, tables and notes."""
    presentation = _open(file)
    deadline, skipped = Deadline(1.0), []
    slides: list[dict[str, Any]] = []
    text, characters = [], 0
    count = len(presentation.slides)
    for number, slide in enumerate(presentation.slides, 1):
        described = _describe(slide, number)
        lines = described.pop("lines")
        slides.append(described)
        if characters < _TEXT:
            text.append(f"[slide {number}]\n" + "\n".join(lines))
            characters += len(text[-1])
        if deadline.passed() and number < count:
            skipped.append(f"Slides after {number} were not read, for lack of time: {count - number:,} slides.")
            break
    pictures = sum(slide.get("pictures", 0) for slide in slides)
    if pictures:
        skipped.append(f"Text in {counted(pictures, 'picture')} is not read.")
    details: dict[str, Any] = {
        "slide_count": count,
        "slides": slides[:200],
        "text": long_text("\n".join(text), _TEXT),
    }
    code = (
        f"import pptx\n\nslides = pptx.Presentation({file.name!r}).slides\n"
        "texts = [[shape.text_frame.text for shape in slide.shapes if shape.has_text_frame] for slide in slides]"
    )
    title = f": {slides[0]['title']}" if slides and slides[0].get("title") else ""
    return Analysis("pptx", f"{counted(count, 'slide')}{title}", details, code, skipped)


def _describe(slide: Any, number: int) -> dict[str, Any]:
    title = slide.shapes.title
    described: dict[str, Any] = {
        "number": number,
        "title": cut(title.text_frame.text.strip(), 120) if title is not None else "",
    }
    lines: list[str] = []
    tables: list[dict[str, Any]] = []
    pictures = 0
    for shape in _shapes(slide):
        if getattr(shape, "has_table", False) and shape.has_table:
            rows = [
                [cut(" ".join(cell.text.split()), 100) for cell in row.tc_lst[:50]] for row in shape.table._tbl.tr_lst
            ]
            tables.append({"row_count": len(rows), "first_rows": rows[:20]})
            lines += [" | ".join(row) for row in rows[:20]]
        elif shape.has_text_frame:
            lines += [paragraph.text for paragraph in shape.text_frame.paragraphs if paragraph.text.strip()]
        pictures += hasattr(shape, "image")
    if tables:
        described["tables"] = tables
    if pictures:
        described["pictures"] = pictures
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        described["notes"] = cut(slide.notes_slide.notes_text_frame.text, 300)
    described["start"] = cut(" / ".join(lines), 100)
    return described | {"lines": [cut(line, 500) for line in lines]}
