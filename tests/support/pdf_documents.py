"""PDF files that tests and benchmarks make: text, ruled tables, page labels, an outline."""

import io
from collections.abc import Sequence
from typing import Any

from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

WORDS = "the cell divides when light falls on the membrane and the signal of the protein rises above it".split()


def text_pages(count: int, lines: int = 45) -> bytes:
    """Pages full of text, as a paper has them: about 3,500 characters each. Page n begins with `Page n of count`."""
    stream = io.BytesIO()
    canvas = Canvas(stream, pagesize=A4)
    for page in range(1, count + 1):
        text = canvas.beginText(50, 790)
        text.textLine(f"Page {page} of {count}")
        for line in range(lines):
            text.textLine(" ".join(WORDS[(page + line + word) % len(WORDS)] for word in range(14)))
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    return stream.getvalue()


def ruled_table(rows: Sequence[Sequence[str]], labels: Sequence[str] = ()) -> bytes:
    """A page for each label, the last with the table; without labels one page."""
    stream = io.BytesIO()
    canvas = Canvas(stream, pagesize=A4)
    for label in labels[:-1]:
        canvas.drawString(100, 750, f"This page is called {label}.")
        canvas.bookmarkPage(label)
        canvas.addOutlineEntry(f"Chapter {label}", label)
        canvas.showPage()
    height, width = 20, 100
    canvas.drawString(100, 750, "Table 1")
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            canvas.rect(100 + column * width, 700 - row * height, width, height)
            canvas.drawString(105 + column * width, 706 - row * height, cell)
    canvas.showPage()
    canvas.save()
    return stream.getvalue()


def with_labels(pdf: bytes, styles: Sequence[tuple[int, str, int]]) -> bytes:
    """The file with page labels: from this index on, roman (`r`) or decimal (`D`) numbers from this one."""
    numbers = " ".join(f"{index} << /S /{style} /St {start} >>" for index, style, start in styles)
    return pdf.replace(b"/Type /Catalog", b"/Type /Catalog /PageLabels << /Nums [ " + numbers.encode() + b" ] >>", 1)


def raw_pdf(objects: dict[int, bytes], trailer: bytes = b"/Root 1 0 R") -> bytes:
    """A file of these objects, with a right table of where they are."""
    content = bytearray(b"%PDF-1.7\n")
    places: dict[int, int] = {}
    for number, body in objects.items():
        places[number] = len(content)
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(content)
    size = max(objects) + 1
    content += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        content += b"%010d 00000 n \n" % places[number] if number in places else b"0000000000 65535 f \n"
    return bytes(content) + b"trailer\n<< /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)


def blank(width: Any = 595, height: Any = 842) -> dict[int, bytes]:
    """The objects of a document with an empty page."""
    return {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] >>" % (width, height),
    }
