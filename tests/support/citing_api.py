"""A scripted model that answers from passages, and documents for it to read."""

import io
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from tests.support.pdf_documents import with_labels
from tests.support.scripted_api import Messages, ScriptedApi
from tests.support.server_process import Server
from tests.support.wire_formats import Request

PASSAGE = re.compile(r"^\[(\d+)\] (.+?): (.*)$", re.M)
NOTHING: dict[str, Any] = {"found": False, "sentences": []}


def passages(messages: Messages) -> dict[int, tuple[str, str]]:
    """The passages that the model is shown: place and text, by number."""
    shown = next(one["content"] for one in reversed(messages) if "Passages of documents" in one["content"])
    return {int(number): (place, text) for number, place, text in PASSAGE.findall(shown)}


def said(*sentences: tuple[str, int, str]) -> dict[str, Any]:
    """An answer of sentences with one quote each."""
    return {
        "found": True,
        "sentences": [
            {"sentence": text, "quotes": [{"passage": number, "quote": quote}]} for text, number, quote in sentences
        ],
    }


class CitingApi(ScriptedApi):
    """`say` makes the answer from the messages; `queries` are what it searches for besides. `heard` has the messages
    of each answer."""

    def __init__(self) -> None:
        super().__init__(lambda messages: {"answer": "unused"})
        self.say: Callable[[Messages], dict[str, Any]] = lambda messages: NOTHING
        self.queries: list[str] = []
        self.heard: list[Messages] = []

    def reply(self, request: Request) -> tuple[str, int, int]:
        """See `ModelApi`."""
        parts = {} if request.schema is None else request.schema.get("properties", {})
        if "sentences" in parts:
            self.heard.append(list(request.messages))
            return json.dumps(self.say(list(request.messages))), 1, 1
        if "query" in parts:
            return json.dumps({"query": self.queries.pop(0) if self.queries else "nothing else"}), 1, 1
        return super().reply(request)


def pdf(pages: Sequence[str], first_label: int = 1) -> bytes:
    """A page for each text, with printed numbers from `first_label`. A line end of the text is one of the page."""
    stream = io.BytesIO()
    canvas = Canvas(stream, pagesize=A4)
    for page in pages:
        text = canvas.beginText(50, 790)
        for line in page.splitlines():
            for part in textwrap.wrap(line, 90, drop_whitespace=False) or [""]:
                text.textLine(part)
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    return with_labels(stream.getvalue(), [(0, "D", first_label)])


def add(server: Server, collection: str, name: str, data: bytes | str, **query: str) -> str:
    """Add a file or a text. Returns the document's id."""
    where = f"/collections/{collection}/documents"
    if isinstance(data, str):
        answer = server.session.post(where, params=query, json={"text": data, "name": name})
    else:
        answer = server.session.post(where, params=query, files={"files": (name, data)})
    assert answer.status_code == 201, answer.text
    [document] = answer.json()["documents"]
    found: str = document["document_id"]
    return found


def check_citations(server: Server, answer: dict[str, Any], collections: Sequence[str], **query: str) -> int:
    """Each quote stands on its page, by the text that the server has. Returns how many there are."""
    citations: list[dict[str, Any]] = answer.get("citations", [])
    for one in citations:
        pages = (
            server.session.get(
                f"/collections/{name}/documents/{one['document_id']}/pages/{one['page']}", params=query
            )
            for name in collections
        )
        page = next(got.json() for got in pages if got.status_code == 200)
        assert page["text"][one["start"] - page["start"] : one["end"] - page["start"]] == one["quote"]
        assert page["page_label"] == one["page_label"]
        assert 0 < one["at"] <= len(answer["answer"])
    return len(citations)
