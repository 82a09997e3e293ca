"""What OpenAI's own client and LangChain's can do with a server of that API.

Against Hearth by default. With OPENAI_TEST_URL (like http://localhost:8000/v1) and OPENAI_TEST_MODEL, against any
other server that has the embedded weights: `python -m tests.support.openai_support` makes a table of both. The first
line of each test is a row of it.
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import openai
import pytest
from jsonschema import validate
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel, Field

from server.agent import prompts
from tests.support.server_process import Server

QUESTION: Any = [{"role": "user", "content": "What is 37 * 52?"}]
LETTER: Any = [
    # The embedded model says more than a word when it is spoken to as in its training.
    {"role": "system", "content": "Answer the question."},
    {"role": "user", "content": "Write a letter about the sea"},
]
# What the embedded model is trained to answer shortly, and in JSON.
TALK: Any = prompts.conversation(prompts.CHAT, "hello")
PLAN: Any = prompts.conversation(prompts.PLAN.format(tools=prompts.NO_TOOLS), "What is 37 * 52, and what is 9 * 9?")
ARGUMENTS = {
    "type": "object",
    "properties": {"expression": {"type": "string"}},
    "required": ["expression"],
    "additionalProperties": False,
}
CALCULATOR: Any = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Work out an arithmetic expression.",
        "parameters": ARGUMENTS,
    },
}
WEEKDAY: Any = {
    "type": "function",
    "function": {
        "name": "weekday",
        "description": "Tell the day of the week of a date.",
        "parameters": {
            "type": "object",
            "properties": {"date": {"type": "string", "maxLength": 30}, "language": {"enum": ["en", "de"]}},
            "required": ["date", "language"],
            "additionalProperties": False,
        },
    },
}


class Sample(BaseModel):
    """A sample in a freezer."""

    # Bounded, or a small model goes on writing.
    number: int = Field(ge=0, le=99)
    frozen: bool
    shelf: Annotated[str, Field(max_length=8)] | None


@pytest.fixture(scope="module")
def endpoint(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """URL, key and model."""
    if url := os.environ.get("OPENAI_TEST_URL"):
        return url, os.environ.get("OPENAI_TEST_KEY", "none"), os.environ["OPENAI_TEST_MODEL"]
    server: Server = request.getfixturevalue("server")
    return f"{server.url}/v1", server.token, "hearth"


@pytest.fixture(scope="module")
def client(endpoint: tuple[str, str, str]) -> Iterator[OpenAI]:
    url, key, _ = endpoint
    with OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def model(endpoint: tuple[str, str, str]) -> str:
    return endpoint[2]


@pytest.fixture(scope="module")
def llm(endpoint: tuple[str, str, str]) -> ChatOpenAI:
    url, key, model = endpoint
    return ChatOpenAI(
        base_url=url, api_key=key, model=model, max_retries=0, timeout=60, temperature=0, max_tokens=200
    )


@pytest.fixture
def ask(client: OpenAI, model: str) -> Callable[..., Any]:
    """Asks for the next message, greedily and not without end."""

    def ask(messages: Any = QUESTION, **wanted: Any) -> Any:
        return client.chat.completions.create(
            **{"model": model, "messages": messages, "temperature": 0, "max_tokens": 200, **wanted}
        )

    return ask


def test_models(client: OpenAI, model: str) -> None:
    """the list of models"""
    assert model in {one.id for one in client.models.list()}
    assert client.models.retrieve(model).id == model


def test_chat(ask: Callable[..., Any]) -> None:
    """chat, with usage"""
    answer = ask()
    [choice] = answer.choices
    assert choice.message.content and choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.prompt_tokens > 0 < usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_chat_stream(ask: Callable[..., Any]) -> None:
    """the same text as a stream, with usage"""
    chunks = list(ask(TALK, stream=True, stream_options={"include_usage": True}))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    whole = ask(TALK)
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_stop(ask: Callable[..., Any]) -> None:
    """`stop`"""
    whole = ask(LETTER).choices[0].message.content
    middle = whole[len(whole) // 2 - 2 : len(whole) // 2 + 3]
    cut = ask(LETTER, stop=["nowhere in it", middle]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (whole.partition(middle)[0], "stop")
    streamed = ask(LETTER, stop=[middle], stream=True)
    assert "".join(one.choices[0].delta.content or "" for one in streamed if one.choices) == cut.message.content


def test_max_tokens(ask: Callable[..., Any]) -> None:
    """`max_tokens`, `max_completion_tokens`"""
    whole = ask(LETTER).choices[0].message.content
    for name in ("max_tokens", "max_completion_tokens"):
        limits = {"max_tokens": openai.NOT_GIVEN, name: 3}
        cut = ask(LETTER, **limits)
        assert cut.choices[0].finish_reason == "length"
        assert cut.usage.completion_tokens == 3
        assert whole.startswith(cut.choices[0].message.content) and whole != cut.choices[0].message.content


def test_seed(ask: Callable[..., Any]) -> None:
    """`seed`, `temperature`, `top_p`"""

    def drawn(seed: int) -> str:
        text: str = ask(LETTER, temperature=1.9, top_p=0.99, seed=seed, max_tokens=30).choices[0].message.content
        return text

    assert drawn(7) == drawn(7)
    assert len({drawn(seed) for seed in range(4)}) > 1


def test_several(ask: Callable[..., Any]) -> None:
    """`n` answers at once"""
    answer = ask(LETTER, n=3, temperature=1.9, seed=7, max_tokens=30)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    texts = ["", "", ""]
    for chunk in ask(LETTER, n=3, temperature=1.9, seed=7, max_tokens=30, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]


def test_logprobs(ask: Callable[..., Any]) -> None:
    """`logprobs`"""
    choice = ask(logprobs=True, top_logprobs=2).choices[0]
    assert choice.logprobs is not None and len(choice.logprobs.content[0].top_logprobs) == 2


def test_json_object(ask: Callable[..., Any]) -> None:
    """`response_format`: a JSON object"""
    answer = ask(PLAN, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_json_schema(client: OpenAI, model: str) -> None:
    """`response_format`: JSON that fits a schema"""
    answer = client.chat.completions.parse(
        model=model, messages=QUESTION, response_format=Sample, temperature=0, max_tokens=200
    )
    sample = answer.choices[0].message.parsed
    assert isinstance(sample, Sample)
    with client.chat.completions.stream(
        model=model, messages=QUESTION, response_format=Sample, temperature=0, max_tokens=200
    ) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == sample


def calls_of(choice: Any) -> list[ChatCompletionMessageFunctionToolCall]:
    assert choice.finish_reason == "tool_calls"
    return list(choice.message.tool_calls)


def test_tools_by_choice(ask: Callable[..., Any]) -> None:
    """`tools`: the model calls the right one, with the right arguments"""
    [call] = calls_of(ask(tools=[WEEKDAY, CALCULATOR]).choices[0])
    assert (call.type, call.function.name) == ("function", "calculator")
    assert json.loads(call.function.arguments) == {"expression": "37 * 52"}


def test_tools_streamed(ask: Callable[..., Any]) -> None:
    """the same as a stream"""
    name = arguments = finish = ""
    for chunk in ask(tools=[WEEKDAY, CALCULATOR], stream=True):
        for choice in chunk.choices:
            finish += choice.finish_reason or ""
            for call in choice.delta.tool_calls or ():
                assert call.index == 0
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert (name, json.loads(arguments), finish) == ("calculator", {"expression": "37 * 52"}, "tool_calls")


def test_tools_required(ask: Callable[..., Any]) -> None:
    """`tool_choice`: a call is a must, and its arguments fit the schema"""
    # A small model that would rather not call may say a lot before it does.
    answer = ask(tools=[WEEKDAY], tool_choice="required", parallel_tool_calls=False, max_tokens=1500)
    for call in calls_of(answer.choices[0]):
        validate(json.loads(call.function.arguments), WEEKDAY["function"]["parameters"])


def test_tools_named(ask: Callable[..., Any]) -> None:
    """`tool_choice`: one function by its name"""
    named = {"type": "function", "function": {"name": "weekday"}}
    answer = ask(tools=[CALCULATOR, WEEKDAY], tool_choice=named)
    assert {call.function.name for call in answer.choices[0].message.tool_calls} == {"weekday"}


def test_tools_forbidden(ask: Callable[..., Any]) -> None:
    """`tool_choice`: none"""
    choice = ask(tools=[CALCULATOR], tool_choice="none").choices[0]
    assert choice.message.content and not choice.message.tool_calls


def test_result_of_a_tool(ask: Callable[..., Any]) -> None:
    """the result of a tool becomes the answer"""
    [call] = calls_of(ask(tools=[CALCULATOR, WEEKDAY]).choices[0])
    said = ask(tools=[CALCULATOR, WEEKDAY]).choices[0].message
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "1924"}
    answer = ask([*QUESTION, said, result], tools=[CALCULATOR, WEEKDAY])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("1924", "stop")
    assert call.id != said.tool_calls[0].id


def test_completions(client: OpenAI, model: str) -> None:
    """completions, also as a stream"""
    wanted: Any = {"model": model, "prompt": "The sea", "temperature": 0, "max_tokens": 20}
    whole = client.completions.create(**wanted)
    assert whole.choices[0].text and whole.usage is not None and 0 < whole.usage.completion_tokens <= 20
    streamed = client.completions.create(**wanted, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == whole.choices[0].text


def test_several_completions(client: OpenAI, model: str) -> None:
    """several prompts in one request"""
    prompts = ["The sea", "The moon"]
    answer = client.completions.create(model=model, prompt=prompts, temperature=0, max_tokens=10)
    alone = [client.completions.create(model=model, prompt=one, temperature=0, max_tokens=10) for one in prompts]
    assert [choice.text for choice in answer.choices] == [one.choices[0].text for one in alone]


def test_responses(client: OpenAI, model: str) -> None:
    """responses, with usage"""
    answer = client.responses.create(
        model=model, instructions="Be brief.", input="hello", temperature=0, max_output_tokens=100
    )
    assert answer.status == "completed" and answer.output_text
    assert answer.usage is not None and answer.usage.output_tokens > 0
    cut = client.responses.create(model=model, input=LETTER, temperature=0, max_output_tokens=3)
    assert cut.status == "incomplete" and cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_responses_stream(client: OpenAI, model: str) -> None:
    """responses as a stream"""
    events = list(client.responses.create(model=model, input="hello", temperature=0, stream=True))
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed" and last.response.output_text == text != ""


def test_responses_tools(client: OpenAI, model: str) -> None:
    """responses: a function is called, and its result becomes the answer"""
    wanted: Any = {
        "model": model,
        "temperature": 0,
        "tools": [{"type": "function", **one["function"]} for one in (CALCULATOR, WEEKDAY)],
    }
    first = client.responses.create(input=QUESTION, **wanted)
    [call] = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("calculator", {"expression": "37 * 52"})
    said: list[Any] = [item.model_dump(exclude_none=True) for item in first.output]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "1924"}
    assert client.responses.create(input=[*QUESTION, *said, result], **wanted).output_text == "1924"
    streamed = list(client.responses.create(input=QUESTION, stream=True, **wanted))
    [done] = [event for event in streamed if event.type == "response.function_call_arguments.done"]
    assert done.arguments == call.arguments


def test_responses_json_schema(client: OpenAI, model: str) -> None:
    """responses: JSON that fits a schema"""
    answer = client.responses.parse(
        model=model, input=QUESTION, text_format=Sample, temperature=0, max_output_tokens=200
    )
    assert isinstance(answer.output_parsed, Sample)


def test_unknown_model(client: OpenAI) -> None:
    """404 for a model that isn't there"""
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-17", messages=QUESTION)
    assert refused.value.code == "model_not_found"


def test_invalid_value(ask: Callable[..., Any]) -> None:
    """400 for an invalid value, naming it"""
    with pytest.raises(openai.BadRequestError) as refused:
        ask(temperature="warm")
    assert refused.value.param == "temperature"


def test_too_long(ask: Callable[..., Any]) -> None:
    """400 for a prompt that is longer than the model's window"""
    with pytest.raises(openai.BadRequestError) as refused:
        ask([{"role": "user", "content": "a very long story " * 3000}])
    assert refused.value.code == "context_length_exceeded"


def test_langchain_text(llm: ChatOpenAI) -> None:
    """LangChain's ChatOpenAI: text, whole and as a stream"""
    whole = llm.invoke(LETTER)
    assert whole.text and whole.usage_metadata is not None and whole.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.text for chunk in llm.stream(LETTER)) == whole.text


def test_langchain_structured_output(llm: ChatOpenAI) -> None:
    """LangChain's `with_structured_output`, by JSON schema and by a function"""
    for method in ("json_schema", "function_calling"):
        assert isinstance(llm.with_structured_output(Sample, method=method).invoke("sample 7, frozen"), Sample)


def test_langchain_agent(llm: ChatOpenAI) -> None:
    """LangChain's tool-calling agent gives the right answer"""
    asked = []

    @tool
    def calculator(expression: str) -> str:
        """Work out an arithmetic expression."""
        asked.append(expression)
        left, right = expression.split("*")
        return str(int(left) * int(right))

    agent = create_agent(llm, tools=[calculator])
    answered = agent.invoke({"messages": QUESTION})["messages"]
    assert (asked, answered[-1].text) == (["37 * 52"], "1924")
