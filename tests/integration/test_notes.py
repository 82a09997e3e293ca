"""What a question is shown of a session, and what a model adds to its notepad."""

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.agent import notes, prompts
from server.engine import GuidedEngine
from server.errors import NoHistoryError
from server.models.resident import ModelRequest, ResidentModel
from server.runs import Run
from server.sessions.notepad import entry_of
from server.store import Exchange
from tests.support.reload_code import Code, code

__all__ = ["code"]  # a fixture


def turn(number: int, question: str, answer: str) -> dict[str, Any]:
    entry = entry_of({"question": question, "answer": answer, "steps": []})
    return asdict(Exchange(number, question, answer, f"r{number}", 0.0, entry))


def conversation(turns: int) -> list[dict[str, Any]]:
    return [turn(n, f"What is {n} + {7 * n}?", str(8 * n)) for n in range(1, turns + 1)]


def length(engine: GuidedEngine, history: Any) -> int:
    """Tokens that a prompt is longer by with that history."""

    def tokens(history: Any) -> int:
        return engine.tokenizer.count(engine.tokenizer.render_chat(prompts.conversation("", "x", history)))

    return tokens(history) - tokens([])


def test_all_that_fits_is_shown_as_it_was(engine: GuidedEngine) -> None:
    history = notes.recall(engine, "And now?", conversation(3), 1 / 4)
    assert [message["role"] for message in history] == ["user", "assistant"] * 3
    assert [message["content"] for message in history[:2]] == ["What is 1 + 7?", "8"]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.text(max_size=400), st.text(max_size=3000)), min_size=1, max_size=12),
    st.sampled_from([1 / 4, 1 / 8, 1 / 16]),
)
def test_the_history_never_takes_more_than_its_share(
    engine: GuidedEngine, said: list[tuple[str, str]], share: float
) -> None:
    turns = [turn(number, *one) for number, one in enumerate(said, 1)]
    history = notes.recall(engine, "What was it?", turns, share)
    # A few tokens for what stands around a turn.
    assert length(engine, history) <= share * engine.context_length + 8
    shown = [message["content"] for message in history if message["role"] == "user"]
    assert shown == [one["question"] for one in turns][len(turns) - len(shown) :]


def test_of_a_long_session_the_note_that_the_question_is_about_is_shown(engine: GuidedEngine) -> None:
    turns = [turn(1, "Where is the blue pump?", "in room 12"), *conversation(2000)[1:]]
    for question in ("where did you say the pump is?", "What was the answer to my first question?"):
        summary, *recent = notes.recall(engine, question, turns, 1 / 4)
        lines = summary["content"].splitlines()
        assert lines[1] == "first question: Where is the blue pump? -> in room 12"
        numbers = [int(line.partition(". question: ")[0]) for line in lines[2:]]
        assert len(numbers) > 10
        # The others are the latest that aren't shown themselves.
        assert numbers == list(range(2001 - len(recent) // 2 - len(numbers), 2001 - len(recent) // 2))


def test_what_was_taken_out_of_the_notepad_is_not_shown(engine: GuidedEngine) -> None:
    turns = [turn(1, "Where is the blue pump?", "in room 12"), *conversation(100)[1:]]
    turns[0]["entry"] = None
    assert "pump" not in str(notes.recall(engine, "Where is the pump?", turns, 1 / 4))


def test_a_poor_model_can_not_write_a_wrong_note(engine: GuidedEngine) -> None:
    sentences = [
        f"The reading of sensor {number} was {number * 11} volts, and nobody knows why." for number in range(30)
    ]
    record = {"question": "What did the sensors\nread yesterday, one by one?", "answer": " ".join(sentences)}

    def complete(*messages: Any, words: str, **options: Any) -> str:
        return engine.complete(*messages, **options)

    note = notes.write_note(complete, record)
    assert note["title"] in " ".join(record["question"].split()) and len(note["title"].split()) >= 3
    assert note["found"] in record["answer"] and 100 < len(note["found"]) <= notes.LONGEST_PASSAGE
    # A model that keeps to no schema adds nothing, unless it happens to fit.
    assert notes.write_note(lambda *_, **__: '{"title": "Sensors!", "found": 3}', record) == {}
    assert notes.write_note(lambda *_, **__: "Certainly! Here", record) == {}
    short = notes.write_note(complete, {"question": "hi", "answer": ""})
    assert short == {"title": "hi", "found": ""}


AGENT = """
    from types import SimpleNamespace

    class CustomAgentGuidance:
        def __init__(self, *options): pass

        def __call__(self, question):
            return SimpleNamespace(answer=question, function=None, steps=[], usage={})
"""


def test_code_that_has_no_notes_can_not_go_on_with_a_session(code: Code, engine: GuidedEngine) -> None:
    code.write("agent/__init__.py", AGENT)
    code.reload()
    model = ResidentModel(ModelRequest("embedded", None, "bitsandbytes", "cpu", "float32", "none"))
    model.engine = engine
    with code.workspace.pin() as generation:
        run = Run("And now?", "main", 1)
        assert generation.answer(run, model, [], 60, 30).answer == "And now?"
        with pytest.raises(NoHistoryError, match=r"has no server/agent/notes.py"):
            generation.answer(run, model, conversation(1), 60, 30)
