"""What is Hearth's own about its OpenAI API: agents by the model's name, runs, and errors in OpenAI's shape."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI

from tests.support.server_process import REPOSITORY, Server, end, start

QUESTION: Any = [{"role": "user", "content": "What is 37 * 52?"}]
LONG: Any = {
    "model": "hearth",
    "messages": QUESTION,
    "temperature": 0,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "long", "schema": {"type": "string", "minLength": 3000}},
    },
}
"""Keeps the model busy for seconds."""


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with places for few. Shared by this file's tests."""
    server = start(
        tmp_path_factory.mktemp("openai") / "server", REPOSITORY, {"MAX_RUNS": 2, "MAX_CONCURRENT_RUNS": 1}
    )
    try:
        server.wait_until_ready()
        yield server
    finally:
        end(server)


def client_of(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def client(own_server: Server) -> Iterator[OpenAI]:
    with client_of(own_server) as client:
        yield client


def test_agents_are_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[:2] == ["embedded", "hearth"]
    assert {"hearth/react", "hearth/chat", "hearth/auto"} <= set(names)
    assert client.models.retrieve("hearth/react").owned_by == "hearth"


def test_an_agent_goes_on_with_a_session(own_server: Server, client: OpenAI) -> None:
    for question in ("What is 37 * 52?", "What is 9 * 9?"):
        answer = client.chat.completions.create(
            model="hearth/react",
            messages=[{"role": "user", "content": question}],
            extra_body={"x_session_id": "through-openai"},
        )
    assert answer.choices[0].message.content == "81"
    messages = own_server.session.get("/sessions/through-openai").json()["messages"]
    assert [message["content"] for message in messages] == ["What is 37 * 52?", "1924", "What is 9 * 9?", "81"]


def test_what_the_system_says_comes_before_a_sessions_turns(own_server: Server, client: OpenAI) -> None:
    brief: Any = {"role": "system", "content": "Be brief."}
    session = {"x_session_id": "system-message"}
    for question in ("What is 37 * 52?", "What is 9 * 9?"):
        asked: Any = [brief, {"role": "user", "content": question}]
        answer: Any = client.chat.completions.create(model="hearth/react", messages=asked, extra_body=session)
    record = own_server.session.get(f"/runs/{answer.x_hearth['run_id']}").json()
    said: Any = [{"role": "user", "content": "What is 37 * 52?"}, {"role": "assistant", "content": "1924"}]
    assert (record["answer"], record["history"]) == ("81", [brief, *said])
    # Whoever sends what was said as well would have it said twice.
    with pytest.raises(openai.BadRequestError, match="send the new message alone") as refused:
        client.chat.completions.create(model="hearth/react", messages=[*said, *QUESTION], extra_body=session)
    assert refused.value.param == "x_session_id"


def test_an_agent_answers_with_its_tools(own_server: Server, client: OpenAI) -> None:
    answer = client.chat.completions.create(model="hearth/react", messages=QUESTION)
    assert answer.choices[0].message.content == "1924"
    assert (answer.model, answer.choices[0].finish_reason) == ("hearth/react", "stop")
    trace: Any = answer.model_extra
    trace = trace["x_hearth"]
    assert [(step["tool"], step["observation"]) for step in trace["steps"]] == [("calculator", "1924")]
    record = own_server.session.get(f"/runs/{trace['run_id']}").json()
    assert (record["answer"], record["generation"], record["agent"]) == ("1924", trace["generation"], "react")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == trace["usage"]["completion_tokens"] + trace["usage"]["forced_tokens"]

    chunks: list[Any] = list(client.chat.completions.create(model="hearth/react", messages=QUESTION, stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "1924"
    extras = [one.model_extra["x_hearth"] for one in chunks if one.model_extra.get("x_hearth")]
    assert [extra["step"]["tool"] for extra in extras[:-1]] == ["calculator"]
    assert extras[-1]["generation"] == trace["generation"]

    assert client.responses.create(model="hearth/react", input="What is 37 * 52?").output_text == "1924"
    events: list[Any] = list(client.responses.create(model="hearth/react", input="What is 37 * 52?", stream=True))
    assert events[-1].response.output_text == "1924"
    steps = [event.x_hearth["step"] for event in events if "x_hearth" in (event.model_extra or {})]
    assert [step["tool"] for step in steps] == ["calculator"]
    completion = client.completions.create(model="hearth/react", prompt="What is 37 * 52?")
    assert completion.choices[0].text == "1924"


def test_earlier_messages_are_an_agents_history(own_server: Server, client: OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Hello."},
        *QUESTION,
    ]
    answer: Any = client.chat.completions.create(model="hearth/react", messages=messages)
    record = own_server.session.get(f"/runs/{answer.x_hearth['run_id']}").json()
    assert (record["question"], record["history"]) == ("What is 37 * 52?", messages[:3])
    alone: Any = client.chat.completions.create(model="hearth/react", messages=QUESTION)
    assert answer.x_hearth["usage"]["prompt_tokens"] > alone.x_hearth["usage"]["prompt_tokens"]


def test_an_agent_of_a_workspace(own_server: Server, client: OpenAI) -> None:
    brief = (
        "from dataclasses import asdict\nfrom server.sdk import usage\nfrom .agent import Agent, AgentResult\n\n\n"
        "class Brief(Agent):\n    name = 'brief'\n\n    def __call__(self, question, history=()):\n"
        "        with usage.measured() as used:\n            pass\n"
        "        return AgentResult(question.upper(), None, [], asdict(used), {'earlier': len(history)})\n"
    )
    assert own_server.session.put("/workspaces/alice/files/agent/brief.py", data=brief).status_code == 201
    wanted: Any = {"model": "hearth/brief", "messages": [{"role": "user", "content": "hello"}, *QUESTION]}
    answer: Any = client.chat.completions.create(**wanted, extra_body={"x_workspace": "alice"})
    assert answer.choices[0].message.content == "WHAT IS 37 * 52?"
    assert (answer.x_hearth["workspace"], answer.x_hearth["details"]) == ("alice", {"earlier": 1})
    assert "hearth/brief" in {one.id for one in client.models.list(extra_query={"x_workspace": "alice"})}
    with pytest.raises(openai.NotFoundError, match="brief") as refused:
        client.chat.completions.create(**wanted)
    assert refused.value.code == "model_not_found"


def test_an_agent_may_have_any_name_and_say_nothing(own_server: Server, client: OpenAI) -> None:
    silent = (
        "from .agent import Agent, AgentResult\n\n\nclass Silent(Agent):\n    name = 'completion'\n\n"
        "    def __call__(self, question):\n        return AgentResult('', None, [], {}, {})\n"
    )
    assert own_server.session.put("/workspaces/silent/files/agent/silent.py", data=silent).status_code == 201
    wanted: Any = {"model": "hearth/completion", "extra_body": {"x_workspace": "silent"}}
    answer: Any = client.chat.completions.create(messages=QUESTION, **wanted)
    assert (answer.model, answer.choices[0].message.content) == ("hearth/completion", "")
    events: list[Any] = list(client.responses.create(input="What is 37 * 52?", stream=True, **wanted))
    assert [event.type for event in events].count("response.output_item.added") == 1
    assert events[-1].response.output_text == ""


def test_what_failed_after_its_work_is_not_done_again(own_server: Server) -> None:
    failing = (
        "from .agent import Agent\n\n\nclass Failing(Agent):\n    name = 'failing'\n\n"
        "    def __call__(self, question):\n        raise ValueError('after all that')\n"
    )
    assert own_server.session.put("/workspaces/failing/files/agent/failing.py", data=failing).status_code == 201
    with OpenAI(base_url=f"{own_server.url}/v1", api_key=own_server.token) as client:
        assert client.max_retries == 2
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(
                model="hearth/failing", messages=QUESTION, extra_body={"x_workspace": "failing"}
            )
    assert len(own_server.session.get("/runs", params={"workspace": "failing"}).json()["runs"]) == 1


def test_a_completion_is_a_run(own_server: Server, client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "now", "description": "Tell the time."}}]
    answer: Any = client.chat.completions.create(
        model="embedded", messages=QUESTION, tools=tools, tool_choice="required"
    )
    record = own_server.session.get(f"/runs/{answer.x_hearth['run_id']}").json()
    assert (record["state"], record["agent"], record["question"]) == ("done", "completion", "What is 37 * 52?")
    assert record["generation"] is None
    [choice] = record["details"]["choices"]
    assert [call["name"] for call in choice["tool_calls"]] == ["now"]
    assert record["run_id"] in {one["run_id"] for one in own_server.session.get("/runs").json()["runs"]}
    replayed = own_server.session.post(f"/runs/{record['run_id']}/replay")
    assert (replayed.status_code, replayed.json()["error"]["type"]) == (404, "generation_not_found")


def test_a_client_that_leaves_a_full_queue_and_a_cancelled_stream(own_server: Server, client: OpenAI) -> None:
    with ExitStack() as held:
        first = held.enter_context(client.chat.completions.create(**LONG, stream=True))
        run_id = next(iter(first)).id.removeprefix("chatcmpl-")
        waiting = requests.post(
            f"{own_server.url}/run_script",
            headers={**own_server.session.headers, "Accept": "text/event-stream"},
            json={"question": "x"},
            stream=True,
            timeout=60,
        )
        held.callback(waiting.close)
        assert waiting.status_code == 200
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="hearth", messages=QUESTION)
        assert (refused.value.code, refused.value.type) == ("queue_full", "rate_limit_error")
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        waiting.close()
        first.close()
    own_server.wait_until(
        lambda: own_server.session.get(f"/runs/{run_id}").json()["state"] == "cancelled", "the run's end"
    )

    stream = client.chat.completions.create(**LONG, stream=True)
    run_id = next(iter(stream)).id.removeprefix("chatcmpl-")
    assert own_server.session.delete(f"/runs/{run_id}").status_code == 200
    with pytest.raises(openai.APIError) as stopped:
        list(stream)
    assert stopped.value.code == "run_cancelled"


def test_a_run_may_not_write_without_end(client: OpenAI) -> None:
    cut = client.chat.completions.create(**{**LONG, "max_tokens": 50})
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None and cut.usage.completion_tokens == 50


CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**more: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"model": "hearth", "messages": QUESTION, **more}


@pytest.mark.parametrize(
    ("asked", "param", "message"),
    [
        ((CHAT, {"messages": QUESTION}), "model", "required"),
        ((CHAT, {"model": "hearth", "messages": []}), "messages", "at least 1"),
        (
            (CHAT, {"model": "hearth", "messages": [{"role": "robot", "content": ""}]}),
            "messages[0].role",
            "assistant",
        ),
        (
            chat(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]),
            "messages[0].content[0]",
            "text",
        ),
        (chat(messages=[{"role": "user", "content": 5}]), "messages[0].content", "list"),
        (chat(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text", "required"),
        (
            chat(messages=[{"role": "user", "content": [{"type": "text", "text": 5}]}]),
            "messages[0].content[0].text",
            "",
        ),
        (chat(tools=[FUNCTION], tool_choice="must"), "tool_choice", ""),
        (
            chat(
                tools=[
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "parameters": {
                                "properties": {"x": {"$ref": "#/$defs/A"}},
                                "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}},
                            },
                        },
                    }
                ]
            ),
            "tools[0].function.parameters",
            "A -> B -> A",
        ),
        (chat(temperature=3), "temperature", "2"),
        (chat(top_p=-0.1), "top_p", "0"),
        (chat(n=0), "n", "1"),
        (chat(max_tokens=0), "max_tokens", "1"),
        (chat(seed=2**70), "seed", ""),
        (chat(stop=[""]), "stop[0]", "1"),
        (chat(stop=list("abcde")), "stop", "4"),
        (chat(top_logprobs=2), "top_logprobs", "logprobs"),
        (chat(logprobs=True, top_logprobs=21), "top_logprobs", "20"),
        (chat(model="hearth/react", logprobs=True), "logprobs", "for the model itself"),
        (chat(frequency_penalty=2.5), "frequency_penalty", "2"),
        (chat(presence_penalty=-3), "presence_penalty", "-2"),
        (chat(repetition_penalty=0), "repetition_penalty", "0"),
        (chat(top_k=-2), "top_k", "-1"),
        (chat(min_p=1.1), "min_p", "1"),
        (chat(logit_bias={"5": 101}), "logit_bias.5", "100"),
        (chat(logit_bias={"the": 1}), "logit_bias.the", "pattern"),
        ((RESPONSES, {"model": "hearth", "input": "x", "truncation": "some"}), "truncation", "auto"),
        ((RESPONSES, {"model": "hearth", "input": "x", "max_tool_calls": 0}), "max_tool_calls", "1"),
        (chat(modalities=["audio"]), "modalities", "does not support"),
        (chat(x_session_id="s"), "x_session_id", "an agent's"),
        (chat(temprature=1), "temprature", "not permitted"),
        (chat(tools=[{"type": "web_search"}]), "tools[0].type", "function"),
        (chat(tools=[{"type": "function", "function": {"name": "a b"}}]), "tools[0].function.name", "pattern"),
        (chat(tools=[FUNCTION, FUNCTION]), "tools", "same name"),
        (
            chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]),
            "tools[0].function.parameters",
            "object",
        ),
        (
            chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"properties": 3}}}]),
            "tools[0].function.parameters",
            "properties must be an object",
        ),
        (chat(tool_choice="required"), "tool_choice", "not among the tools"),
        (
            chat(tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "g"}}),
            "tool_choice",
            "not among the tools",
        ),
        (chat(response_format={"type": "json_schema"}), "response_format.json_schema", "needs"),
        (
            chat(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "wat"}}}),
            "response_format.json_schema.schema",
            "wat",
        ),
        (
            chat(
                response_format={
                    "type": "json_schema",
                    "json_schema": {"strict": True, "schema": {"type": "array", "uniqueItems": True}},
                }
            ),
            "response_format.json_schema.schema",
            "uniqueItems",
        ),
        (chat(model="hearth/react", tools=[FUNCTION]), "tools", "for the model itself"),
        (chat(model="hearth/react", n=2), "n", "for the model itself"),
        (chat(model="hearth/react", messages=[{"role": "assistant", "content": "x"}]), "messages", "last message"),
        ((COMPLETIONS, {"model": "hearth"}), "prompt", "required"),
        ((COMPLETIONS, {"model": "hearth", "prompt": []}), "prompt", "at least 1"),
        ((COMPLETIONS, {"model": "hearth", "prompt": [[]]}), "prompt[0]", "at least 1"),
        ((COMPLETIONS, {"model": "hearth", "prompt": [1, -2]}), "prompt[0]", "greater"),
        ((COMPLETIONS, {"model": "hearth", "prompt": [{}]}), "prompt[0]", "valid"),
        ((COMPLETIONS, {"model": "hearth", "prompt": "x", "logprobs": 21}), "logprobs", "20"),
        ((COMPLETIONS, {"model": "hearth/react", "prompt": [1, 2]}), "prompt", "reads a text"),
        ((COMPLETIONS, {"model": "hearth/react", "prompt": "x", "max_tokens": 0}), "max_tokens", "model itself"),
        ((COMPLETIONS, {"model": "hearth", "prompt": ["x"] * 100, "n": 2}), "n", "128"),
        ((COMPLETIONS, {"model": "hearth/react", "prompt": "x", "echo": True}), "echo", "for the model itself"),
        ((RESPONSES, {"model": "hearth", "input": []}), "input", "at least 1"),
        ((RESPONSES, {"model": "hearth", "input": [{"type": "web_search_call"}]}), "input[0].type", "message"),
        ((RESPONSES, {"model": "hearth", "input": [{"content": "x"}]}), "input[0].role", "role"),
        ((RESPONSES, {"model": "hearth", "input": [{"type": "function_call"}]}), "input[0]", "call_id"),
        ((RESPONSES, {"model": "hearth", "input": [{"type": "item_reference"}]}), "input[0].id", "needs the id"),
        ((RESPONSES, {"model": "hearth", "input": "x", "previous_response_id": 5}), "previous_response_id", "string"),
        (
            (RESPONSES, {"model": "hearth", "input": "x", "text": {"format": {"type": "json_schema"}}}),
            "text.format.schema",
            "",
        ),
    ],
)
def test_an_invalid_request(own_server: Server, asked: tuple[str, dict[str, Any]], param: str, message: str) -> None:
    answer = own_server.session.post(asked[0], json=asked[1])
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
    assert error["param"] == param
    assert message in error["message"]


def test_the_other_errors(own_server: Server, empty_server: Server) -> None:
    def refusal(answer: requests.Response) -> tuple[int, str, str, str | None]:
        error = answer.json()["error"]
        return answer.status_code, error["type"], error["code"], error["param"]

    ask = own_server.session
    path, body = chat()
    assert refusal(requests.post(own_server.url + path, json=body, timeout=60)) == (
        401,
        "authentication_error",
        "invalid_api_key",
        None,
    )
    invalid = "invalid_request_error"
    assert refusal(ask.post(path, data="{")) == (400, invalid, "malformed_json", None)
    assert refusal(ask.post(path, data="[]")) == (400, invalid, "invalid_request", None)
    assert refusal(ask.post("/v1/images", json={})) == (404, invalid, "not_found", None)
    assert refusal(ask.get(path)) == (405, invalid, "method_not_allowed", None)
    assert refusal(ask.get("/v1/models/gpt-17")) == (404, invalid, "model_not_found", "model")
    assert refusal(ask.post(path, json=chat(x_workspace="nobody")[1])) == (404, invalid, "workspace_not_found", None)
    too_long = chat(messages=[{"role": "user", "content": "very long " * 9000}])[1]
    for stream in (False, True):
        answer = ask.post(path, json={**too_long, "stream": stream})
        assert refusal(answer) == (400, invalid, "context_length_exceeded", None)
    assert refusal(ask.post(path, data=b" " * (2 * 1024 * 1024 + 1))) == (413, invalid, "too_large", None)
    assert refusal(empty_server.session.post(path, json=body)) == (409, invalid, "model_not_loaded", None)
    assert empty_server.session.get("/v1/models").json() == {"object": "list", "data": []}
    [model] = [one for one in ask.get("/v1/models").json()["data"] if one["id"] == "hearth"]
    assert (model["context_length"], model["max_model_len"]) == (4096, 4096)
    assert ask.get("/no/such/route").json()["error"]["type"] == "not_found"


def test_a_request_with_all_that_changes_nothing(own_server: Server) -> None:
    path, body = chat(
        user="u",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        logprobs=False,
        frequency_penalty=0,
        logit_bias={},
        parallel_tool_calls=None,
        tools=None,
        response_format={"type": "text"},
        stop=None,
        max_tokens=5,
        reasoning_effort="low",
    )
    answer = own_server.session.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.text)["object"] == "chat.completion"


def test_a_limit_of_the_servers_own_tools_leaves_the_clients_as_they_are(own_server: Server) -> None:
    """The AI SDK sends it as `maxToolCalls`."""
    arguments = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
    function = {"name": "calculator", "description": "Work out an arithmetic expression.", "parameters": arguments}
    tools = [{"type": "function", **function}]
    body: Any = {"model": "hearth", "input": "What is 37 * 52?", "tools": tools, "temperature": 0}
    answer = own_server.session.post(RESPONSES, json={**body, "max_tool_calls": 1}).json()
    [call] = [item for item in answer["output"] if item["type"] == "function_call"]
    assert (json.loads(call["arguments"]), answer["max_tool_calls"]) == ({"expression": "37 * 52"}, 1)
