"""Words, headings and the index by words of documents."""

import numpy as np
import pytest

from server.documents.headings import contexts, headings, is_listing
from server.documents.lexical_index import LexicalIndex
from server.documents.words import has_subject, query_words, words

bm25s = pytest.importorskip("bm25s", reason="requirements-documents.txt is not installed")

TEXTS = {
    1: "The XR-450 oven warps at \u0394T of 30 K.",
    2: "Die M\u00fcller-Probe wird gepr\u00fcft; data.frame read_csv DataFrame",
    3: "ware-\nhouse if else %% <- \u96fb\u5b50\u9855\u5fae\u93e1",
    4: "the path of a run is not PATH, and \\title is no title; .External too",
}


def _found(query: str) -> list[int]:
    index = LexicalIndex()
    index.add(TEXTS)
    return [one for one, _ in index.search(query, 10)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("XR-450", [1]),
        ("xr450 ovens", [1]),
        ("\u0394t", [1]),
        ("warping", [1]),
        ("gepr\u00fcfte", [2]),
        ("Muller", [2]),
        ("M\u00dcLLER", [2]),
        ("data frame", [2]),
        ("csv", [2]),
        ("warehouse", [3]),
        ("if", [3]),
        ("%%", [3]),
        ("\u9855\u5fae\u93e1", [3]),
        ("PATH", [4]),
        ("\\title", [4]),
        (".External", [4]),
        ("", []),
        ("  \n", []),
        ("\u2026 \u2014 ;;;", []),
        ("nothing_of_this", []),
        ("the of", [1, 4]),
    ],
)
def test_a_word_is_found_however_it_is_written(query: str, expected: list[int]) -> None:
    assert _found(query) == expected


def test_stop_words_are_left_out_of_a_query_that_has_others() -> None:
    assert query_words("What is the warpage of the XR-450?") == ["warpage", "xr-450", "xr", "450", "XR-450"]
    assert query_words("what is the") == ["what", "is", "the"]
    assert not has_subject("what is the ?!")
    assert has_subject("what is warpage")


def test_hostile_texts_have_bounded_words() -> None:
    assert max(map(len, words("A" * 1_000_000 + " " + "x-" * 100_000))) <= 81
    assert words("-" * 100_000 + "a" + "'" * 100_000) != []


def test_segments_score_as_one_index_does() -> None:
    """Adding one text after the other gives the order of bm25s over all of them: rarity is that of the whole."""
    random = np.random.default_rng(0)
    vocabulary = [f"word{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(200)]
    texts = {number: " ".join(random.choice(vocabulary, size=60)) for number in range(100)}
    index, whole = LexicalIndex(), bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    for number, text in texts.items():
        index.add({number: text})
    whole.index([words(text) for text in texts.values()], show_progress=False)
    for query in ("wordaa wordbc", "wordcc", "wordaz wordbb wordca"):
        expected = whole.get_scores(query.split())
        found = dict(index.search(query, 100))
        assert found == pytest.approx({place: score for place, score in enumerate(expected) if score > 0}, rel=1e-4)


def test_removed_and_replaced_texts_are_gone_at_once() -> None:
    index = LexicalIndex()
    for number in range(50):
        index.add({number: f"alpha number{number}"})
    index.remove(range(0, 50, 2))
    assert {one for one, _ in index.search("alpha", 100)} == set(range(1, 50, 2))
    index.add({1: "beta"})
    assert 1 not in {one for one, _ in index.search("alpha", 100)}
    assert [one for one, _ in index.search("beta", 100)] == [1]
    index.remove([*range(50), 99])
    assert len(index) == 0 and index.search("alpha beta", 5) == []
    index.add({7: "", 8: "..."})
    assert index.search("alpha", 5) == []


def test_only_allowed_texts_are_found() -> None:
    index = LexicalIndex()
    index.add({number: "alpha" for number in range(10)})
    assert [one for one, _ in index.search("alpha", 10, np.array([3, 5, 77]))] == [3, 5]
    assert index.search("alpha", 10, np.array([], dtype=np.int64)) == []


def test_headings_are_the_context_of_what_is_below_them() -> None:
    text = "# Ovens\nintro\n## Warpage\nbelow it\n2 Methods\n"
    text += "2.1 Setup of the oven\nwe did\nChapter 3: Results 21\nthen\n"
    assert [one.title for one in headings(text)] == ["Ovens", "Warpage", "Methods", "Setup of the oven", "Results"]
    below = text.index("below it"), text.index("below it") + 8
    did = text.index("we did"), text.index("we did") + 6
    assert contexts(text, [(0, 5), below, did]) == [
        "Ovens",
        "Ovens \u203a Warpage",
        "Methods \u203a Setup of the oven",
    ]
    assert contexts("", []) == []
    assert headings("3.14 is a number.\n1 the end\n#include <x>\n2 Foo . . . . . . 7") == []


def test_a_table_of_contents_is_a_listing() -> None:
    assert is_listing("1 Introduction . . . . . . . 1\n1.1 Aims . . . . . . . . . 2\n2 Methods....... 3")
    assert not is_listing("We measured ... and then\nwe stopped.\nThe end")
    assert not is_listing("")
