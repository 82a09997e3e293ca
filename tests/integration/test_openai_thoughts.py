"""Thoughts, calls and histories in OpenAI's API, as clients read them and send them back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.support.server_process import Server

QUESTION: Any = [{"role": "user", "content": "What is 37 * 52?"}]
FUNCTION: Any = {
    "name": "calculator",
    "description": "Work out an arithmetic expression.",
    "parameters": {
        "type": "object",
        "properties": {"expression": {"type": "string", "maxLength": 20}},
        "required": ["expression"],
        "additionalProperties": False,
    },
}
TOOLS: Any = [{"type": "function", "function": FUNCTION}]
ARGUMENTS = {"expression": "37 * 52"}
STANDARD = {
    "response.created",
    "response.in_progress",
    "response.completed",
    "response.incomplete",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_text.delta",
    "response.output_text.done",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=60) as client:
        yield client


def test_a_thought_before_a_call_is_no_content(client: OpenAI) -> None:
    wanted: Any = {"model": "hearth", "messages": QUESTION, "tools": TOOLS, "temperature": 0}
    answer: Any = client.chat.completions.create(**wanted)
    message = answer.choices[0].message
    assert message.content is None and message.reasoning_content
    assert json.loads(message.tool_calls[0].function.arguments) == ARGUMENTS
    assert 0 < answer.usage.completion_tokens_details.reasoning_tokens < answer.usage.completion_tokens

    content = thought = ""
    for chunk in client.chat.completions.create(**wanted, stream=True):
        delta: Any = chunk.choices[0].delta
        content += delta.content or ""
        thought += getattr(delta, "reasoning_content", None) or ""
    assert (content, thought) == ("", message.reasoning_content)

    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "1924"}
    said = message.model_dump(exclude_none=True)
    assert said["reasoning_content"] == thought
    again: Any = client.chat.completions.create(**{**wanted, "messages": [*QUESTION, said, result]})
    assert again.choices[0].message.content == "1924"
    # The model reads what it wrote: all of it is in the KV cache.
    assert again.usage.prompt_tokens_details.cached_tokens >= answer.usage.total_tokens - 2


def test_a_thought_is_an_item_of_a_response(client: OpenAI) -> None:
    wanted: Any = {"model": "hearth", "tools": [{"type": "function", **FUNCTION}], "temperature": 0}
    first: Any = client.responses.create(input=QUESTION, **wanted)
    thought, call = first.output
    assert (thought.type, call.type) == ("reasoning", "function_call")
    assert thought.content[0].text and json.loads(call.arguments) == ARGUMENTS
    assert first.usage.output_tokens_details.reasoning_tokens > 0
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "1924"}
    said = [item.model_dump(exclude_none=True) for item in first.output]
    again: Any = client.responses.create(input=[*QUESTION, *said, result], **wanted)
    assert again.output_text == "1924"
    assert again.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens - 2

    with client.responses.stream(input=QUESTION, **wanted) as stream:
        events: list[Any] = list(stream)
        final: Any = stream.get_final_response()
    assert {event.type for event in events} <= STANDARD
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == thought.content[0].text
    assert [item.type for item in final.output] == ["reasoning", "function_call"]
    added = [event for event in events if event.type == "response.output_item.added"]
    assert [(event.output_index, event.item.type) for event in added] == [(0, "reasoning"), (1, "function_call")]


def test_an_agents_steps_ride_on_standard_events(server: Server, client: OpenAI) -> None:
    with client.responses.stream(model="hearth/react", input="What is 37 * 52?") as stream:
        events: list[Any] = list(stream)
        assert stream.get_final_response().output_text == "1924"
    assert {event.type for event in events} <= STANDARD
    steps = [event.model_extra["x_hearth"]["step"] for event in events if "x_hearth" in (event.model_extra or {})]
    assert [(step["tool"], step["observation"]) for step in steps] == [("calculator", "1924")]
    raw = server.session.post(
        "/v1/responses", json={"model": "hearth/react", "input": "What is 37 * 52?", "stream": True}
    )
    kinds = {line.removeprefix("event: ") for line in raw.text.splitlines() if line.startswith("event: ")}
    assert kinds <= STANDARD


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "calculator"}}])
def test_a_forced_call_keeps_its_tokens(client: OpenAI, choice: Any) -> None:
    wanted: Any = {"model": "hearth", "messages": QUESTION, "tools": TOOLS, "tool_choice": choice, "temperature": 0}
    answer: Any = client.chat.completions.create(**wanted, max_tokens=30)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(message.tool_calls[0].function.arguments) == ARGUMENTS
    assert not hasattr(message, "reasoning_content")

    cut: Any = client.chat.completions.create(**wanted, max_tokens=4)
    assert cut.choices[0].finish_reason == "length"
    [call] = cut.choices[0].message.tool_calls
    assert message.tool_calls[0].function.arguments.startswith(call.function.arguments)
    # What was cut off is history like everything else.
    said = [*QUESTION, cut.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "cut off"}]
    assert client.chat.completions.create(**{**wanted, "messages": said}, max_tokens=30).choices[0].message.tool_calls


def test_a_thought_that_is_cut_off_is_returned(client: OpenAI) -> None:
    wanted: Any = {"model": "hearth", "temperature": 0}
    whole: Any = client.chat.completions.create(messages=QUESTION, tools=TOOLS, **wanted)
    cut: Any = client.chat.completions.create(messages=QUESTION, tools=TOOLS, max_tokens=5, **wanted)
    message = cut.choices[0].message
    assert (cut.choices[0].finish_reason, message.content, message.tool_calls) == ("length", "", None)
    assert message.reasoning_content and whole.choices[0].message.reasoning_content.startswith(
        message.reasoning_content
    )
    tools: Any = [{"type": "function", **FUNCTION}]
    response: Any = client.responses.create(input=QUESTION, tools=tools, max_output_tokens=5, **wanted)
    [item] = response.output
    assert (response.status, item.type, item.status) == ("incomplete", "reasoning", "incomplete")
    assert item.content[0].text == message.reasoning_content


@pytest.mark.parametrize("arguments", ["", '{"expression": "37 *', "[", "[" * 100_000, r'{"a": "\ud800"}', "NaN"])
def test_arguments_of_a_history_are_text(client: OpenAI, arguments: str) -> None:
    call: Any = {"id": "call_1", "type": "function", "function": {"name": "calculator", "arguments": arguments}}
    messages: Any = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It was cut off."},
        *QUESTION,
    ]
    wanted: Any = {"model": "hearth", "temperature": 0}
    if len(arguments) > 1000:
        messages[1]["tool_calls"][0]["function"]["arguments"] = arguments[:500]
    answer = client.chat.completions.create(messages=messages, tools=TOOLS, max_tokens=20, **wanted)
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
    items: Any = [
        {"type": "function_call", "call_id": "call_1", "name": "calculator", "arguments": arguments[:500]},
        {"type": "function_call_output", "call_id": "call_1", "output": "It was cut off."},
        *QUESTION,
    ]
    assert client.responses.create(input=items, max_output_tokens=20, **wanted).status in ("completed", "incomplete")


def test_a_refusal_in_a_history_is_text(client: OpenAI) -> None:
    def tokens(refusal: Any) -> int:
        messages: Any = [{"role": "user", "content": "hello"}, {"role": "assistant", **refusal}, *QUESTION]
        answer = client.chat.completions.create(model="hearth", messages=messages, max_tokens=5)
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    wanted = tokens({"content": "I can't do that."})
    assert tokens({"content": [{"type": "refusal", "refusal": "I can't do that."}]}) == wanted
    assert tokens({"content": None, "refusal": "I can't do that."}) == wanted
    items: Any = [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, *QUESTION]
    assert client.responses.create(model="hearth", input=items, max_output_tokens=5).status


def test_an_agent_that_reaches_its_limit_answers_with_what_there_is(server: Server, client: OpenAI) -> None:
    wanted: Any = {"model": "hearth/react", "messages": QUESTION}
    whole: Any = client.chat.completions.create(**wanted)
    most = whole.usage.completion_tokens - 3
    cut: Any = client.chat.completions.create(**wanted, max_tokens=most)
    assert (cut.choices[0].finish_reason, cut.choices[0].message.content) == ("length", "")
    assert [step["tool"] for step in cut.x_hearth["steps"]] == ["calculator"]
    assert cut.x_hearth["error"]["type"] == "token_limit"
    assert cut.choices[0].message.reasoning_content and cut.usage.completion_tokens >= most
    record = server.session.get(f"/runs/{cut.x_hearth['run_id']}").json()
    assert (record["state"], record["error"]["type"]) == ("failed", "token_limit")

    for few in (1, most):
        chunks: list[Any] = list(client.chat.completions.create(**wanted, max_tokens=few, stream=True))
        finish = [one.choices[0].finish_reason for one in chunks if one.choices and one.choices[0].finish_reason]
        assert finish == ["length"]
    response: Any = client.responses.create(model="hearth/react", input=QUESTION, max_output_tokens=most)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    events = list(client.responses.create(model="hearth/react", input=QUESTION, max_output_tokens=most, stream=True))
    assert events[-1].type == "response.incomplete"
