"""Documents as clients have them: added, found on true pages, replaced, deleted, and never half there."""

import importlib.util
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.pdf_documents import ruled_table, text_pages, with_labels
from tests.support.server_process import REPOSITORY, Server, end, start

if importlib.util.find_spec("faiss") is None:
    pytest.skip("requirements-documents.txt is not installed", allow_module_level=True)

SETTINGS: dict[str, object] = {"AUTOLOAD": "false", "SANDBOX_SPARES": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = start(tmp_path_factory.mktemp("documents") / "server", REPOSITORY, SETTINGS)
    try:
        yield started
    finally:
        end(started)


def add(server: Server, collection: str, name: str, text: str, **query: str) -> dict[str, Any]:
    body = {"name": name, "text": text}
    answer = server.session.post(f"/collections/{collection}/documents", json=body, params=query)
    assert answer.status_code == 201, answer.text
    [document] = answer.json()["documents"]
    found: dict[str, Any] = document
    return found


def upload(server: Server, collection: str, *files: tuple[str, bytes], **fields: str) -> requests.Response:
    parts = [("files", file) for file in files]
    return server.session.post(f"/collections/{collection}/documents", files=parts, data=fields)


def search(server: Server, collection: str, query: str, **more: str) -> list[dict[str, Any]]:
    answer = server.session.get(f"/collections/{collection}/search", params={"query": query, **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["passages"]
    return found


def with_word(server: Server, collection: str, word: str) -> list[dict[str, Any]]:
    """The passages that have the word; a search by meaning finds others too."""
    return [one for one in search(server, collection, word) if word in one["text"]]


def documents(server: Server, collection: str, **query: str) -> list[dict[str, Any]]:
    answer = server.session.get(f"/collections/{collection}/documents", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["documents"]
    return found


def wait_until_ready(server: Server, collection: str) -> None:
    server.wait_until(
        lambda: all(one["state"] == "ready" for one in documents(server, collection)), "all documents were embedded"
    )


def test_found_by_words_at_once_and_soon_by_meaning(server: Server) -> None:
    added = add(server, "first", "lab.md", "# Cars\n\nThe automobile of type XR-450 was repaired.")
    assert (added["pages"], added["chunks"]) == (1, 1)
    add(server, "first", "other.md", "Bread needs flour, water and salt.")
    [passage, *_] = search(server, "first", "XR-450")
    assert passage["document"] == "lab.md" and passage["page_label"] is None and passage["ranks"]["words"] == 1
    with server.session.get("/collections/first/events", stream=True) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        wait_until_ready(server, "first")
        lines = (line.decode() for line in stream.iter_lines())
        data = (json.loads(line[6:]) for line in lines if line.startswith("data: "))
        assert any(event.get("state") == "ready" for event in data)
    [passage, *_] = search(server, "first", "a car was mended")
    assert passage["document"] == "lab.md" and passage["ranks"]["vectors"] == 1
    assert documents(server, "first")[0]["vectors"] == 1
    metrics = server.session.get("/metrics").text
    assert 'hearth_documents{state="ready"}' in metrics and "hearth_chunks_embedded_total" in metrics


def test_pages_of_a_pdf_are_those_that_are_printed(server: Server) -> None:
    paper = with_labels(text_pages(6), [(0, "r", 1), (2, "D", 1)])
    scan = ruled_table([["a", "b"]])
    answer = upload(server, "papers", ("paper.pdf", paper), ("broken.pdf", b"%PDF-1.7\n"), ("t.pdf", scan))
    assert answer.status_code == 201, answer.text
    paper_shown, table = answer.json()["documents"]
    [failed] = answer.json()["failed"]
    assert failed["name"] == "broken.pdf" and failed["error"]["type"] == "file_refused"
    assert (paper_shown["pages"], paper_shown["kind"], table["pages"]) == (6, "pdf", 1)
    place = f"/collections/papers/documents/{paper_shown['document_id']}"
    details = server.session.get(place).json()
    assert [page["page_label"] for page in details["page_list"]] == ["i", "ii", "1", "2", "3", "4"]
    pages = [server.session.get(f"{place}/pages/{index}").json() for index in range(6)]
    assert "Page 4 of 6" in pages[3]["text"]
    whole = "\n".join(page["text"] for page in pages)
    found = search(server, "papers", "the signal of the protein", limit="100")
    assert len(found) == paper_shown["chunks"]
    for passage in found:
        assert whole[passage["start"] : passage["end"]] == passage["text"]
        assert pages[passage["page"]]["page_label"] == passage["page_label"]
        first, last = pages[passage["page"]], pages[passage["last_page"]]
        assert first["start"] <= passage["start"] < first["start"] + len(first["text"])
        assert last["start"] < passage["end"] <= last["start"] + len(last["text"])
    assert any(passage["page"] != passage["last_page"] for passage in found)
    only = search(server, "papers", "membrane", document=paper_shown["document_id"], page="2", limit="100")
    assert only and all(passage["page"] <= 3 <= passage["last_page"] for passage in only)
    # The same bytes are not read again.
    again = upload(server, "papers", ("paper.pdf", paper)).json()["documents"][0]
    assert (again["document_id"], again["changed_at"]) == (paper_shown["document_id"], paper_shown["changed_at"])


def test_a_changed_document_replaces_itself_alone_and_a_deleted_one_is_never_found(server: Server) -> None:
    other = add(server, "living", "other.md", "The weather is fine.")
    first = add(server, "living", "lab.md", "The zirconium is in drawer seven.")
    assert with_word(server, "living", "zirconium")
    second = add(server, "living", "lab.md", "The hafnium is in drawer nine.")
    assert second["document_id"] == first["document_id"]
    assert with_word(server, "living", "zirconium") == []
    [passage] = with_word(server, "living", "hafnium")
    wait_until_ready(server, "living")
    assert {one["name"]: one["changed_at"] for one in documents(server, "living")}["other.md"] == other["changed_at"]
    for number in range(10):
        add(server, "living", f"{number}.md", f"Drawer {number} has osmium.")
        [found] = with_word(server, "living", "osmium")
        gone = server.session.delete(f"/collections/living/documents/{found['document_id']}")
        assert gone.status_code == 200
        assert with_word(server, "living", "osmium") == []
        assert server.session.get(f"/collections/living/documents/{found['document_id']}").status_code == 404
    assert with_word(server, "living", "hafnium")[0]["id"] == passage["id"]
    assert server.session.delete("/collections/living").json() == {"name": "living", "documents": 2}
    assert server.session.get("/collections/living/search", params={"query": "hafnium"}).status_code == 404


def test_whose_they_are(server: Server) -> None:
    for name in ("alice", "bob"):
        server.session.put(f"/workspaces/{name}/files/tools/none.py", data=b"").raise_for_status()
    add(server, "shared", "lab.md", "Of the lab.")
    add(server, "own", "alice.md", "Of Alice.", workspace="alice")
    saved = server.session.post("/sessions/may/files?workspace=alice", files={"files": ("a.txt", b"In a session.")})
    assert saved.status_code == 201
    body = {"file": "a.txt", "session_id": "may", "date": "2024-05-31"}
    query = {"workspace": "alice", "session": "may"}
    answer = server.session.post("/collections/own/documents", json=body, params=query)
    assert answer.status_code == 201, answer.text
    assert answer.json()["documents"][0]["place"] == "may/a.txt"

    def seen(**of: str) -> set[tuple[str, str, str | None]]:
        listed = server.session.get("/collections", params=of).json()["collections"]
        return {(one["name"], one["workspace"], one["session_id"]) for one in listed}

    assert ("own", "alice", "may") in seen(**query) and ("own", "alice", None) in seen(**query)
    assert ("shared", "main", None) in seen(**query)
    assert not any(workspace == "alice" for _, workspace, _ in seen(workspace="bob"))
    assert server.session.get("/collections/own/documents?workspace=bob").status_code == 404
    assert server.session.get("/collections/own/search?workspace=bob&query=Alice").status_code == 404
    dated = {"query": "session", **query}
    for after, count in (("2024-05-30", 1), ("2024-05-31", 0)):
        found = server.session.get("/collections/own/search", params={**dated, "after": after}).json()
        assert len(found["passages"]) == count
    assert server.session.delete("/sessions/may?workspace=alice").status_code == 200
    assert seen(**query) == seen(workspace="alice")


def test_lists_come_in_parts(server: Server) -> None:
    names = [f"{number}.md" for number in range(5)]
    for name in names:
        add(server, "many", name, f"Text of {name}.")
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        part = server.session.get("/collections/many/documents", params={"limit": "2", **after}).json()
        found += [one["name"] for one in part["documents"]]
        if part["next"] is None:
            break
        after = {"after": part["next"]}
    assert found == names
    part = server.session.get("/collections", params={"limit": "1"}).json()
    assert len(part["collections"]) == 1 and part["next"] is not None


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "kind"),
    [
        ("POST", "/collections/x/documents", {"json": {}}, 422, "invalid_request"),
        ("POST", "/collections/x/documents", {"json": {"text": "a"}}, 422, "invalid_request"),
        (
            "POST",
            "/collections/x/documents",
            {"json": {"text": "a", "url": "b", "name": "c"}},
            422,
            "invalid_request",
        ),
        ("POST", "/collections/x/documents", {"json": {"text": " \n", "name": "c"}}, 422, "file_refused"),
        ("POST", "/collections/x/documents", {"json": {"file": "a.pdf"}}, 422, "invalid_request"),
        (
            "POST",
            "/collections/x/documents",
            {"json": {"file": "../a", "session_id": "s"}},
            404,
            "session_file_not_found",
        ),
        ("POST", "/collections/x/documents", {"json": {"url": "http://127.0.0.1/"}}, 503, "documents_unavailable"),
        ("POST", "/collections/x/documents", {"data": b"{"}, 400, "malformed_json"),
        ("POST", "/collections/x/documents", {"json": {"text": "a", "name": "b", "date": "May"}}, 422, None),
        ("POST", "/collections/x/documents?workspace=nobody", {"json": {}}, 404, "workspace_not_found"),
        ("POST", "/collections/..%2Fx/documents", {"json": {}}, 404, None),
        ("POST", "/collections/x/documents", {"files": {"files": ("a.png", b"\x89PNG\r\n\x1a\n")}}, 422, None),
        ("POST", "/collections/x/documents", {"files": {"files": ("a.pdf", b"")}}, 422, "file_refused"),
        ("POST", "/collections/x/documents", {"files": {"other": ("a", b"b")}}, 422, "invalid_request"),
        ("GET", "/collections/none/documents", {}, 404, "collection_not_found"),
        ("GET", "/collections/none/search?query=a", {}, 404, "collection_not_found"),
        ("GET", "/collections/none/events", {}, 404, "collection_not_found"),
        ("DELETE", "/collections/none", {}, 404, "collection_not_found"),
        ("GET", "/collections/here/search", {}, 422, "invalid_request"),
        ("GET", "/collections/here/search?query=a&limit=0", {}, 422, "invalid_request"),
        ("GET", "/collections/here/search?query=a&page=1", {}, 422, "invalid_request"),
        ("GET", "/collections/here/search?query=a&document=none&page=1", {}, 404, "document_not_found"),
        ("GET", "/collections/here/search?query=a&rerank=true", {}, 422, "invalid_request"),
        ("GET", "/collections/here/documents/none", {}, 404, "document_not_found"),
        ("GET", "/collections/here/documents/none/pages/-1", {}, 422, None),
        ("GET", "/collections/here/documents?after=x", {}, 422, "invalid_request"),
    ],
)
def test_what_is_refused(
    server: Server, method: str, path: str, sent: dict[str, Any], status: int, kind: str | None
) -> None:
    if "/here/" in path:
        add(server, "here", "a.md", "A text.")
    answer = server.session.request(method, path, **sent)
    assert answer.status_code == status, answer.text
    assert kind is None or answer.json()["error"]["type"] == kind
    assert server.session.get("/collections/x/documents").status_code == 404


@pytest.mark.parametrize("query", ["", "\u0000", "'; DROP TABLE chunk; --", "☃" * 50, '"(" OR *', "μ"])
def test_odd_queries(server: Server, query: str) -> None:
    add(server, "odd", "a.md", "A text about the cooling.")
    answer = server.session.get("/collections/odd/search", params={"query": query})
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        assert all("words" not in one["ranks"] for one in answer.json()["passages"])


def test_many_people_at_once(server: Server) -> None:
    def person(number: int) -> None:
        for turn in range(3):
            add(server, "crowd", f"{number}.md", f"Person{number} keeps item{turn}number{number}end in a drawer.")
            [found, *_] = search(server, "crowd", f"item{turn}number{number}end")
            assert found["document"] == f"{number}.md" and f"item{turn}" in found["text"]
            assert all(
                f"item{turn - 1}number{number}end" not in one["text"] for one in search(server, "crowd", "drawer")
            )

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(person, range(20)))
    assert len(documents(server, "crowd")) == 20


@pytest.mark.slow
def test_nothing_is_half_there_after_a_kill(tmp_path: Path, start_server: Callable[..., Server]) -> None:
    settings = {**SETTINGS, "DATA_DIR": tmp_path / "data"}
    server = start_server(ready=False, **settings)
    add(server, "long", "whole.md", "\n".join(f"Sentence {number} of the whole document." for number in range(3000)))

    server.wait_until(lambda: documents(server, "long")[0]["vectors"] > 0, "a vector")

    def keep_adding(number: int) -> None:
        try:
            while True:
                upload(server, "long", (f"{number}.pdf", text_pages(2 + number)))
        except requests.RequestException:
            return

    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            pool.submit(keep_adding, number)
        try:
            server.wait_until(lambda: len(documents(server, "long")) == 5, "documents of all kinds")
        finally:
            server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server = start_server(ready=False, **settings)
    listed = documents(server, "long")
    assert listed[0]["name"] == "whole.md" and 0 < listed[0]["vectors"] <= listed[0]["chunks"]
    for document in listed:
        details = server.session.get(f"/collections/long/documents/{document['document_id']}").json()
        assert len(details["page_list"]) == document["pages"]
        found = search(server, "long", "sentence document page cell", document=document["document_id"], limit="100")
        assert len(found) == min(100, document["chunks"])
    had = listed[0]["vectors"]
    server.wait_until(lambda: documents(server, "long")[0]["vectors"] > had or had == listed[0]["chunks"], "more")


READER = """
import json
from server.sdk import has_documents, list_documents, read_pages, search_documents
from .agent import Agent, AgentResult

class Reader(Agent):
    name = "reader"

    def __call__(self, question, history=()):
        [best, *_] = search_documents(question, limit=3)
        [page] = read_pages(best.document_id, best.page)
        found = {
            "has": has_documents(),
            "documents": [one.document for one in list_documents()],
            "quote": page.text[best.start - page.start : best.end - page.start] == best.text,
            "collection": best.collection,
            "other": [one.document for one in search_documents(question, collections=["none"])],
        }
        return AgentResult(json.dumps(found), None, [], {})
"""


def test_an_agent_reads_what_its_run_may_read(start_server: Callable[..., Server]) -> None:
    server = start_server()
    for name in ("alice", "bob"):
        server.session.put(f"/workspaces/{name}/files/agent/reader.py", data=READER).raise_for_status()
    asked = {"question": "zirconium", "agent": "reader", "session_id": "may"}
    add(server, "lab", "lab.md", "Water is wet.")
    add(server, "own", "alice.md", "The zirconium is in drawer seven.", workspace="alice")
    answer = server.session.post("/run_script", json={**asked, "workspace": "alice"}).json()
    assert json.loads(answer["answer"]) == {
        "has": True,
        "documents": ["lab.md", "alice.md"],
        "quote": True,
        "collection": "own",
        "other": [],
    }
    server.wait_until(lambda: documents(server, "lab")[0]["state"] == "ready", "the vectors of the lab's document")
    answer = server.session.post("/run_script", json={**asked, "workspace": "bob"}).json()
    assert json.loads(answer["answer"])["documents"] == ["lab.md"]


@pytest.mark.slow
def test_without_a_model_and_without_a_sandbox_documents_are_found_by_words(
    tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    settings = {**SETTINGS, "DATA_DIR": tmp_path / "data"}
    server = start_server(ready=False, EMBEDDING_MODEL="/nowhere", SANDBOX="off", **settings)
    add(server, "words", "a.md", "The zirconium is in drawer seven.")
    [shown] = server.wait_until(
        lambda: [one for one in documents(server, "words") if one["state"] == "words_only"], "its embedding failed"
    )
    assert "HEARTH_EMBEDDING_MODEL" in shown["error"] and shown["vectors"] == 0
    [found] = search(server, "words", "zirconium")
    assert found["document"] == "a.md" and set(found["ranks"]) == {"words"}
    refused = upload(server, "words", ("b.md", b"A text."))
    assert refused.status_code == 503 and refused.json()["error"]["type"] == "sandbox_unavailable"
    end(server)
    # The next server has a model: it cuts the text by its tokens, and embeds it.
    server = start_server(ready=False, **settings)
    wait_until_ready(server, "words")
    assert set(search(server, "words", "zirconium")[0]["ranks"]) == {"words", "vectors"}
