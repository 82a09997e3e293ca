"""The form of an answer as vLLM's clients say it, tools of which only some are allowed, arguments of the template."""

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.support.hostile_schemas import HOSTILE
from tests.support.server_process import Server

QUESTION: Any = [{"role": "user", "content": "What is 37 * 52?"}]
SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["number"],
    "additionalProperties": False,
}
FORMS: list[tuple[str, Any, str]] = [
    ("json", SCHEMA, r'\{"number": \d{1,2}\}'),
    ("json", json.dumps(SCHEMA), r'\{"number": \d{1,2}\}'),
    ("regex", r"\w{2,9}@\w{2,9}\.com", r"\w{2,9}@\w{2,9}\.com"),
    ("choice", ["positive", "negative"], "positive|negative"),
    ("grammar", 'start: "SELECT " column\ncolumn: "a" | "b"', "SELECT [ab]"),
    ("grammar", 'root ::= "SELECT " column\ncolumn ::= "a" | "b"', "SELECT [ab]"),
]
"""vLLM's name of each form, the form, and a pattern for the answer."""
CHAIN = "\n".join([*(f"r{n}: r{n + 1}" for n in range(2640)), 'r2640: "a"', "start: r0"])
"""As deep as llguidance can just go on the stack of a thread."""
PATHS = ("/v1/chat/completions", "/v1/completions")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=60) as client:
        yield client


def body(path: str, **more: Any) -> dict[str, Any]:
    said = {"messages": QUESTION} if "chat" in path else {"prompt": "Once"}
    return {"model": "hearth", "temperature": 0, "max_tokens": 60, **said, **more}


@pytest.mark.parametrize(("kind", "form", "pattern"), FORMS)
def test_an_answer_has_its_form(client: OpenAI, kind: str, form: Any, pattern: str) -> None:
    wanted: Any = {"model": "hearth", "max_tokens": 60, "temperature": 0}
    for extra in ({"structured_outputs": {kind: form}}, {f"guided_{kind}": form}):
        chat = client.chat.completions.create(messages=QUESTION, extra_body=extra, **wanted)
        assert re.fullmatch(pattern, chat.choices[0].message.content or "")
        completion = client.completions.create(prompt=["Once", "Twice"], extra_body=extra, **wanted)
        assert all(re.fullmatch(pattern, one.text) for one in completion.choices)
    chunks = client.chat.completions.create(messages=QUESTION, extra_body=extra, stream=True, **wanted)
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == chat.choices[0].message.content


def test_any_object(client: OpenAI) -> None:
    extra: Any = {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}}
    answer = client.chat.completions.create(model="hearth", messages=QUESTION, max_tokens=5, extra_body=extra)
    assert (answer.choices[0].message.content or "").startswith("{")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("given", "param", "message"),
    [
        ({"structured_outputs": {}}, "structured_outputs", "needs one of"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "needs one of"),
        ({"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs.regex", "look-around"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "EOF"),
        ({"structured_outputs": {"json": {"type": "wat"}}}, "structured_outputs.json", "JSON schema"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "at least 1"),
        ({"structured_outputs": {"grammar": "start: missing"}}, "structured_outputs.grammar", "missing"),
        ({"structured_outputs": {"grammar": "root ::= x"}}, "structured_outputs.grammar", "GBNF"),
        ({"structured_outputs": {"grammar": "start: <|eos|>"}}, "structured_outputs.grammar", "eos"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag", "does not support"),
        ({"guided_regex": "["}, "guided_regex", "regular expression"),
        ({"guided_regex": "a" * 10_001}, "guided_regex", "10000"),
        ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern", "does not support"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_regex", "in guided_regex and in guided_choice"),
        ({"guided_regex": "a", "model": "hearth/react"}, "guided_regex", "for the model itself"),
    ],
)
def test_what_is_refused(server: Server, path: str, given: dict[str, Any], param: str, message: str) -> None:
    answer = server.session.post(path, json=body(path, **given))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), answer.text
    assert message in error["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given",
    [
        {"guided_json": HOSTILE["a billion items"]},
        {"guided_regex": "((a{1000}){1000}){1000}"},
        {"guided_regex": "(.*[a-f].{40}[0-9].{300}){100}"},
        {"guided_grammar": "start: /[a-z]{1000}/{1000000}"},
        {
            "guided_grammar": "\n".join(
                [*(f'r{n}: r{n + 1} r{n + 1} | "a"' for n in range(60)), 'r60: "a"', "start: r0"]
            )
        },
        {"guided_grammar": CHAIN},
        {"guided_choice": ["x" * 10_000 + str(number) for number in range(90)]},
    ],
    ids=["schema", "powers", "states", "repetitions", "doubling", "chain", "long texts"],
)
def test_a_hostile_form_costs_its_request_alone(server: Server, path: str, given: dict[str, Any]) -> None:
    answer = server.session.post(path, json=body(path, max_tokens=8, **given))
    if answer.status_code != 200:
        assert (answer.status_code, answer.json()["error"]["code"]) in (
            *((400, "grammar_too_complex"), (400, "invalid_request")),
        ), answer.text
    assert server.session.post("/run_script", json={"question": "What is 9 * 9?"}).json()["answer"] == "81"


def test_arguments_of_the_chat_template(server: Server, client: OpenAI) -> None:
    wanted: Any = {"model": "hearth", "messages": QUESTION, "max_tokens": 20, "temperature": 0}
    plain = client.chat.completions.create(**wanted)
    given: Any = {"chat_template_kwargs": {"enable_thinking": True, "unknown": {"a": [1]}}}
    assert client.chat.completions.create(**wanted, extra_body=given).choices[0].message == plain.choices[0].message
    for name in ("messages", "tools", "tokenize", "chat_template", "continue_final_message", "bos_token"):
        with pytest.raises(openai.BadRequestError, match=f"can't have {name}"):
            client.chat.completions.create(**wanted, extra_body={"chat_template_kwargs": {name: "x"}})
    with pytest.raises(openai.BadRequestError, match="chat_template_kwargs is for the model itself"):
        client.chat.completions.create(**{**wanted, "model": "hearth/react"}, extra_body=given)
    assert server.session.post(PATHS[1], json=body(PATHS[1], **given)).status_code == 200


def function(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"expression": {"type": "string", "maxLength": 20}}}
    return {"name": name, "description": f"Work out an arithmetic expression: {name}.", "parameters": parameters}


NAMES = ("calculator", "other", "third")


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_called(client: OpenAI, mode: str) -> None:
    tools: Any = [{"type": "function", "function": function(name)} for name in NAMES]
    some: Any = [{"type": "function", "function": {"name": name}} for name in NAMES[1:]]
    choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": some}}
    wanted: Any = {"model": "hearth", "temperature": 0}
    chat: Any = client.chat.completions.create(messages=QUESTION, tools=tools, tool_choice=choice, **wanted)
    calls = [call.function.name for call in chat.choices[0].message.tool_calls or ()]
    assert set(calls) <= set(NAMES[1:]) and (calls or mode == "auto")
    flat: Any = [{"type": "function", **function(name)} for name in NAMES]
    same: Any = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "third"}]}
    response: Any = client.responses.create(input=QUESTION, tools=flat, tool_choice=same, **wanted)
    named = [item.name for item in response.output if item.type == "function_call"]
    assert set(named) <= {"third"} and (named or mode == "auto")
    assert response.tool_choice.model_dump(exclude_none=True) == same
    # All are listed: what is allowed changes nothing of the prompt.
    free = client.chat.completions.create(messages=QUESTION, tools=tools, **wanted)
    assert free.usage is not None and free.usage.prompt_tokens == chat.usage.prompt_tokens


def test_an_allowed_tool_that_is_not_there(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": function("calculator")}]
    some: Any = [{"type": "function", "function": {"name": "nothing"}}]
    for mode, named, message in (
        ("auto", some, "'nothing'"),
        ("required", [], "not among"),
        ("any", [], "mode"),
    ):
        choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
        with pytest.raises(openai.BadRequestError, match=message) as refused:
            client.chat.completions.create(model="hearth", messages=QUESTION, tools=tools, tool_choice=choice)
        assert (refused.value.param or "").startswith("tool_choice")
