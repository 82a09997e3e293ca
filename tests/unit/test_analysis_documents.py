"""PDF, Word, slides, HTML, Markdown, XML and plain text: what an analysis says is what the document has."""

import io
from pathlib import Path

import docx
import pptx
import pytest
from pptx.util import Inches

from server.sandbox.inside.analysis import Refused, analyse, profile
from server.sandbox.inside.analysis.pdf_file import page_texts
from tests.support import pdf_documents
from tests.support.analysed import analyse_bytes, execute

TABLE = [["Name", "n", "value"], ["Ann", "7", "1.5"], ["Bob", "8", ""], ["Cy", "9", "2.5"]]


def test_pdf_text_has_each_page_with_index_and_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pdf_documents.with_labels(pdf_documents.text_pages(6), [(0, "r", 1), (3, "D", 1)])
    analysis = analyse_bytes(tmp_path, "paper.pdf", content)
    details = analysis["details"]
    assert [page["label"] for page in details["pages"]] == ["i", "ii", "iii", "1", "2", "3"]
    assert [page["start"][:11] for page in details["pages"]] == [f"Page {number} of 6" for number in range(1, 7)]
    assert details["page_count"] == 6 and details["labels_differ_from_numbers"]
    assert "[page i]\nPage 1 of 6" in details["text"]
    names = execute(analysis, tmp_path, monkeypatch)
    assert names["labels"] == ["i", "ii", "iii", "1", "2", "3"] and "Page 4 of 6" in names["texts"][3]
    pages = list(page_texts(tmp_path / "paper.pdf"))
    assert [(page.index, page.label) for page in pages] == list(enumerate(names["labels"]))


def test_pdf_tables_keep_lone_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analyse_bytes(tmp_path, "table.pdf", pdf_documents.ruled_table(TABLE))
    (table,) = analysis["details"]["tables"]
    assert table == {"page_index": 0, "page_label": "1", "row_count": 4, "rows": TABLE}
    assert execute(analysis, tmp_path, monkeypatch)["tables"] == [TABLE]


def test_pdf_outline_and_pages_without_tables(tmp_path: Path) -> None:
    analysis = analyse_bytes(tmp_path, "table.pdf", pdf_documents.ruled_table(TABLE, ["one", "two", "three"]))
    assert [entry["title"] for entry in analysis["details"]["outline"]] == ["Chapter one", "Chapter two"]
    assert [entry["page_index"] for entry in analysis["details"]["outline"]] == [0, 1]
    assert [table["page_index"] for table in analysis["details"]["tables"]] == [2]


def test_a_page_that_is_only_a_number_has_its_text(tmp_path: Path) -> None:
    content = pdf_documents.ruled_table([["42", "43"], ["44", "45"]])
    (tmp_path / "numbers.pdf").write_bytes(content)
    assert next(page_texts(tmp_path / "numbers.pdf")).text.split() == ["Table", "1", "42", "43", "44", "45"]


def test_pages_without_text_are_said(tmp_path: Path) -> None:
    analysis = analyse_bytes(tmp_path, "scan.pdf", pdf_documents.raw_pdf(pdf_documents.blank()))
    assert any("1 page without text" in reason for reason in analysis["skipped"])


def test_pages_that_were_not_read_are_said(tmp_path: Path) -> None:
    analysis = analyse_bytes(tmp_path, "long.pdf", pdf_documents.text_pages(250, lines=3))
    details = analysis["details"]
    assert details["page_count"] == 250
    assert any("first 200 pages are listed" in reason for reason in analysis["skipped"])


def test_an_encrypted_pdf_is_refused(tmp_path: Path) -> None:
    from reportlab.pdfgen.canvas import Canvas

    stream = io.BytesIO()
    canvas = Canvas(stream, encrypt="secret")
    canvas.drawString(100, 100, "hidden")
    canvas.save()
    with pytest.raises(Refused, match="encrypted"):
        analyse_bytes(tmp_path, "locked.pdf", stream.getvalue())


def test_a_word_document_has_its_headings_text_and_tables_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = docx.Document()
    document.add_heading("Title of all", 0)
    document.add_heading("Methods", 1)
    document.add_paragraph("We measured it.")
    table = document.add_table(rows=2, cols=2)
    for row, values in zip(table.rows, (["a", "b"], ["1", "2"]), strict=True):
        for cell, value in zip(row.cells, values, strict=True):
            cell.text = value
    document.add_heading("Results", 2)
    document.add_paragraph("It was large.")
    document.sections[0].header.paragraphs[0].text = "a header"
    stream = io.BytesIO()
    document.save(stream)
    analysis = analyse_bytes(tmp_path, "paper.docx", stream.getvalue())
    details = analysis["details"]
    assert [(entry["level"], entry["text"]) for entry in details["headings"]] == [
        (0, "Title of all"),
        (1, "Methods"),
        (2, "Results"),
    ]
    assert details["tables"] == [{"row_count": 2, "first_rows": [["a", "b"], ["1", "2"]]}]
    assert details["text"].splitlines() == [
        "# Title of all", "# Methods", "We measured it.", "a | b", "1 | 2", "## Results", "It was large.",
    ]  # fmt: skip
    assert any("headers" in reason for reason in analysis["skipped"])
    names = execute(analysis, tmp_path, monkeypatch)
    assert "We measured it." in names["text"] and names["tables"] == [[["a", "b"], ["1", "2"]]]


def test_slides_have_titles_text_tables_and_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    assert slide.shapes.title is not None
    slide.shapes.title.text = "First"
    shape = slide.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1))
    for row, values in enumerate((["a", "b"], ["1", "2"])):
        for column, value in enumerate(values):
            shape.table.cell(row, column).text = value
    assert slide.notes_slide.notes_text_frame is not None
    slide.notes_slide.notes_text_frame.text = "Say hello."
    stream = io.BytesIO()
    presentation.save(stream)
    analysis = analyse_bytes(tmp_path, "talk.pptx", stream.getvalue())
    (described,) = analysis["details"]["slides"]
    assert described["title"] == "First" and described["notes"] == "Say hello."
    assert described["tables"] == [{"row_count": 2, "first_rows": [["a", "b"], ["1", "2"]]}]
    assert execute(analysis, tmp_path, monkeypatch)["texts"] == [["First"]]


PAGE = """<!DOCTYPE html><html><head><title>The  page</title><style>p {color: red}</style></head><body>
<h1>Head</h1><p>One <b>two</b> three.</p><script>alert(1)</script>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>ä</td></tr></table>
<h2>Sub</h2><a href="x">link</a></body></html>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_html_has_headings_tables_and_the_visible_text(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = analyse_bytes(tmp_path, "page.html", PAGE.encode(encoding))
    details = analysis["details"]
    assert analysis["kind"] == "html" and details["title"] == "The page"
    assert [(entry["level"], entry["text"]) for entry in details["headings"]] == [(1, "Head"), (2, "Sub")]
    assert details["tables"] == [{"row_count": 2, "first_rows": [["a", "b"], ["1", "ä"]]}]
    assert details["text"].splitlines() == ["Head", "One two three.", "a b", "1 ä", "Sub", "link"]
    frame = execute(analysis, tmp_path, monkeypatch)["df"]
    assert frame.to_dict("list") == {"a": [1], "b": ["ä"]}


def test_markdown_has_headings_and_tables_but_not_those_in_code(tmp_path: Path) -> None:
    text = "# One\n\n```python\n# no heading\n```\n\n## Two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\nEnd.\n"
    details = analyse_bytes(tmp_path, "notes.md", text.encode())["details"]
    assert [(entry["level"], entry["text"], entry["line"]) for entry in details["headings"]] == [
        (1, "One", 1),
        (2, "Two", 7),
    ]
    assert details["tables"] == [{"line": 9, "header": ["a", "b"], "rows": 2, "first_rows": [["1", "2"], ["3", "4"]]}]
    assert details["code_blocks"] == ["python"]


def test_xml_has_the_paths_of_its_elements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<?xml version='1.0'?><lab><run id='1'><v>2.5</v></run><run id='2'><v>3.5</v></run></lab>"
    analysis = analyse_bytes(tmp_path, "runs.xml", text.encode())
    assert analysis["details"]["paths"] == [
        {"path": "lab", "count": 1},
        {"path": "lab/run", "count": 2, "attributes": ["id"]},
        {"path": "lab/run/v", "count": 2, "example": "2.5"},
    ]
    assert execute(analysis, tmp_path, monkeypatch)["root"].tag == "lab"


def test_an_svg_is_xml(tmp_path: Path) -> None:
    text = '<svg xmlns="http://www.w3.org/2000/svg"><rect width="1"/></svg>'
    assert analyse_bytes(tmp_path, "a.svg", text.encode())["kind"] == "svg"


def test_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analyse_bytes(tmp_path, "log.txt", "Straße.\r\nZwei Wörter\r\n".encode("cp1252"))
    details = analysis["details"]
    assert (details["encoding"], details["lines"], details["words"], details["line_ends"]) == ("cp1252", 2, 3, "CRLF")
    assert execute(analysis, tmp_path, monkeypatch)["text"] == "Straße.\nZwei Wörter\n"


def test_an_empty_file(tmp_path: Path) -> None:
    analysis = analyse_bytes(tmp_path, "nothing.csv", b"")
    assert analysis["kind"] == "empty" and profile(analysis)


def test_the_name_does_not_decide(tmp_path: Path) -> None:
    assert analyse_bytes(tmp_path, "paper.csv", pdf_documents.text_pages(1))["kind"] == "pdf"
    assert analyse_bytes(tmp_path, "table.pdf", b"a;b\n1;2\n3;4\n5;6\n")["kind"] == "csv"


def test_a_missing_file_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        analyse(str(tmp_path / "nothing"))
