"""Formulas of an xlsx file, with the values that were saved with them."""

from typing import Any

from .result import Deadline, File

_EXAMPLES = 10
_ROWS = 2_000


def find_formulas(file: File, sheets: list[str], deadline: Deadline) -> tuple[dict[str, list[dict[str, Any]]], bool]:
    """At most ten formulas of each sheet: `cell`, `formula`, and `value`, None where no value was saved.

    And whether all sheets were searched before the deadline. Each sheet is searched in its first 2,000 rows.
    """
    import openpyxl

    found: dict[str, list[dict[str, Any]]] = {}
    formulas = openpyxl.load_workbook(file.path, read_only=True)
    values = openpyxl.load_workbook(file.path, read_only=True, data_only=True)
    try:
        for name in sheets:
            found[name] = []
            pair = formulas[name], values[name]
            for sheet in pair:
                sheet.reset_dimensions()
            rows = zip(*(sheet.iter_rows(max_row=_ROWS, max_col=500) for sheet in pair), strict=False)
            for formula_row, value_row in rows:
                for cell, saved in zip(formula_row, value_row, strict=False):
                    if cell.data_type == "f" and len(found[name]) < _EXAMPLES:
                        text = getattr(cell.value, "text", cell.value)
                        found[name].append({"cell": cell.coordinate, "formula": str(text), "value": saved.value})
                if deadline.passed():
                    return found, False
                if len(found[name]) == _EXAMPLES:
                    break
    finally:
        formulas.close()
        values.close()
    return found, True
