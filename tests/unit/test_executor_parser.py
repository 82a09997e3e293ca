"""What the agent's model has written, read."""

import json

import pytest
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.exceptions import OutputParserException

from server.jobs.executor import StructuredChatOutputParser, StructuredChatOutputParserWithRetries
from tests.support.scripted_model import ScriptedModel

parser = StructuredChatOutputParser()
ADD = {"action": "add", "action_input": {"a": 1}}
ANSWER = {"action": "Final Answer", "action_input": "It is 2."}


def fenced(value: object, language: str = "json") -> str:
    return f"Thought: so be it.\nAction:\n```{language}\n{json.dumps(value, indent=1)}\n```\nObservation: none"


@pytest.mark.parametrize(
    "text",
    [
        fenced(ADD),
        fenced(ADD, ""),
        fenced(ADD, "JSON"),
        fenced([ADD, {"action": "other", "action_input": {}}]),
        f"```{json.dumps(ADD)}```",
        f"```json\n{json.dumps(ADD)}",  # cut off
        f"First:\n```python\nprint(1)\n```\nthen\n{fenced(ADD)}",
        fenced(ADD) + fenced(ANSWER),
        json.dumps(ADD),
    ],
)
def test_an_action(text: str) -> None:
    found = parser.parse(text)
    assert isinstance(found, AgentAction)
    assert (found.tool, found.tool_input, found.log) == ("add", {"a": 1}, text)


@pytest.mark.parametrize("given", [{}, None])
def test_an_action_without_input(given: object) -> None:
    found = parser.parse(fenced({"action": "now"} if given == {} else {"action": "now", "action_input": None}))
    assert isinstance(found, AgentAction) and found.tool_input == {}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (fenced(ANSWER), "It is 2."),
        (fenced({"action": "Final Answer", "action_input": {"sum": 2}}), '{"sum": 2}'),
        (fenced({"action": "Final Answer", "action_input": "Run ```ls```"}), "Run ```ls```"),
        ('```json\n{"action": "Final Answer", "action_input": "two\nlines"}\n```', "two\nlines"),
        (" It is 2.\n", "It is 2."),
        ("So:\n```python\nprint(1)\n```\nThat's it.", "So:\n```python\nprint(1)\n```\nThat's it."),
        ("{not JSON}", "{not JSON}"),
        ('{"sum": 2}', '{"sum": 2}'),
    ],
)
def test_an_answer(text: str, answer: str) -> None:
    found = parser.parse(text)
    assert isinstance(found, AgentFinish)
    assert found.return_values == {"output": answer}


@pytest.mark.parametrize(
    "text",
    [
        "```json\nadd 1 and 1\n```",
        fenced([]),
        fenced({"tool": "add"}),
        fenced({"action": 3}),
        fenced({"action": "add", "action_input": [1]}),
        fenced("add"),
    ],
)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(OutputParserException) as raised:
        parser.parse(text)
    assert raised.value.observation and raised.value.llm_output == text


def test_a_model_repairs_it() -> None:
    model = ScriptedModel(replies=[fenced(ADD)])
    found = StructuredChatOutputParserWithRetries.from_llm(model).parse("```json\nadd 1\n```")
    assert isinstance(found, AgentAction) and found.tool == "add"
    assert "add 1" in model.last_texts[0] and "not JSON" in model.last_texts[0]


def test_it_is_repaired_a_limited_number_of_times() -> None:
    model = ScriptedModel(replies=[], else_say="```json\nworse\n```")
    with pytest.raises(OutputParserException, match="worse"):
        StructuredChatOutputParserWithRetries.from_llm(model, max_retries=3).parse("```json\nadd 1\n```")
    assert len(model.prompts) == 3


def test_nothing_is_repaired_that_can_be_read_or_without_a_model() -> None:
    model = ScriptedModel(replies=[])
    StructuredChatOutputParserWithRetries.from_llm(model).parse(fenced(ADD))
    assert model.prompts == []
    with pytest.raises(OutputParserException):
        StructuredChatOutputParserWithRetries().parse("```json\nadd 1\n```")
