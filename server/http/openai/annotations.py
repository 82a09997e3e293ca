"""The citations of an answer as OpenAI's annotations of a text."""

from typing import Any


def annotations_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """File citations, as OpenAI's responses have them. What these have no place for is in fields `x_…`: the page as
    printed and its index, the quote, and where it stands in the document's text."""
    return [
        {
            "type": "file_citation",
            "file_id": one["document_id"],
            "filename": one["document"],
            "index": one["at"],
            "x_page": one["page_label"],
            "x_page_index": one["page"],
            "x_quote": one["quote"],
            "x_start": one["start"],
            "x_end": one["end"],
        }
        for one in answer.get("citations", ())
    ]
