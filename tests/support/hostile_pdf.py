"""PDF files that are made to hurt the program that parses them."""

import zlib
from collections.abc import Callable

from tests.support import pdf_documents
from tests.support.hostile_office import ZEROS


def pdf_tree_loop() -> bytes:
    objects = pdf_documents.blank()
    objects[2] = b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 1000000 >>"
    return pdf_documents.raw_pdf(objects)


def pdf_outline(deep: int) -> bytes:
    objects = pdf_documents.blank()
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R /Outlines 4 0 R >>"
    objects[4] = b"<< /Type /Outlines /First 5 0 R /Last 5 0 R /Count 1 >>"
    for number in range(5, 5 + deep):
        objects[number] = b"<< /Title (x) /Parent %d 0 R /First %d 0 R /Last %d 0 R /Count 1 >>" % (
            number - 1,
            number + 1,
            number + 1,
        )
    objects[5 + deep] = b"<< /Title (end) /Parent %d 0 R >>" % (4 + deep)
    return pdf_documents.raw_pdf(objects)


def pdf_outline_loop() -> bytes:
    objects = pdf_documents.blank()
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R /Outlines 4 0 R >>"
    objects[4] = b"<< /Type /Outlines /First 5 0 R /Last 5 0 R /Count 1 >>"
    objects[5] = b"<< /Title (x) /Parent 4 0 R /Next 5 0 R /First 5 0 R >>"
    return pdf_documents.raw_pdf(objects)


def pdf_stream(body: bytes, more: bytes = b"") -> bytes:
    objects = pdf_documents.blank()
    objects[3] = objects[3].replace(
        b">>", b"/Contents 4 0 R /Resources << /Font << /F1 5 0 R >> /XObject << /X 6 0 R >> >> >>"
    )
    objects[4] = b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(body), more, body)
    objects[5] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    objects[6] = (
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 100 100] /Length 12"
        b" /Resources << /XObject << /X 6 0 R >> >> >>\n"
        b"stream\n/X Do /X Do \nendstream"
    )
    return pdf_documents.raw_pdf(objects)


def pdf_nested(depth: int) -> bytes:
    objects = pdf_documents.blank()
    objects[4] = b"[" * depth + b"]" * depth
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R /PageLabels 4 0 R /Names 4 0 R >>"
    return pdf_documents.raw_pdf(objects)


def pdf_object_stream() -> bytes:
    """An object stream that inflates to 300 MiB."""
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(b" " * len(ZEROS)) for _ in range(300)) + packer.flush()
    objects = pdf_documents.blank()
    objects[1] = b"<< /Type /Catalog /Pages 7 0 R >>"
    objects[4] = (
        b"<< /Type /ObjStm /N 1000000 /First 10 /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream"
        % (len(packed), packed)
    )
    return pdf_documents.raw_pdf(objects)


def pdf_labels_loop() -> bytes:
    objects = pdf_documents.blank()
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R /PageLabels 4 0 R >>"
    objects[4] = b"<< /Kids [4 0 R 4 0 R] /Limits [0 1000000] >>"
    return pdf_documents.raw_pdf(objects)


def hostile_pdf_files() -> dict[str, Callable[[], bytes]]:
    """The content of each file, by its name."""
    many_pages = {2: b"<< /Type /Pages /Kids [3 0 R] /Count 2000000000 >>"}
    letters = b"BT /F1 12 Tf (x) Tj ET " * 4_000_000
    return {
        "pdf_tree_loop.pdf": pdf_tree_loop,
        "pdf_count.pdf": lambda: pdf_documents.raw_pdf(pdf_documents.blank() | many_pages),
        "pdf_outline_deep.pdf": lambda: pdf_outline(50_000),
        "pdf_outline_loop.pdf": pdf_outline_loop,
        "pdf_labels_loop.pdf": pdf_labels_loop,
        "pdf_object_stream.pdf": pdf_object_stream,
        "pdf_content_bomb.pdf": lambda: pdf_stream(zlib.compress(letters, 1), b"/Filter /FlateDecode"),
        "pdf_form_loop.pdf": lambda: pdf_stream(b"/X Do /X Do"),
        "pdf_nested.pdf": lambda: pdf_nested(200_000),
        "pdf_filters.pdf": lambda: pdf_stream(b"x", b"/Filter [" + b"/ASCIIHexDecode " * 20_000 + b"]"),
        "pdf_many_lines.pdf": lambda: pdf_stream(b"0 0 m 10 10 l S " * 200_000),
        "pdf_large_page.pdf": lambda: pdf_documents.raw_pdf(pdf_documents.blank(10**9, 10**9)),
        "pdf_xref_loop.pdf": lambda: pdf_documents.raw_pdf(pdf_documents.blank(), b"/Root 1 0 R /Prev 9"),
    }
