"""Responses that are saved: continued, referred to, shown, listed, deleted."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.support.server_process import Server

FUNCTION: Any = {
    "type": "function",
    "name": "calculator",
    "description": "Work out an arithmetic expression.",
    "parameters": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
}
WANTED: Any = {"model": "hearth", "temperature": 0, "tools": [FUNCTION]}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=60) as client:
        yield client


def test_a_response_is_continued(client: OpenAI) -> None:
    first: Any = client.responses.create(input="What is 37 * 52?", **WANTED)
    assert first.store is True
    call = next(item for item in first.output if item.type == "function_call")
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "1924"}]
    second: Any = client.responses.create(input=result, previous_response_id=first.id, **WANTED)
    assert (second.output_text, second.previous_response_id) == ("1924", first.id)
    said = [item.model_dump(exclude_none=True) for item in first.output]
    question: Any = {"role": "user", "content": "What is 37 * 52?"}
    whole: Any = client.responses.create(input=[question, *said, *result], **WANTED)
    assert whole.usage.input_tokens == second.usage.input_tokens
    third: Any = client.responses.create(input="hello", previous_response_id=second.id, **WANTED)
    assert third.usage.input_tokens > second.usage.input_tokens

    assert client.responses.retrieve(second.id) == second
    listed = client.responses.input_items.list(first.id).data
    assert [(item.type, item.content[0].text) for item in listed] == [("message", "What is 37 * 52?")]  # type: ignore[union-attr,index]
    [output] = client.responses.input_items.list(second.id).data
    assert output.type == "function_call_output"


def test_references_to_items(client: OpenAI) -> None:
    first: Any = client.responses.create(input="What is 37 * 52?", **WANTED)
    [asked] = client.responses.input_items.list(first.id).data
    call = next(item for item in first.output if item.type == "function_call")
    ids = [asked.id, *(item.id for item in first.output)]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "1924"}
    items: Any = [*({"type": "item_reference", "id": one} for one in ids), result]
    second: Any = client.responses.create(input=items, **WANTED)
    assert second.output_text == "1924"
    # They are items of this response, too.
    third: Any = client.responses.create(input="hello", previous_response_id=second.id, **WANTED)
    assert third.usage.input_tokens > second.usage.input_tokens
    missing: Any = [{"type": "item_reference", "id": "msg_none"}]
    with pytest.raises(openai.NotFoundError, match="msg_none"):
        client.responses.create(input=missing, **WANTED)


def test_a_stream_is_saved_before_its_end(client: OpenAI) -> None:
    events: list[Any] = list(client.responses.create(input="hello", model="hearth", temperature=0, stream=True))
    last = events[-1].response
    assert client.responses.retrieve(last.id).output_text == last.output_text != ""


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_to_be_stored(client: OpenAI, stream: bool) -> None:
    made: Any = client.responses.create(
        model="hearth", input="hello", max_output_tokens=3, store=False, stream=stream
    )
    response = list(made)[-1].response if stream else made
    assert response.store is False
    uses: list[Callable[[], Any]] = [
        lambda: client.responses.retrieve(response.id),
        lambda: client.responses.input_items.list(response.id),
        lambda: client.responses.create(model="hearth", input="x", previous_response_id=response.id),
    ]
    for use in uses:
        with pytest.raises(openai.NotFoundError) as refused:
            use()
        assert refused.value.code == "response_not_found"


def test_a_list_in_parts(server: Server, client: OpenAI) -> None:
    items: Any = [{"role": "user", "content": f"note {number}"} for number in range(7)]
    made = client.responses.create(model="hearth", input=items, max_output_tokens=2)
    texts = [item.content[0].text for item in client.responses.input_items.list(made.id, limit=3, order="asc")]  # type: ignore[union-attr,index]
    assert texts == [f"note {number}" for number in range(7)]
    path = f"/v1/responses/{made.id}/input_items"
    page = server.session.get(path, params={"limit": "2"}).json()
    assert [one["content"][0]["text"] for one in page["data"]] == ["note 6", "note 5"]
    assert page["has_more"] is True and page["last_id"] == page["data"][-1]["id"]
    rest = server.session.get(path, params={"limit": "100", "after": page["last_id"]}).json()
    assert (len(rest["data"]), rest["has_more"]) == (5, False)
    assert server.session.get(path, params={"limit": "0"}).status_code == 400


def test_an_agent_knows_what_was_said(server: Server, client: OpenAI) -> None:
    first = client.responses.create(model="hearth/react", input="What is 37 * 52?")
    second: Any = client.responses.create(model="hearth/react", input="hello", previous_response_id=first.id)
    record = server.session.get(f"/runs/{second.id.removeprefix('resp_')}").json()
    said = [(one["role"], one["content"]) for one in record["history"]]
    assert said == [("user", "What is 37 * 52?"), ("assistant", "1924")]


def test_a_deleted_response_is_gone(client: OpenAI) -> None:
    first = client.responses.create(model="hearth", input="hello", max_output_tokens=2)
    second = client.responses.create(
        model="hearth", input="hello", max_output_tokens=2, previous_response_id=first.id
    )
    client.responses.delete(first.id)
    uses: list[Callable[[], Any]] = [
        lambda: client.responses.retrieve(first.id),
        lambda: client.responses.delete(first.id),
        lambda: client.responses.create(model="hearth", input="x", previous_response_id=second.id),
    ]
    for use in uses:
        with pytest.raises(openai.NotFoundError, match=first.id):
            use()
    assert client.responses.retrieve(second.id).id == second.id
