"""The shipped tools, called as an agent calls them."""

import datetime
import math
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, ToolException
from pydantic import Field

from server.tools import load_tools


class ScriptedChatModel(BaseChatModel):
    """A chat model that returns the replies that the test gave it, and keeps a history of the requests."""

    replies: list[str] = Field(default_factory=list)
    asked: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.asked.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.replies.pop(0)))])


LLM = ScriptedChatModel()
TOOLS = load_tools(LLM)


def use(name: str, **arguments: Any) -> str:
    result = TOOLS[name].invoke(arguments)
    assert isinstance(result, str)
    return result


# What an agent sees of them


def test_names_descriptions_and_arguments_are_those_the_embedded_model_learned() -> None:
    seen = {name: (tool.description, {k: v["type"] for k, v in tool.args.items()}) for name, tool in TOOLS.items()}
    text = "string"
    assert seen == {
        "calculator": ("Work out an arithmetic expression.", {"expression": text}),
        "convert_units": (
            "Convert a value from one unit to another.",
            {"value": "number", "from_unit": text, "to_unit": text},
        ),
        "days_between": ("Count the days from one date to another.", {"start": text, "end": text}),
        "add_days": (
            "Find the date a number of days after (or, with a minus, before) a date.",
            {"date": text, "days": "integer"},
        ),
        "weekday": ("Tell the day of the week of a date.", {"date": text}),
        "text_statistics": ("Count the characters, words and sentences of a text.", {"text": text}),
        "sentiment": ("Tell whether the mood of a text is positive, negative or neutral.", {"text": text}),
    }


# calculator


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("37 * 52", "1924"),
        ("15 * 80 / 100", "12"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3", "0.3333333333"),
        ("7 // 2", "3"),
        ("-7 % 5", "3"),
        ("2 ** 16", "65536"),
        ("2 ^ 3 ^ 2", "512"),
        ("-2 ^ 2", "-4"),
        ("(12 + 30) * 7", "294"),
        ("2 \N{MULTIPLICATION SIGN} 3 \N{DIVISION SIGN} 4 \N{MINUS SIGN} 1", "0.5"),
        ("1,234 * 2", "2468"),
        ("1,234,567.5 + 1", "1234568.5"),
        ("max(1,234)", "234"),
        ("min(4, 2, 3) + abs(-5)", "7"),
        ("sqrt(1764)", "42"),
        ("round(2.567, 1)", "2.6"),
        ("round(7.6)", "8"),
        ("log(e)", "1"),
        ("log(1000, 10)", "3"),
        ("exp(0) + cos(0) + sin(0)", "2"),
        ("2 * pi", "6.283185307"),
        ("37 * 52 =", "1924"),
        ("10 ** 20", "1" + "0" * 20),
        ("123456789.25 * 2", "246913578.5"),
        ("2 ** -2", "0.25"),
        ("-0.0", "0"),
    ],
)
def test_calculator_works_out(expression: str, result: str) -> None:
    assert use("calculator", expression=expression) == result


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("1 / 0", "division by zero"),
        ("2 **", "not a complete"),
        ("", "not a complete"),
        ("15% of 80", "not a complete"),
        ("5!", "'!' has no meaning"),
        ("12,34 + 1", "only numbers"),
        ("0,123 + 1", "only numbers"),
        ("factorial(5)", "no function factorial, only sqrt"),
        ("x + 1", "x has no value"),
        ("sqrt(-1)", "math domain error"),
        ("(-8) ** 0.5", "no real number"),
        ("abs", "no real number"),
        ("True + 1", "no real number"),
        ("round(1, 2.5)", "cannot be interpreted"),
        ("().__class__", "only numbers"),
        ("__import__('os')", '"\'" has no meaning'),
        ("exp(1000)", "too large"),
        ("1e999", "too large"),
        ("-" * 450 + "sqrt" + "(" * 20, "not a complete"),
        ("-" * 499 + "1", "nested too deeply"),
        ("1" * 501, "501 characters"),
    ],
)
def test_calculator_says_what_is_wrong(expression: str, what: str) -> None:
    with pytest.raises(ToolException) as raised:
        use("calculator", expression=expression)
    assert what in str(raised.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "expression",
    [
        "2**10**9",
        "9**9**9",
        "9**9**9**9",
        "-9**-9**9",
        "(10**999)**999",
        "10**999 * 10**999",
        "round(5, -10**9)",
        "round(5.5, 10**9)",
        "factorial(10**9)",
        '"a"*10**9',
        "[0]*10**9",
        "1e308*10 - 1e308*10",
        "9" * 500,
        "9" * 10**7,
        "(" * 499,
        "-" * 499,
        "9**" * 160 + "9",
    ],
)
def test_calculator_refuses_what_would_hang_it(expression: str) -> None:
    try:
        assert len(use("calculator", expression=expression)) < 1100
    except ToolException:
        return


@pytest.mark.timeout(120)
@given(st.one_of(st.text(), st.text(alphabet="0123456789.+-*/%^(), esqrtoundmaxlgpibfc", max_size=60)))
def test_calculator_answers_or_refuses_any_text(expression: str) -> None:
    try:
        assert use("calculator", expression=expression)
    except ToolException as error:
        assert str(error)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_calculator_is_exact_with_whole_numbers(a: int, b: int) -> None:
    assert use("calculator", expression=f"{a} * {b} + {b}") == str(a * b + b)


# convert_units


@pytest.mark.parametrize(
    ("value", "source", "target", "result"),
    [
        (3, "miles", "km", "4.82803 km"),
        (20, "degC", "degF", "68 degF"),
        (72, "fahrenheit", "celsius", "22.2222 celsius"),
        (20, "degrees Celsius", "°F", "68 °F"),
        (20, "C", "F", "68 F"),
        (0, "kelvin", "Celsius", "-273.15 Celsius"),
        (5, "C", "mC", "5000 mC"),
        (2, "lbs", "kilos", "0.907185 kilos"),
        (1, "fluid ounces", "mL", "29.5735 mL"),
        (1, "nautical miles", "m", "1852 m"),
        (5, "Miles", "kms", "8.04672 kms"),
        (60, "mph", "km/h", "96.5606 km/h"),
        (60, "kmph", "m/s", "16.6667 m/s"),
        (1, "m²", "square feet", "10.7639 square feet"),
        (2, "s⁻¹", "1/min", "120 1/min"),
        (1, "cubic meters per hour", "L/min", "16.6667 L/min"),
        (250, "µg", "mg", "0.25 mg"),
        (12, "km", "mm", "12000000 mm"),
        (1.5e-9, "m", "km", "1.5e-12 km"),
        (-40, "°C", "°F", "-40 °F"),
    ],
)
def test_convert_units_converts(value: float, source: str, target: str, result: str) -> None:
    assert use("convert_units", value=value, from_unit=source, to_unit=target) == result


@pytest.mark.parametrize(
    ("value", "source", "target", "what"),
    [
        (1, "flurbs", "m", "'flurbs' is not a unit"),
        (1, "m", "flurbs", "'flurbs' is not a unit"),
        (1, "", "m", "'' is not a unit"),
        (1, "3 km", "m", "'3 km' is not a unit"),
        (1, "m" * 61, "m", "is not a unit"),
        (3, "kg", "m", "'kg' (read as kilogram) cannot be converted to 'm' (read as meter)"),
        (1e308, "km", "nm", "too large"),
    ],
)
def test_convert_units_names_what_is_wrong(value: float, source: str, target: str, what: str) -> None:
    with pytest.raises(ToolException) as raised:
        use("convert_units", value=value, from_unit=source, to_unit=target)
    assert what in str(raised.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["m**9**9**9", "9**9**9**9", "(m**99)**99", "m² ²² ²² ²²", "m" + "²" * 50])
def test_convert_units_refuses_powers_that_would_hang_it(unit: str) -> None:
    with pytest.raises(ToolException):
        use("convert_units", value=1, from_unit=unit, to_unit="m")


@pytest.mark.timeout(120)
@given(
    st.floats(),
    st.one_of(st.text(max_size=70), st.text(alphabet="mskgAKdegCF/*^()²³⁻ 0129.per", max_size=30)),
    st.sampled_from(["m", "degC", "kg/m**3", "dBm", "%"]),
)
def test_convert_units_answers_or_refuses_any_unit(value: float, source: str, target: str) -> None:
    try:
        assert use("convert_units", value=value, from_unit=source, to_unit=target).endswith(f" {target}")
    except ToolException as error:
        assert str(error)


@given(
    st.floats(-1e6, 1e6),
    st.sampled_from([("km", "miles"), ("degC", "degF"), ("kg", "lbs"), ("L", "gallons")]),
)
def test_convert_units_there_and_back(value: float, units: tuple[str, str]) -> None:
    there = use("convert_units", value=value, from_unit=units[0], to_unit=units[1])
    back = use("convert_units", value=float(there.split()[0]), from_unit=units[1], to_unit=units[0])
    assert math.isclose(float(back.split()[0]), value, rel_tol=1e-4, abs_tol=1e-3)


def test_convert_units_serves_many_threads_from_its_first_call_on(tmp_path: Path) -> None:
    module = import_module("server.tools.convert_units")
    module._build_registry.cache_clear()
    with ThreadPoolExecutor(16) as threads:
        results = threads.map(lambda value: use("convert_units", value=value, from_unit="km", to_unit="m"), range(64))
        assert list(results) == [f"{value * 1000} m" for value in range(64)]


# dates


@pytest.mark.parametrize(
    "date",
    ["2026-03-01", "2026-3-1", "1 March 2026", "March 1, 2026", "1st of March 2026", "the 1st of march 2026",
     "Mar 1 2026", "2026/03/01", "20260301", "2026-03-01T10:30:00Z", " 2026-03-01 "],
)  # fmt: skip
def test_dates_are_read_in_many_styles(date: str) -> None:
    assert use("add_days", date=date, days=0) == "2026-03-01"


@pytest.mark.parametrize("date", ["03/04/2026", "3.4.2026", "03-04-26", "26-03-01", "1/1/1"])
def test_an_ambiguous_date_is_refused_with_a_call_for_iso(date: str) -> None:
    with pytest.raises(ToolException, match="several dates; write it as YYYY-MM-DD"):
        use("weekday", date=date)


def test_a_date_in_numbers_that_can_only_be_one_is_read() -> None:
    assert use("add_days", date="25/12/2026", days=0) == "2026-12-25"
    assert use("add_days", date="04.04.2026", days=0) == "2026-04-04"


@pytest.mark.parametrize("date", ["", "soon", "2026-02-30", "29 February 2025", "99999999999", "1e5", "x" * 61])
def test_what_is_no_date_is_refused(date: str) -> None:
    with pytest.raises(ToolException, match=r"not a date|at most 60"):
        use("weekday", date=date)


@pytest.mark.parametrize("date", ["March", "3 March", "March 2026", "Friday", "2026", "10:30"])
def test_a_date_without_day_month_or_year_is_refused(date: str) -> None:
    with pytest.raises(ToolException, match="not a full date"):
        use("weekday", date=date)


def test_dates_may_be_relative_to_today() -> None:
    today = datetime.date.today()
    counted = use("days_between", start="yesterday", end="Tomorrow")
    named = use("add_days", date="today", days=0)
    assert counted == "2"
    assert named in {today.isoformat(), datetime.date.today().isoformat()}  # midnight may pass in between


def test_days_between_counts_both_ways() -> None:
    assert use("days_between", start="2026-03-01", end="2026-04-01") == "31"
    assert use("days_between", start="1 January 2025", end="2024-01-01") == "-366"


def test_add_days_goes_both_ways_and_stays_in_the_calendar() -> None:
    assert use("add_days", date="2026-12-20", days=5) == "2026-12-25"
    assert use("add_days", date="2026-01-02", days=-3) == "2025-12-30"
    for days in (10**7, -(10**7), 10**30):
        with pytest.raises(ToolException, match="outside the calendar"):
            use("add_days", date="2026-12-20", days=days)


@given(st.dates(min_value=datetime.date(1000, 1, 1)))
def test_weekday_agrees_with_the_calendar(date: datetime.date) -> None:
    assert use("weekday", date=date.isoformat()) == date.strftime("%A")
    assert use("weekday", date=f"{date.day} {date:%B} {date.year}") == date.strftime("%A")


@given(st.one_of(st.text(), st.text(alphabet="0123456789-/. :TZmarchfeb+", max_size=30)))
def test_any_text_is_a_date_or_refused(text: str) -> None:
    try:
        datetime.date.fromisoformat(use("add_days", date=text, days=0))
    except ToolException as error:
        assert str(error)


# text_statistics


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("hello world", "characters: 11, words: 2, sentences: 1"),
        ("", "characters: 0, words: 0, sentences: 0"),
        (" \n ", "characters: 3, words: 0, sentences: 0"),
        ("We ran it twice. It failed! Why?", "characters: 32, words: 7, sentences: 3"),
        ('She said "stop." Then she left.', "characters: 31, words: 6, sentences: 2"),
        ("It costs 3.5 euros at example.org.", "characters: 34, words: 6, sentences: 1"),
        ("Wait... what - no!", "characters: 18, words: 3, sentences: 2"),
        ("Größe zählt. Ça va? Да.", "characters: 23, words: 5, sentences: 3"),
        ("今日は。元気ですか\uff1fはい\uff01", "characters: 13, words: 1, sentences: 3"),
        ("नमस्ते। आप कैसे हैं?", "characters: 20, words: 4, sentences: 2"),
        ("e\u0301te\u0301", "characters: 5, words: 1, sentences: 1"),
    ],
)
def test_text_statistics_counts(text: str, result: str) -> None:
    assert use("text_statistics", text=text) == result


@given(st.text())
def test_text_statistics_counts_any_text(text: str) -> None:
    counts = [int(part.split(": ")[1]) for part in use("text_statistics", text=text).split(", ")]
    assert counts[0] == len(text)
    assert counts[0] >= counts[1] >= 0
    assert counts[0] >= counts[2] >= 0


# sentiment


@pytest.mark.parametrize(
    ("reply", "mood"),
    [
        ("positive", "positive"),
        (" Negative.", "negative"),
        ("It is NEUTRAL, not positive.", "neutral"),
    ],
)
def test_sentiment_is_the_first_mood_that_the_model_names(reply: str, mood: str) -> None:
    LLM.replies.append(reply)
    assert use("sentiment", text="What a {day}!") == mood
    (message,) = LLM.asked[-1]
    assert isinstance(message, HumanMessage)
    assert message.content == (
        "Is the mood of this text positive, negative or neutral? Answer with one word.\n\nWhat a {day}!"
    )


@pytest.mark.parametrize("reply", ["", "No idea.", "nonpositive", "good"])
def test_sentiment_says_when_the_model_names_none(reply: str) -> None:
    LLM.replies.append(reply)
    with pytest.raises(ToolException, match="replied"):
        use("sentiment", text="What a day!")


# load_tools, over a folder of the same kind


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with the real `__init__.py` and no tools yet."""
    package = tmp_path / "lab_tools"
    package.mkdir()
    real = Path(str(import_module("server.tools").__file__))
    (package / "__init__.py").write_bytes(real.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == "lab_tools"]:
        del sys.modules[name]


def write_tool(folder: Path, file: str, name: str) -> None:
    (folder / file).write_text(
        textwrap.dedent(f'''
            from langchain_core.tools import tool

            @tool
            def {name}(text: str) -> str:
                """Say it."""
                return text
        ''')
    )


def tools_of(folder: Path) -> dict[str, BaseTool]:
    return lab_tools().load_tools(LLM)  # type: ignore[no-any-return]


def lab_tools() -> ModuleType:
    return import_module("lab_tools")


def test_a_new_file_is_found_without_being_registered(folder: Path) -> None:
    write_tool(folder, "echo.py", "echo")
    (folder / "shared.py").write_text("GREETING = 'hello'")
    (folder / "greeting.py").write_text(
        textwrap.dedent('''
            from langchain_core.tools import tool
            from .echo import echo
            from .shared import GREETING

            def build_tool(llm):
                @tool
                def greet() -> str:
                    """Greet."""
                    return echo.invoke({"text": GREETING}) + llm._llm_type
                return greet
        ''')
    )
    tools = tools_of(folder)
    assert set(tools) == {"echo", "greet"}  # a tool that another file imports counts once
    assert tools["greet"].invoke({}) == "helloscripted"


def test_two_tools_of_one_name_are_an_error_that_names_both_files(folder: Path) -> None:
    write_tool(folder, "echo.py", "say")
    write_tool(folder, "speak.py", "say")
    with pytest.raises(lab_tools().DuplicateToolError) as raised:
        tools_of(folder)
    assert str(raised.value) == (
        "server/tools/echo.py and server/tools/speak.py both have a tool named 'say'; rename one of them"
    )


def test_build_tool_must_give_a_tool(folder: Path) -> None:
    (folder / "broken.py").write_text("def build_tool(llm):\n    return 'no tool'\n")
    with pytest.raises(TypeError, match=r"build_tool in server/tools/broken\.py must return a LangChain tool"):
        tools_of(folder)


def test_a_broken_file_fails_the_loading(folder: Path) -> None:
    write_tool(folder, "echo.py", "echo")
    (folder / "broken.py").write_text("import a_package_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        tools_of(folder)
