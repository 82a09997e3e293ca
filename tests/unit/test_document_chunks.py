"""Texts in pages and passages: exact places, true pages, and no text that takes forever."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.documents.chunking import Chunking
from server.documents.chunks import TOKENS, chunks_of
from server.documents.embedder import Embedder
from server.documents.text import normalised, text_of
from server.sandbox.inside.analysis import Refused, write_page_texts
from tests.support.pdf_documents import text_pages, with_labels

if importlib.util.find_spec("semchunk") is None:
    pytest.skip("requirements-documents.txt is not installed", allow_module_level=True)

EMBEDDER = Embedder()
SENTENCE = "The warpage of the die is 37 micrometres; it depends, as Figure 3 shows, on the cooling.\n"


def tokens(text: str) -> int:
    return EMBEDDER.count_tokens(text)


def check(pages: list[str]) -> int:
    """Checks all places, and returns how many passages are on more than one page."""
    text = text_of([(None, page) for page in pages])
    for page in text.pages:
        assert text.whole[page.start : page.start + len(page.text)] == page.text
    chunks = chunks_of(text, tokens)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert text.whole[chunk.start : chunk.end] == chunk.text and chunk.text.strip()
        on = [
            page.index
            for page in text.pages
            if max(page.start, chunk.start) < min(page.start + len(page.text), chunk.end)
        ]
        assert (chunk.first_page, chunk.last_page) == (on[0], on[-1])
    kept = "".join(chunk.text for chunk in chunks)
    assert "".join(kept.split()) == "".join(text.whole.split())
    return sum(chunk.first_page != chunk.last_page for chunk in chunks)


def test_passages_are_copies_of_what_stands_at_their_places_and_know_their_pages() -> None:
    assert check([SENTENCE * 7 for _ in range(12)]) > 3
    # Pages without text are pages.
    check(["", SENTENCE, "", "", SENTENCE * 30, ""])


def test_the_tokenizer_counts_all_tokens_though_its_file_says_to_cut_and_to_pad() -> None:
    assert tokens("word") == 1
    assert tokens("word " * 500) == 500
    text = text_of([(None, SENTENCE * 200)])
    _, chunks = Chunking(EMBEDDER).of(text)
    assert max(tokens(chunk.text) for chunk in chunks) <= TOKENS
    assert len(chunks) > 5


@given(
    st.lists(
        st.text(alphabet=st.sampled_from(list("ab. \n\t\r\x02\u2003语-,(")), max_size=400), min_size=1, max_size=4
    )
)
def test_any_text(pages: list[str]) -> None:
    check(pages)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "".join("x y " * 5 + "\n" * count for count in range(1500, 0, -1)),
        "".join("x" + " \u2003\t\u00a0"[count % 4] * (count % 50) for count in range(20_000)),
        ",".join("ab" for _ in range(50_000)),
        "语" * 50_000,
        "(" * 20_000 + ")" * 20_000,
        "\n" * 100_000,
    ],
    ids=["one word", "newlines", "spaces", "commas", "Chinese", "brackets", "nothing"],
)
def test_hostile_texts_are_cut_in_linear_time(text: str) -> None:
    check([text])


def test_normalised() -> None:
    assert (
        normalised("infor\x02mation\r\non  \u00a0 the   C\u00ad++\n\n\n\nend\x00")
        == "information\non  the  C++\n\nend "
    )
    assert normalised("a\tb \t c") == "a\tb\tc"


def test_each_page_of_a_pdf_with_the_label_that_is_printed(tmp_path: Path) -> None:
    file, out = tmp_path / "a.pdf", tmp_path / "out"
    file.write_bytes(with_labels(text_pages(5), [(0, "r", 1), (2, "D", 1)]))
    found = write_page_texts(str(file), out)
    assert [label for label, _ in found["pages"]] == ["i", "ii", "1", "2", "3"]
    assert out.stat().st_size == sum(size for _, size in found["pages"])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.md", b"", "empty"),
        ("a.bin", bytes(range(256)) * 20, "binary"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "image"),
        ("a.pdf", b"%PDF-1.7\nnonsense", "damaged"),
    ],
)
def test_what_has_no_text_is_refused(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(Refused, match=reason):
        write_page_texts(str(file), tmp_path / "out")
