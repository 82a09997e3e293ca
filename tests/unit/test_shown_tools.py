"""The tools that a model is shown where there are many: how they are ranked, which are chosen, and what it finds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import BaseTool, StructuredTool

from server.agent import prompts
from server.agent.shown_tools import FOUND, SHARE, ShownTools
from server.agent.tool_ranking import MOST_CHARACTERS, _index, rank
from server.engine import GuidedEngine
from server.sdk import ToolFailedError, arguments_schema, context, shown_tools
from tests.support import lab_tools


@pytest.fixture(scope="module")
def lab() -> dict[str, BaseTool]:
    return lab_tools.build()


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    with context.scope(most_tools=10):
        yield


def made(**descriptions: str) -> dict[str, BaseTool]:
    """Tools by name with these descriptions, and without arguments."""
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    return {
        name: StructuredTool(name=name, description=said, args_schema=schema, func=lambda: "done")
        for name, said in descriptions.items()
    }


def names(shown: ShownTools) -> list[str]:
    return [name for name, _, _ in shown.described()]


# The rank


def test_words_of_the_name_the_description_and_the_arguments_count(lab: dict[str, BaseTool]) -> None:
    assert rank("molar mass of H2O", lab)[0] == "molar_mass"
    assert rank("Is the wire gauge right?", lab)[0] == "cable_gauge"
    assert "half_life_order" in rank("concentrations over times", lab)[:5]


def test_camel_case_and_endings() -> None:
    tools = made(moonPhase="Give the phase.", weighSamples="Put samples on the scale.", other="Do another thing.")
    assert rank("phases of the moons", tools)[0] == "moonPhase"
    assert rank("I am weighing a sample", tools)[0] == "weighSamples"


def test_related_words_count() -> None:
    tools = made(one="Do a thing.", item_price="Look up the price of an item.", two="Do another thing.")
    assert rank("How expensive is it?", tools)[0] == "item_price"


def test_a_value_says_what_it_is() -> None:
    tools = made(one="Do a thing.", reference="Look up a paper by its DOI.", total="Compute an arithmetic sum.")
    assert rank("10.1038/nature14539", tools)[0] == "reference"
    assert rank("37 * 52", tools)[0] == "total"


def test_equally_good_tools_keep_their_order() -> None:
    tools = made(**{f"copy_{letter}": "Copy a file." for letter in "dbce"})
    assert rank("copy a file", tools) == ["copy_d", "copy_b", "copy_c", "copy_e"]


@pytest.mark.parametrize("question", ["", " \n", "?!", "12 34", "the of and"])
def test_a_question_without_words_fits_no_tool(lab: dict[str, BaseTool], question: str) -> None:
    assert rank(question, lab) == []


def test_no_tools() -> None:
    assert rank("copy a file", {}) == []


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Wie hoch ist der Schmelzpunkt von Zinn?", "zinn"),
        ("Какая погода сегодня в Москве?", "pogoda"),
        ("東京の天気を教えて", "tenki"),
        ("Où est rangé l'échantillon 17 ?", "lieu"),
    ],
)
def test_other_languages(question: str, name: str) -> None:
    tools = made(
        datei="Kopiert eine Datei.",
        zinn="Gibt den Schmelzpunkt eines Metalls.",
        pogoda="Показывает погоду в городе.",
        kurs="Показывает курс валюты.",
        tenki="都市の天気を調べます。",
        kabuka="株価を調べます。",
        lieu="Trouve où un échantillon est rangé.",
    )
    assert rank(question, tools)[0] == name


@given(question=st.text(max_size=300))
def test_any_question_ranks_tools_once_each(lab: dict[str, BaseTool], question: str) -> None:
    ranked = rank(question, lab)
    assert len(set(ranked)) == len(ranked) and set(ranked) <= lab.keys()
    assert rank(question, lab) == ranked
    scores = _index(lab).scores(question)
    assert all(scores[one] >= scores[other] > 0 for one, other in pairwise(ranked))


def test_the_middle_of_a_long_question_is_not_read(lab: dict[str, BaseTool]) -> None:
    pasted = "The moon was full. " * MOST_CHARACTERS
    assert rank(f"Count the words of this text: {pasted} How many words are in the text?", lab)[0] == "word_count"


def test_the_words_of_a_generation_are_read_once(lab: dict[str, BaseTool]) -> None:
    assert _index(lab) is _index(dict(lab))
    assert _index(lab) is not _index(lab_tools.build())


@pytest.mark.parametrize(
    ("questions", "least"), [(lab_tools.questions(), 0.8), (lab_tools.later_questions(), 0.87)], ids=["with", "later"]
)
def test_most_questions_of_a_lab_find_their_tool(
    lab: dict[str, BaseTool], questions: list[tuple[str, str]], least: float
) -> None:
    assert len(lab) == 300
    found = sum(name in rank(question, lab)[:20] for question, name in questions)
    assert found / len(questions) >= least, "benchmarks/RESULTS.md has the figures"


# What is shown


def test_few_tools_are_all_shown_as_they_are(engine: GuidedEngine, lab: dict[str, BaseTool]) -> None:
    tools = dict(list(lab.items())[:10])
    shown = ShownTools(engine, tools, "molar mass")
    listed = [(tool.name, tool.description, arguments_schema(tool)) for tool in tools.values()]
    assert not shown.is_partial
    assert prompts.messages(shown.described(), "molar mass") == prompts.messages(listed, "molar mass")
    assert list(shown.schemas) == list(tools)


def test_of_many_tools_the_best_are_shown_in_their_own_order(engine: GuidedEngine, lab: dict[str, BaseTool]) -> None:
    question = "How do I convert inches to cm?"
    shown = ShownTools(engine, lab, question)
    *own, last = names(shown)
    assert last == shown_tools.FIND_TOOLS and len(own) == 10
    assert set(own) == set(rank(question, lab)[:10])
    assert own == [name for name in lab if name in own]


def test_a_question_that_fits_no_tool_is_shown_the_first(engine: GuidedEngine, lab: dict[str, BaseTool]) -> None:
    assert names(ShownTools(engine, lab, "???")) == [*list(lab)[:10], "find_tools"]


def test_tools_that_were_called_before_are_shown(engine: GuidedEngine, lab: dict[str, BaseTool]) -> None:
    called = [*list(lab)[-12:], "find_tools", "gone"]
    shown = ShownTools(engine, lab, "molar mass", called=called)
    assert names(shown) == [*called[:12], "find_tools"], "even if they are more than the limit"
    with context.scope(session_tools=("moon_phase", "gone", "book_room")):
        shown = ShownTools(engine, lab, "molar mass")
    assert {"moon_phase", "book_room", "molar_mass"} <= set(names(shown)) and len(names(shown)) == 11


def test_a_short_question_is_understood_by_the_one_before(engine: GuidedEngine, lab: dict[str, BaseTool]) -> None:
    history = [
        {"role": "user", "content": "What is the boiling point of acetone?"},
        {"role": "assistant", "content": "56"},
    ]
    assert "boiling_point" not in names(ShownTools(engine, lab, "and of toluene?"))
    assert "boiling_point" in names(ShownTools(engine, lab, "and of toluene?", history))


@pytest.mark.parametrize("count", [5, 300])
def test_the_list_takes_a_share_of_the_window(engine: GuidedEngine, count: int) -> None:
    long = "Look up a value in a table of the lab, for which there are many words to say. " * 5
    tools = made(**{f"table_{number}": f"{number}. {long}" for number in range(count)})
    with context.scope(most_tools=1000):
        shown = ShownTools(engine, tools, "table_3")
    tokens = engine.tokenizer.count(shown.listed())
    assert tokens <= engine.context_length * SHARE
    assert shown.is_partial == (count == 300)
    assert not shown.is_partial or (tokens > engine.context_length * SHARE / 2 and "table_3" in names(shown))


def test_one_tool_is_shown_in_any_case(engine: GuidedEngine) -> None:
    tools = made(**{f"table_{number}": "word " * 2000 for number in range(3)})
    assert names(ShownTools(engine, tools, "???")) == ["table_0", "find_tools"]


# What is found


def test_what_is_found_is_shown_from_then_on(engine: GuidedEngine, lab: dict[str, BaseTool]) -> None:
    shown = ShownTools(engine, lab, "What is the boiling point of acetone?")
    before = names(shown)[:-1]
    assert "moon_phase" not in before
    text = shown.find("moon")
    found = names(shown)[10:-1]
    assert found == [name for name in rank("moon", lab) if name not in before][:FOUND]
    assert "- Tell the phase of the moon on a date: moon_phase(date: string)" in text.splitlines()
    assert len(text.splitlines()) == len(found) and names(shown)[:10] == before
    assert "moon_phase" in shown.schemas


def test_everything_can_be_found(engine: GuidedEngine, lab: dict[str, BaseTool]) -> None:
    tools = dict(list(lab.items())[:20])
    shown = ShownTools(engine, tools, "molar mass")
    assert shown.find("blockchain wallet zzz") == prompts.NOTHING_FOUND or len(names(shown)) > 11
    for one in tools.values():
        shown.find(f"{one.name} {one.description}")
    assert set(names(shown)) == tools.keys(), "find_tools is gone as well"
    assert not shown.is_partial and shown.find("molar mass") == prompts.NOTHING_FOUND


def test_a_query_is_a_text(engine: GuidedEngine, lab: dict[str, BaseTool]) -> None:
    with pytest.raises(ToolFailedError, match="text"):
        ShownTools(engine, lab, "molar mass").find(None)


# By meaning


@contextmanager
def compared(cosines: Callable[[str], float]) -> Iterator[list[dict[str, Any]]]:
    """Within this block the server compares tools, and each text has the given cosine. Yields what it was asked."""
    asked: list[dict[str, Any]] = []

    def ask(what: str, do: str, given: dict[str, Any]) -> dict[str, Any]:
        assert (what, do) == ("tools", "compare")
        asked.append(given)
        return {"similarities": [cosines(text) for text in given["texts"]]}

    with context.scope(listener=SimpleNamespace(ask=ask)):
        yield asked


@pytest.mark.parametrize(
    ("question", "plain"),
    [
        ("Is 3.9 an outlier of 5.0, (5.1), 4.9 or 1e-9?", "Is an outlier of or"),
        ("Does 'well done, but late' sound \u201cangry\u201d?", "Does sound ?"),
        ("What's new in protocol_v2.md since 2026-12-25?", "What's new in since"),
        ("How dense is 2-butanol beside p53?", None),
        ("'all of it' 5", None),
    ],
)
def test_the_question_is_compared_without_its_values_too(question: str, plain: str | None) -> None:
    with compared(lambda text: 0.0) as asked:
        rank(question, made(calculator="Work something out."))
    assert asked == [
        {
            "queries": [question] if plain is None else [question, plain],
            "texts": ["calculator", "calculator. Work something out."],
        }
    ]


def test_words_and_meaning_count_together() -> None:
    tools = made(boil="Boiling points.", melt="Melting points.", hire="Hire people.", cook="Cook.")
    question = "melting points"
    assert rank(question, tools) == ["melt", "boil"]
    cosines = {"boil": 0.9, "melt": 0.2, "hire": 0.5, "cook": 0.05}
    with compared(lambda text: cosines[text.partition(".")[0]]):
        found = rank(question, tools)
    # `boil` has a word in common and is the nearest; `hire` has none; `cook` is neither near nor has a word.
    assert found == ["boil", "melt", "hire"]
    with compared(lambda text: 0.05):
        assert rank(question, tools) == ["melt", "boil"], "equal cosines say nothing"


def test_a_long_name_is_cut_for_the_comparison() -> None:
    with compared(lambda text: 0.5) as asked:
        assert rank("anything", made(**{"x" * 1500: "Y"})) == ["x" * 1500]
    assert [len(text) for text in asked[0]["texts"]] == [1000, 1000]
