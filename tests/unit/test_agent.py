"""The default agent with the embedded model: what tools do wrong becomes text, and the run ends with an answer."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.tools import BaseTool, InjectedToolArg, ToolException, tool

from server.agent import CustomAgentGuidance
from server.agent.react import AgentResult, InputError, read_input
from server.engine import GuidedEngine
from server.errors import PromptTooLongError, RunCancelledError
from server.sdk import ToolFailedError, arguments_schema, call_tool, context


def look_up(give: Callable[[str], Any]) -> BaseTool:
    """A tool that answers with what `give` makes of its input."""

    @tool
    def get_stock(item: str) -> Any:
        """Get the stock of an item."""
        return give(item)

    return get_stock


def ask(
    engine: GuidedEngine, *tools: BaseTool, question: str = "What is the stock of item S-1042?", **options: Any
) -> AgentResult:
    agent = CustomAgentGuidance(engine, {one.name: one for one in tools}, options.pop("max_steps", 3), **options)
    return agent(question)


def fail(error: BaseException) -> Any:
    raise error


def test_an_answer_says_how_it_came_about(engine: GuidedEngine) -> None:
    result = ask(engine, look_up(lambda item: f"17 of {item}"))
    assert result.function == "get_stock"
    [step] = result.steps
    assert (step.tool, step.input, step.observation, step.error) == (
        "get_stock",
        {"item": "S-1042"},
        "17 of S-1042",
        None,
    )
    assert step.thought and "\n" not in step.thought
    assert result.answer == "17 of S-1042"
    assert set(result.usage) == {
        "prompt_tokens", "cached_tokens", "completion_tokens", "forced_tokens", "forward_passes",
    }  # fmt: skip
    assert all(value > 0 for value in result.usage.values())


def test_no_tool_is_needed(engine: GuidedEngine) -> None:
    result = ask(engine, look_up(str), question="hello")
    assert (result.function, result.steps) == (None, [])
    assert result.answer


def test_no_tools_at_all(engine: GuidedEngine) -> None:
    result = ask(engine, question="hello")
    assert (result.function, result.steps) == (None, [])


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a message")


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (ToolException("there is no such item"), "there is no such item"),
        (ValueError("bad item"), "ValueError: bad item"),
        (KeyError("item"), "KeyError: 'item'"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError"),
        (ToolException(), "ToolException"),
        (OddError(), "OddError"),
        (ValueError("half \ud83d of a pair"), "ValueError: half ? of a pair"),
    ],
)
def test_an_exception_is_reported(engine: GuidedEngine, error: BaseException, reported: str) -> None:
    [step, *_] = ask(engine, look_up(lambda item: fail(error))).steps
    assert step.error == reported
    assert step.observation == f"Error: {reported}"


def test_a_run_goes_on_without_a_tool_that_hangs(engine: GuidedEngine) -> None:
    end = threading.Event()
    [step, *_] = ask(engine, look_up(lambda item: end.wait(60)), tool_seconds=0.2).steps
    assert step.error == "the tool did not answer within 0.2 seconds."
    end.set()


def test_a_cancelled_run_leaves_its_tool(engine: GuidedEngine) -> None:
    cancelled, begun, end = threading.Event(), threading.Event(), threading.Event()

    def wait(item: str) -> None:
        begun.set()
        end.wait(60)

    def cancel() -> None:
        begun.wait(60)
        cancelled.set()

    threading.Thread(target=cancel).start()
    with context.scope(cancelled=cancelled), pytest.raises(RunCancelledError):
        ask(engine, look_up(wait))
    end.set()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("result", "observation"),
    [
        ("", ""),
        (None, "null"),
        (12.5, "12.5"),
        (["a", {"b": "é"}], '["a", {"b": "é"}]'),
        (Path("a") / "b", "a/b"),
        ("half \ud83d of a pair", "half ? of a pair"),
        (b"\xff", "(binary data, 1 byte, not shown)"),
    ],
)
def test_what_is_no_text_becomes_text(engine: GuidedEngine, result: Any, observation: str) -> None:
    [step, *_] = ask(engine, look_up(lambda item: result)).steps
    assert (step.observation, step.error) == (observation, None)


def test_what_cannot_become_text_is_an_error(engine: GuidedEngine) -> None:
    for odd in (Unprintable(), [Unprintable()]):
        [step, *_] = ask(engine, look_up(lambda item, odd=odd: odd)).steps  # type: ignore[misc]
        assert step.error and "no text" in step.error


def test_a_tool_that_is_only_async(engine: GuidedEngine) -> None:
    @tool
    async def get_stock(item: str) -> str:
        """Get the stock of an item."""
        await asyncio.sleep(0)
        return f"17 of {item}"

    assert ask(engine, get_stock).answer == "17 of S-1042"


def test_a_long_observation_is_cut(engine: GuidedEngine) -> None:
    text = "word " * 100_000
    [step, *_] = ask(engine, look_up(lambda item: text), max_steps=1).steps
    shown, _, rest = step.observation.partition(" ... (")
    assert text.startswith(shown) and len(shown) > 1000
    assert rest == f"{len(text) - len(shown)} more characters)"


def test_out_of_steps_it_answers_and_says_so(engine: GuidedEngine) -> None:
    @tool
    def add_days(date: str, days: int) -> str:
        """Find the date a number of days after (or, with a minus, before) a date."""
        return "2026-12-30"

    @tool
    def weekday(date: str) -> str:
        """Tell the day of the week of a date."""
        return "Wednesday"

    question = "What day of the week is 5 days after 2026-12-25?"
    result = ask(engine, add_days, weekday, question=question, max_steps=1)
    assert [step.tool for step in result.steps] == ["add_days"]
    assert result.answer.endswith(" (The agent ran out of steps after 1; it was not done.)")
    assert len(result.answer) > 60
    assert "steps" not in ask(engine, add_days, weekday, question=question, max_steps=2).answer


def test_a_question_longer_than_the_window(engine: GuidedEngine) -> None:
    with pytest.raises(PromptTooLongError) as refused:
        ask(engine, look_up(str), question="why " * 5000)
    assert refused.value.details["tokens"] > refused.value.details["limit"] > 1000


def test_the_input_fits_the_schema(engine: GuidedEngine) -> None:
    given = []

    @tool
    def order(item: str, count: int, size: str = "small", urgent: bool = False) -> str:
        """Order an item."""
        given.append((item, count, size, urgent))
        return "ordered"

    result = ask(engine, order, question="order item AB12, count 3")
    assert given and result.steps[0].error is None
    assert given[0][:2] == ("AB12", 3)


def test_another_tool_of_the_same_name_has_its_own_schema(engine: GuidedEngine) -> None:
    def inputs(kind: Any) -> list[dict[str, Any]]:
        @tool
        def stock(item: kind) -> str:
            """Look up how many there are of an item."""
            return "7"

        return [step.input for step in ask(engine, stock, question="How many are there of item AB12?").steps]

    number, text, letter = inputs(int), inputs(str), inputs(Literal["A", "B"])
    assert number and all(type(given["item"]) is int for given in number)
    assert text and all(type(given["item"]) is str for given in text)
    assert letter and all(given["item"] in ("A", "B") for given in letter)


def test_an_argument_that_is_injected_is_not_asked_for() -> None:
    @tool
    def save(item: str, owner: Annotated[str, InjectedToolArg] = "lab") -> str:
        """Save an item."""
        return item

    schema = arguments_schema(save)
    assert list(schema["properties"]) == ["item"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    "written", ['{"item": "S-10', "", '{"n": 1e999}', '{"item": "\\ud83d"}', '{"n": ' + "9" * 5000 + "}"]
)
def test_an_input_that_cannot_be_used(written: str) -> None:
    with pytest.raises(InputError):
        read_input(written)


def test_a_tool_rejects_what_does_not_fit() -> None:
    @tool
    def halve(number: int) -> str:
        """Halve a number."""
        return str(number / 2)

    with pytest.raises(ToolFailedError, match=r"number: Input should be a valid integer.*\.$") as failed:
        call_tool(halve, {"number": "many"}, 10)
    assert "pydantic" not in str(failed.value)


TEXTS = st.text(max_size=200) | st.text(st.sampled_from(list('<|eos|>{}"\\\n#GAnswer: ')), max_size=80)
RESULTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25)
@given(question=TEXTS.filter(lambda text: text.encode("utf-8", "ignore").decode() == text), result=RESULTS)
def test_any_question_and_any_result_end_in_an_answer(engine: GuidedEngine, question: str, result: Any) -> None:
    answered = ask(engine, look_up(lambda item: result), question=question, max_steps=2, tool_seconds=30)
    shown = {"answer": answered.answer, "steps": [vars(step) for step in answered.steps], "usage": answered.usage}
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    json.dumps(shown, ensure_ascii=False).encode()
    assert "<|eos|>" not in answered.answer or "<|eos|>" in question + str(result)
