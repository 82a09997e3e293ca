"""A quote is found where it stands, and nowhere else."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.agent.quotes import MOST_CHARACTERS, find_quote, one_line

PAGE = (
    "The mould-\ning of  state-of-\nthe-art “parts”\nneeds ﬁne \u202econtrol\u202c — 40 °C at\tmost.\n"
    "It is un-\nable to say more; the partners\u2019 e\ufb00ort is 3.5\u00a0mm.\n温度は四十度以下でなければならない。"
)


@pytest.mark.parametrize(
    ("quote", "stands"),
    [
        ('The moulding of state-of-the-art "parts" needs', "The mould-\ning of  state-of-\nthe-art “parts”\nneeds"),
        ("mould-ing of state", "mould-\ning of  state"),
        ("needs fine control - 40 °C at most", "needs ﬁne \u202econtrol\u202c — 40 °C at\tmost"),
        ("“needs ﬁne control — 40”", "needs ﬁne \u202econtrol\u202c — 40"),
        ("art “parts”\nneeds fine", "art “parts”\nneeds ﬁne"),
        ("... the partners' effort is 3.5 mm ...", "... the partners\u2019 e\ufb00ort is 3.5\u00a0mm"[4:]),
        ("unable to say more", "un-\nable to say more"),
        ("四十度以下でなければ", "四十度以下でなければ"),
    ],
)
def test_a_quote_is_found(quote: str, stands: str) -> None:
    found = find_quote(PAGE, quote)
    assert found is not None
    assert PAGE[found[0] : found[1]] == stands


@pytest.mark.parametrize(
    "quote",
    [
        "",
        "of",
        "…",
        "The moulding of state-of-the-art cars",
        "needs fine ... at most",
        "eeds fine control",
        "moulding of state-of-the-ar",
        "able to say more",
        "the moulding of state",
        ".*needs.*control",
        "x" * (MOST_CHARACTERS + 1),
    ],
)
def test_what_does_not_stand_there_is_not_found(quote: str) -> None:
    assert find_quote(PAGE, quote) is None


def test_a_text_that_is_shorter_than_a_quote_may_be_quoted_whole() -> None:
    assert find_quote("7 mm", "7 mm") == (0, 4)
    assert find_quote("7 mm thick", "7 mm") is None


def test_a_long_page_and_a_quote_full_of_hyphens_take_no_time() -> None:
    page = "a-\n" * 30_000
    assert find_quote(page, "a-" * 400 + "b") is None
    assert find_quote(page + "end of it", "aa end of it") is None


TEXTS = st.text(st.sampled_from(string.ascii_letters + "äß 界—-\n\t\ufb01\u00ad“'.\u200b[]0"), max_size=200)


@given(TEXTS)
def test_a_line_says_where_it_comes_from(text: str) -> None:
    line = one_line(text)
    assert len(line.places) == len(line.text)
    assert "\n" not in line.text and "  " not in line.text and line.text == line.text.strip()
    assert list(line.places) == sorted(line.places)


@given(st.text(st.sampled_from("abcde ﬁ“-"), min_size=20, max_size=200), st.randoms(use_true_random=False))
def test_each_part_of_a_line_is_found_in_its_text(words: str, chance: random.Random) -> None:
    """However white space and line ends of the text are: whole words of the line that a model is shown are found."""
    text = "".join(one if one != " " else chance.choice([" ", "\n", " \n ", "\t"]) for one in words)
    parts = one_line(text).text.split(" ")
    first = chance.randrange(len(parts))
    quote = " ".join(parts[first : first + chance.randrange(1, 12)]).strip("“ ")
    if len(quote) < 8:
        return
    found = find_quote(text, quote)
    assert found is not None
    assert one_line(text[found[0] : found[1]]).text.startswith(quote[:1])
