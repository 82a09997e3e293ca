"""How fast files are analysed: text of PDF pages, and whole analyses of a table, a workbook and a PDF."""

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.tables import milliseconds, p95, print_table
from server.sandbox.inside.analysis import analyse
from server.sandbox.inside.analysis.pdf_file import page_texts
from tests.support.pdf_documents import text_pages


def csv_table(rows: int) -> bytes:
    lines = (f"{row:06};0{row % 9 + 1}.02.2023;{'abc'[row % 3]};{row * 0.37:.2f}" for row in range(rows))
    return ("id;day;group;value\n" + "\n".join(lines) + "\n").encode()


def workbook(rows: int) -> bytes:
    import xlsxwriter

    stream = io.BytesIO()
    book = xlsxwriter.Workbook(stream)
    sheet = book.add_worksheet("Data")
    sheet.write_row(0, 0, ["id", "group", "value", "double"])
    for row in range(1, rows + 1):
        sheet.write_row(row, 0, [row, "abc"[row % 3], row * 0.37])
        sheet.write_formula(row, 3, f"=C{row + 1}*2", None, row * 0.74)
    book.close()
    return stream.getvalue()


def seconds_of(call: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """After a call that imports what it needs."""
    call()
    measured = []
    for _ in range(times):
        began = clock()
        call()
        measured.append(clock() - began)
    return measured


def report(folder: Path, few: bool) -> None:
    pages = 20 if few else 200
    times = 1 if few else 15
    rows = 200 if few else 20_000
    pdf = folder / "paper.pdf"
    pdf.write_bytes(text_pages(pages))
    characters = sum(len(page.text) for page in page_texts(pdf)) // pages
    lines = []
    for name, clock in (("the clock", time.perf_counter), ("the processor", time.process_time)):
        rates = [pages / seconds for seconds in seconds_of(lambda: list(page_texts(pdf)), times, clock)]
        figures = [f"{figure:,.0f}" for figure in (statistics.median(rates), min(rates), max(rates))]
        lines.append([name, f"{pages}", f"{characters:,}", str(times), *figures])
    print_table(("pages/s of text, by", "pages", "characters a page", "n", "median", "least", "most"), lines)
    files = {"table.csv": csv_table(rows), "book.xlsx": workbook(rows), "paper.pdf": pdf.read_bytes()}
    lines = []
    for name, content in files.items():
        path = folder / name
        path.write_bytes(content)
        measured = seconds_of(lambda path=path: analyse(str(path)), times)  # type: ignore[misc]  # path is bound
        size = f"{len(content):,}"
        lines.append([name, size, str(times), milliseconds(statistics.median(measured)), milliseconds(p95(measured))])
    print_table(("analysis of", "bytes", "n", "p50", "p95"), lines)
