"""Anthropic's Messages API: by Anthropic's own client and LangChain's, and by requests that these do not make."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
import requests
from anthropic import Anthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from server.agent import prompts
from tests.support.server_process import Server

QUESTION: Any = [{"role": "user", "content": "What is 37 * 52?"}]
CALCULATOR: Any = {
    "name": "calculator",
    "description": "Work out an arithmetic expression.",
    "input_schema": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
}
WEEKDAY: Any = {
    "name": "weekday",
    "description": "Tell the day of the week of a date.",
    "input_schema": {
        "type": "object",
        "properties": {"date": {"type": "string", "maxLength": 30}},
        "required": ["date"],
        "additionalProperties": False,
    },
}
GREEDY: Any = {"temperature": 0}
PATH = "/v1/messages"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key=server.token, max_retries=0, timeout=60) as client:
        yield client


def ask(client: Anthropic, messages: Any = QUESTION, **wanted: Any) -> Any:
    return client.messages.create(
        **{"model": "hearth", "messages": messages, "max_tokens": 200, "extra_body": GREEDY, **wanted}
    )


def talk(text: str) -> dict[str, Any]:
    """What the embedded model is trained to answer shortly."""
    system, user = prompts.conversation(prompts.CHAT, text)
    return {"system": system["content"], "messages": [user]}


def test_text(client: Anthropic) -> None:
    answer = ask(client, **talk("hello"))
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == (
        *("message", "assistant", "embedded", "end_turn"),
    )
    [block] = answer.content
    assert block.type == "text" and block.text and answer.stop_sequence is None
    assert answer.usage.output_tokens > 0 and answer.usage.output_tokens_details.thinking_tokens == 0
    assert answer.x_hearth["run_id"] == answer.id.removeprefix("msg_") and answer._request_id
    # The system prompt may be blocks as well, and so may a message.
    parts = talk("hello")
    said: Any = [
        {"role": "user", "content": [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]}
    ]
    system: Any = [{"type": "text", "text": parts["system"], "cache_control": {"type": "ephemeral"}}]
    again = ask(
        client, said, system=system, metadata={"user_id": "ann"}, service_tier="auto", thinking={"type": "disabled"}
    )
    assert again.content[0].text == block.text
    assert again.usage.input_tokens + again.usage.cache_read_input_tokens == (
        answer.usage.input_tokens + answer.usage.cache_read_input_tokens
    )


def test_a_stream_is_the_same_message(client: Anthropic) -> None:
    wanted: Any = {"model": "hearth", "max_tokens": 200, "extra_body": GREEDY, **talk("hello")}
    whole: Any = client.messages.create(**wanted)
    with client.messages.stream(**wanted) as stream:
        text = "".join(stream.text_stream)
        message: Any = stream.get_final_message()
    assert text == message.content[0].text == whole.content[0].text
    assert (message.stop_reason, message.model) == (whole.stop_reason, whole.model)
    assert message.usage.output_tokens == whole.usage.output_tokens


def events_of(server: Server, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    answer = server.session.post(PATH, json={"model": "hearth", "max_tokens": 200, "stream": True, **GREEDY, **body})
    assert answer.headers["Content-Type"] == "text/event-stream", answer.text
    lines = [line for line in answer.text.splitlines() if line]
    kinds = [line.removeprefix("event: ") for line in lines[::2]]
    return list(zip(kinds, [json.loads(line.removeprefix("data: ")) for line in lines[1::2]], strict=True))


def test_the_events_of_a_stream(server: Server) -> None:
    events = events_of(server, **talk("hello"))
    assert all(kind == data["type"] for kind, data in events)
    kinds = [kind for kind, _ in events]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    start, end = events[0][1]["message"], events[-2][1]
    assert (start["content"], start["stop_reason"]) == ([], None)
    assert start["usage"]["input_tokens"] + start["usage"]["cache_read_input_tokens"] > 0
    assert end["delta"] == {"stop_reason": "end_turn", "stop_sequence": None} and end["x_hearth"]["run_id"]


@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_is_called_and_its_result_becomes_the_answer(client: Anthropic, streams: bool) -> None:
    def send(messages: Any) -> Any:
        wanted: Any = {"model": "hearth", "max_tokens": 200, "tools": [CALCULATOR, WEEKDAY], "extra_body": GREEDY}
        if not streams:
            return client.messages.create(messages=messages, **wanted)
        with client.messages.stream(messages=messages, **wanted) as stream:
            return stream.get_final_message()

    first = send(QUESTION)
    assert first.stop_reason == "tool_use"
    thought, call = first.content
    assert thought.type == "thinking" and thought.thinking and thought.signature
    assert (call.type, call.name, call.input) == ("tool_use", "calculator", {"expression": "37 * 52"})
    assert call.id.startswith("toolu_") and first.usage.output_tokens_details.thinking_tokens > 0
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "1924"}
    second = send([*QUESTION, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}])
    assert second.stop_reason == "end_turn" and "1924" in second.content[-1].text


def test_the_events_of_a_call(server: Server) -> None:
    events = events_of(server, messages=QUESTION, tools=[CALCULATOR])
    started = [data["content_block"] for kind, data in events if kind == "content_block_start"]
    assert [block["type"] for block in started] == ["thinking", "tool_use"] and started[1]["input"] == {}
    deltas = [data["delta"] for kind, data in events if kind == "content_block_delta"]
    assert [delta["type"] for delta in deltas] == ["thinking_delta", "signature_delta", "input_json_delta"]
    assert json.loads(deltas[2]["partial_json"]) == {"expression": "37 * 52"}
    assert [data["index"] for kind, data in events if kind == "content_block_stop"] == [0, 1]
    hidden = events_of(server, messages=QUESTION, tools=[CALCULATOR], thinking={"type": "disabled"})
    assert [d["content_block"]["type"] for k, d in hidden if k == "content_block_start"] == ["tool_use"]
    omitted = events_of(
        server, messages=QUESTION, tools=[CALCULATOR], thinking={"type": "adaptive", "display": "omitted"}
    )
    assert [d["delta"]["thinking"] for k, d in omitted if "thinking" in d.get("delta", {})] == [""]


def test_tool_choice(client: Anthropic) -> None:
    tools: Any = [CALCULATOR, WEEKDAY]
    named = ask(client, tools=tools, tool_choice={"type": "tool", "name": "weekday"})
    assert [block.name for block in named.content if block.type == "tool_use"] == ["weekday"]
    any_: Any = {"type": "any", "disable_parallel_tool_use": True}
    forced = ask(client, **talk("hello"), tools=tools, tool_choice=any_)
    assert forced.stop_reason == "tool_use"
    none = ask(client, tools=tools, tool_choice={"type": "none"})
    assert {block.type for block in none.content} == {"text"}


def test_limits_and_stop_sequences(client: Anthropic) -> None:
    whole = ask(client, **talk("hello"))
    text = whole.content[0].text
    cut = ask(client, **talk("hello"), max_tokens=2)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2) and text.startswith(cut.content[0].text)
    stop = text[len(text) // 2 :][:3]
    stopped = ask(client, **talk("hello"), stop_sequences=["~never~", stop])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", stop)
    assert stopped.content[0].text == text[: text.index(stop)]
    call = ask(client, tools=[CALCULATOR], tool_choice={"type": "any"}, max_tokens=4)
    assert call.stop_reason == "max_tokens" and isinstance(call.content[-1].input, dict)


def test_json_that_fits_a_schema(client: Anthropic) -> None:
    schema: Any = {
        "type": "object",
        "properties": {"number": {"type": "integer", "minimum": 0, "maximum": 99}, "frozen": {"type": "boolean"}},
        "required": ["number", "frozen"],
        "additionalProperties": False,
    }
    answer = ask(client, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert set(json.loads(answer.content[0].text)) == {"number", "frozen"}


def test_tokens_are_counted(client: Anthropic) -> None:
    for wanted in (talk("hello"), {"messages": QUESTION, "tools": [CALCULATOR]}):
        counted = client.messages.count_tokens(model="hearth", **wanted)
        usage = ask(client, **wanted).usage
        assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    long: Any = [{"role": "user", "content": "word " * 100_000}]
    assert client.messages.count_tokens(model="embedded", messages=long).input_tokens > 10_000
    with pytest.raises(anthropic.BadRequestError, match="makes its own prompts"):
        client.messages.count_tokens(model="hearth/react", messages=QUESTION)


def test_an_agent(server: Server, client: Anthropic) -> None:
    answer = ask(client, model="hearth/react", system="Be brief.", extra_body={})
    assert (answer.content[0].text, answer.model, answer.stop_reason) == ("1924", "hearth/react", "end_turn")
    assert [step["tool"] for step in answer.x_hearth["steps"]] == ["calculator"]
    record = server.session.get(f"/runs/{answer.x_hearth['run_id']}").json()
    assert record["history"] == [{"role": "system", "content": "Be brief."}]
    events = events_of(server, model="hearth/react", messages=QUESTION)
    steps = [data["x_hearth"]["step"] for kind, data in events if kind == "ping" and "x_hearth" in data]
    assert [step["tool"] for step in steps] == ["calculator"]
    assert "".join(data["delta"]["text"] for kind, data in events if kind == "content_block_delta") == "1924"
    for body, name in (
        ({"tools": [CALCULATOR]}, "tools"),
        ({"stop_sequences": ["x"]}, "stop_sequences"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "output_config"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=f"{name} is for the model itself"):
            ask(client, model="hearth/react", extra_body=body)


def test_an_agent_in_a_session(server: Server, client: Anthropic) -> None:
    for question in ("What is 37 * 52?", "What is 9 * 9?"):
        answer = ask(
            client,
            [{"role": "user", "content": question}],
            model="hearth/react",
            extra_body={"x_session_id": "through-anthropic"},
        )
        assert answer.x_session_id == "through-anthropic"
    messages = server.session.get("/sessions/through-anthropic").json()["messages"]
    assert [one["content"] for one in messages] == ["What is 37 * 52?", "1924", "What is 9 * 9?", "81"]


def test_langchain(server: Server) -> None:
    options: Any = {"model": "hearth", "api_key": server.token, "base_url": server.url}
    llm = ChatAnthropic(**options, max_tokens=200, max_retries=0, temperature=0, timeout=60)
    system, user = prompts.conversation(prompts.CHAT, "hello")
    said: Any = [("system", system["content"]), ("user", user["content"])]
    whole = llm.invoke(said)
    chunks = list(llm.stream(said))
    assert isinstance(whole.content, str) and "".join(str(one.text) for one in chunks) == whole.content
    assert whole.usage_metadata is not None and whole.usage_metadata["output_tokens"] > 0

    @tool
    def calculator(expression: str) -> str:
        """Work out an arithmetic expression."""
        return "1924"

    bound = llm.bind_tools([calculator])
    question = HumanMessage("What is 37 * 52?")
    called = bound.invoke([question])
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("calculator", {"expression": "37 * 52"})
    assert isinstance(called, AIMessage)
    result = ToolMessage(calculator.invoke(call["args"]), tool_call_id=call["id"])
    assert "1924" in str(bound.invoke([question, called, result]).text)


def test_the_key_is_a_credential_on_these_routes_only(server: Server) -> None:
    def send(path: str, **headers: str) -> requests.Response:
        body = {"model": "hearth", "messages": QUESTION}
        return requests.post(server.url + path, json=body, headers=headers, timeout=60)

    count = f"{PATH}/count_tokens"
    version = {"anthropic-version": "2023-06-01"}
    assert send(count, **version, **{"x-api-key": server.token}).status_code == 200
    assert send(count, **version, **{"x-api-key": server.token, "Host": "other.example"}).status_code == 200
    for headers in (
        {},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"x-api-key": server.token, "Authorization": "Bearer wrong"},
        {"x-api-key": server.token, "Authorization": "Basic eA=="},
    ):
        for path in (PATH, count):
            refused = send(path, **headers)
            error = refused.json()
            assert (refused.status_code, error["type"], error["error"]["type"]) == (
                *(401, "error", "authentication_error"),
            )
            assert error["request_id"] == refused.headers["request-id"] == refused.headers["X-Request-Id"]
    assert send("/v1/chat/completions", **{"x-api-key": server.token}).status_code == 401
    assert requests.get(f"{server.url}/runs", headers={"x-api-key": server.token}, timeout=60).status_code == 401
    assert server.token not in "\n".join(
        line for line in server.output.splitlines() if not line.startswith("Hearth is at ")
    )


def block(kind: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, **fields}]}]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "The"}]}, "does not continue it"),
        ({"messages": block("document", source={"type": "text", "data": "x"})}, "document"),
        (
            {"messages": block("tool_use", id="a", name="f", input={})},
            "role user can't have a block of the type tool_use",
        ),
        ({"messages": block("thinking", thinking="x")}, "thinking"),
        ({"messages": block("image", source={"type": "file", "file_id": "x"})}, "file"),
        ({"messages": block("image", source={"type": "base64", "media_type": "image/png", "data": "x"})}, "damaged"),
        (
            {
                "messages": block(
                    "tool_result",
                    tool_use_id="a",
                    content=[{"type": "image", "source": {"type": "url", "url": "data:,"}}],
                )
            },
            "can't have a picture",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}, "source"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "custom"),
        ({"tools": [{**CALCULATOR, "defer_loading": True}]}, "defer_loading"),
        ({"tools": [CALCULATOR, CALCULATOR]}, "same name"),
        ({"tools": [{"name": "f", "input_schema": {"$ref": "#/$defs/A"}}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "not among the tools"),
        ({"tools": [CALCULATOR], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"tools": [CALCULATOR], "tool_choice": {"type": "tool", "name": "other"}}, "not among the tools"),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
        ({"container": "x"}, "container"),
        ({"context_management": {"edits": []}}, "context_management"),
        ({"temperature": 3}, "temperature"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"x_session_id": "s"}, "x_session_id"),
    ],
)
def test_what_is_refused(server: Server, changed: dict[str, Any], message: str) -> None:
    body = {"model": "hearth", "messages": QUESTION, "max_tokens": 10, **changed}
    answer = server.session.post(PATH, json={name: value for name, value in body.items() if value is not None})
    error = answer.json()
    assert (answer.status_code, error["type"], error["error"]["type"]) == (400, "error", "invalid_request_error")
    assert message in error["error"]["message"], error


def test_errors_of_the_client(server: Server, client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="no model 'claude'"):
        ask(client, model="claude")
    with pytest.raises(anthropic.NotFoundError, match="no agent 'none'"):
        ask(client, model="hearth/none")
    with pytest.raises(anthropic.BadRequestError, match="tokens long"):
        ask(client, [{"role": "user", "content": "word " * 100_000}])
    with Anthropic(base_url=server.url, api_key="wrong", max_retries=0) as other:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            ask(other)
        assert refused.value.request_id
    assert server.session.post(PATH, data=b"{").json()["error"]["type"] == "invalid_request_error"
    missing = server.session.get(PATH)
    assert (missing.status_code, missing.json()["error"]["type"]) == (405, "invalid_request_error")
    # A run that fails after its first event ends its stream with an error.
    stream = client.messages.create(
        **{"model": "hearth", "messages": QUESTION, "max_tokens": 400, "stream": True, "extra_body": GREEDY},
        output_config={"format": {"type": "json_schema", "schema": {"type": "string", "minLength": 3000}}},
    )
    run_id = next(iter(stream)).message.id.removeprefix("msg_")
    assert server.session.delete(f"/runs/{run_id}").status_code == 200
    with pytest.raises(anthropic.APIStatusError, match="cancelled"):
        list(stream)


def test_messages_as_clients_send_them(client: Anthropic) -> None:
    """Several of one person in a row, results beside a text, an error, thoughts without text, a system message."""
    call: Any = {"type": "tool_use", "id": "toolu_1", "name": "calculator", "input": {"expression": "37 * 52"}}
    messages: Any = [
        {"role": "user", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "37 * 52?"}]},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": ""}, call]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True},
                {"type": "text", "text": "Try again."},
            ],
        },
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 9 * 9?"},
    ]
    assert ask(client, messages, tools=[CALCULATOR]).stop_reason in ("end_turn", "tool_use", "max_tokens")
    assert ask(client, [{"role": "user", "content": []}], max_tokens=5).content
