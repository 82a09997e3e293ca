"""Office files that are made to hurt the program that parses them."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import openpyxl

Maker = Callable[[], bytes]
Change = Callable[[bytes], bytes]
ENTITIES = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
LAUGHS = f'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY l0 "lol">{ENTITIES}]>'
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE z [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
ZEROS = b"\0" * (1024 * 1024)


def zipped(members: dict[str, bytes | str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def repacked(content: bytes, change: dict[str, Change], more: dict[str, bytes] | None = None) -> bytes:
    """An office file with changed and additional parts."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members: dict[str, bytes | str] = {name: archive.read(name) for name in archive.namelist()}
    for name, function in change.items():
        part = members[name]
        assert isinstance(part, bytes)
        members[name] = function(part)
    return zipped({**members, **(more or {})})


def xlsx(rows: list[list[Any]] | None = None) -> bytes:
    book = openpyxl.Workbook()
    for row in rows or [["a", "b"], [1, 2]]:
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def docx(text: str = "hello") -> bytes:
    import docx as word

    document = word.Document()
    document.add_paragraph(text)
    document.add_table(rows=2, cols=2)
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def pptx() -> bytes:
    import pptx as slides

    stream = io.BytesIO()
    presentation = slides.Presentation()
    presentation.slides.add_slide(presentation.slide_layouts[0])
    presentation.save(stream)
    return stream.getvalue()


def lying_zip(claimed: int = 100) -> bytes:
    """A member of an xlsx that inflates to 300 MiB and claims 100 bytes, in both of its headers."""
    name = b"xl/worksheets/sheet1.xml"
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(ZEROS) for _ in range(300)) + packer.flush()
    valid = zipped({"[Content_Types].xml": "<a/>", "xl/workbook.xml": "<a/>"})
    directory = valid.rfind(b"PK\x01\x02", 0, valid.rfind(b"PK\x01\x02"))
    local = (
        struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(packed), claimed, len(name), 0) + name + packed
    )
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, 0, len(packed), claimed, len(name), 0, 0, 0, 0, 0, directory
    )
    end = valid.rfind(b"PK\x05\x06")
    entries = valid[directory:end] + entry + name
    return (
        valid[:directory]
        + local
        + entries
        + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 3, 3, len(entries), directory + len(local), 0)
    )


def sheet(rows: str) -> dict[str, Change]:
    """Other rows for the first sheet of an xlsx."""
    return {
        "xl/worksheets/sheet1.xml": lambda part: (
            part[: part.index(b"<sheetData>")] + f"<sheetData>{rows}</sheetData></worksheet>".encode()
        )
    }


def with_declaration(declaration: str, reference: str) -> Change:
    """Puts a document type in front of a part, and a reference to an entity into its root."""

    def change(part: bytes) -> bytes:
        body = part[part.index(b"?>") + 2 :] if part.startswith(b"<?xml") else part
        end = body.index(b">") + 1
        return declaration.encode() + body[:end] + reference.encode() + body[end:]

    return change


def ods_repeating() -> bytes:
    cell = '<table:table-cell table:number-columns-repeated="16384" office:value-type="float" office:value="1"/>'
    content = (
        '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
        ' xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"><office:body><office:spreadsheet>'
        f'<table:table table:name="a"><table:table-row table:number-rows-repeated="1048576">{cell}</table:table-row>'
        "</table:table></office:spreadsheet></office:body></office:document-content>"
    )
    return zipped({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": content})


def encrypted_xlsx() -> bytes:
    import msoffcrypto.format.ooxml

    stream = io.BytesIO()
    msoffcrypto.format.ooxml.OOXMLFile(io.BytesIO(xlsx())).encrypt("secret", stream)
    return stream.getvalue()


def body(inserted: bytes) -> dict[str, Change]:
    """More at the beginning of the text of a docx."""
    return {"word/document.xml": lambda part: part.replace(b"<w:body>", b"<w:body>" + inserted)}


def cells(rows: int) -> str:
    return "".join(f'<row r="{row}">' + f'<c r="A{row}"><v>1</v></c>' * 10 + "</row>" for row in range(1, rows))


FAR = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
FAR_WITHOUT_ROWS = '<row><c r="A1"><v>1</v></c><c r="XFD1048576"><v>1</v></c></row>'
MERGED = b'</sheetData><mergeCells count="1"><mergeCell ref="A1:XFD1048576"/></mergeCells>'
SPAN = b'<w:tc><w:tcPr><w:gridSpan w:val="2000000000"/></w:tcPr>'
SHEET, DOCUMENT = "xl/worksheets/sheet1.xml", "word/document.xml"


def hostile_office_files() -> dict[str, Maker]:
    """The content of each file, by its name."""
    strings = b"<sst>" + b"<si><t>x</t></si>" * 2_500_000 + b"</sst>"
    more_strings = b"<sst>" + b"<si><t>x</t></si>" * 4_000_000 + b"</sst>"
    word = b"<w:p><w:r><w:t>word</w:t></w:r></w:p>"
    return {
        "xlsx_bomb.xlsx": lambda: repacked(xlsx(), {}, {"xl/media/a.bin": b"\0" * 256 * 1024**2}),
        "xlsx_that_lies.xlsx": lying_zip,
        "xlsx_far_cell.xlsx": lambda: repacked(xlsx(), sheet(FAR)),
        "xlsx_far_cells_without_rows.xlsx": lambda: repacked(xlsx(), sheet(FAR_WITHOUT_ROWS)),
        "xlsx_many_cells.xlsx": lambda: repacked(xlsx(), sheet(cells(200_000))),
        "xlsx_strings.xlsx": lambda: repacked(xlsx(), {}, {"xl/sharedStrings.xml": strings}),
        "xlsx_more_strings.xlsx": lambda: repacked(xlsx(), {}, {"xl/sharedStrings.xml": more_strings}),
        "xlsx_merged.xlsx": lambda: repacked(xlsx(), {SHEET: lambda part: part.replace(b"</sheetData>", MERGED)}),
        "xlsx_laughs.xlsx": lambda: repacked(xlsx(), {"xl/workbook.xml": with_declaration(LAUGHS, "&l9;")}),
        "xlsx_external.xlsx": lambda: repacked(xlsx(), {SHEET: with_declaration(EXTERNAL, "&x;")}),
        "xlsx_deep.xlsx": lambda: repacked(xlsx(), {"xl/workbook.xml": lambda part: b"<a>" * 200_000}),
        "xlsx_encrypted.xlsx": encrypted_xlsx,
        "ods_repeating.ods": ods_repeating,
        "docx_laughs.docx": lambda: repacked(docx(), {DOCUMENT: with_declaration(LAUGHS, "&l9;")}),
        "docx_laughs_utf16.docx": lambda: repacked(
            docx(), {"word/styles.xml": lambda part: (LAUGHS + "<w/>").encode("utf-16")}
        ),
        "docx_deep.docx": lambda: repacked(docx(), body(b"<w:p>" * 100_000)),
        "docx_span.docx": lambda: repacked(docx(), {DOCUMENT: lambda part: part.replace(b"<w:tc>", SPAN)}),
        "docx_large.docx": lambda: repacked(docx(), body(word * 400_000)),
        "docx_many.docx": lambda: repacked(docx(), body(b"<w:p/>" * 1_000_000)),
        "pptx_laughs.pptx": lambda: repacked(pptx(), {"ppt/presentation.xml": with_declaration(LAUGHS, "&l9;")}),
    }
