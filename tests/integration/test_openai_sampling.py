"""Penalties, biases and truncation in OpenAI's API."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI
from transformers import AutoTokenizer

from tests.support.server_process import REPOSITORY, Server

TALK: Any = [{"role": "user", "content": "hello"}]
LETTER: Any = [
    {"role": "system", "content": "Answer the question."},
    {"role": "user", "content": "Write a letter about the sea"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(REPOSITORY / "server" / "embedded" / "weights", local_files_only=True)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=60) as client:
        yield client


def write(client: OpenAI, messages: Any = LETTER, **wanted: Any) -> str:
    extra = {name: wanted.pop(name) for name in ("top_k", "min_p", "repetition_penalty") if name in wanted}
    more = {"temperature": 0, "max_tokens": 60, **wanted}
    answer = client.chat.completions.create(model="hearth", messages=messages, extra_body=extra, **more)
    return answer.choices[0].message.content or ""


def test_penalties_lower_repetition(client: OpenAI, tokenizer: Any) -> None:
    def repeated(text: str) -> int:
        return sum(count - 1 for count in Counter(tokenizer.encode(text, add_special_tokens=False)).values())

    plain = write(client)
    assert write(client, presence_penalty=0, frequency_penalty=0, repetition_penalty=1) == plain
    for name in ("frequency_penalty", "repetition_penalty"):
        assert repeated(write(client, **{name: 2})) < repeated(plain)


@pytest.mark.parametrize(("presence", "frequency"), [(2, 0), (-2, 0), (0, 1.5), (0.7, 0.4)])
def test_the_penalties_are_openais(client: OpenAI, presence: float, frequency: float) -> None:
    """Taken off the logits: up to the first place where they change it, the text is the one that the
    log-probabilities of the text without them give."""
    changed = 0
    for messages in (TALK, LETTER, [{"role": "user", "content": "one two three one two"}]):
        wanted: Any = {"model": "hearth", "messages": messages, "temperature": 0, "max_tokens": 60}
        choice = client.chat.completions.create(**wanted, logprobs=True, top_logprobs=20).choices[0]
        assert choice.logprobs is not None
        expected, counts = "", Counter[str]()
        for one in choice.logprobs.content or ():
            penalised = {
                top.token: top.logprob - frequency * counts[top.token] - presence * (counts[top.token] > 0)
                for top in one.top_logprobs
            }
            best = max(penalised, key=lambda token: penalised[token])
            if best.startswith("<|"):  # the end
                break
            expected += best
            if best != one.token:
                changed += 1
                break
            counts[best] += 1
        found = write(client, messages, presence_penalty=presence, frequency_penalty=frequency)
        assert found.startswith(expected)
    assert changed or presence > 0


def test_a_bias(server: Server, client: OpenAI, tokenizer: Any) -> None:
    first = write(client, TALK, max_tokens=1)
    [token] = tokenizer.encode(first, add_special_tokens=False)
    assert write(client, TALK, max_tokens=1, logit_bias={str(token): -100}) != first
    [other] = tokenizer.encode("z", add_special_tokens=False)
    assert write(client, TALK, max_tokens=4, logit_bias={str(other): 100}) == "zzzz"
    response = client.responses.create(
        model="hearth", input="hello", max_output_tokens=2, extra_body={"logit_bias": {str(other): 100}}
    )
    assert response.output_text == "zz"
    body = {"model": "hearth", "messages": TALK, "logit_bias": {"999999": 1}}
    refused = server.session.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400 and "999999" in refused.json()["error"]["message"]


def test_a_grammar_holds_whatever_the_bias(client: OpenAI, tokenizer: Any) -> None:
    [other] = tokenizer.encode("z", add_special_tokens=False)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["ab", "cd"]}}}
    assert write(client, response_format=form, logit_bias={str(other): 100}) in ('"ab"', '"cd"')


def test_top_k_and_min_p(client: OpenAI) -> None:
    greedy = write(client, max_tokens=20)
    hot: Any = {"temperature": 2, "max_tokens": 20}
    assert {write(client, **hot, seed=seed, top_k=1) for seed in range(3)} == {greedy}
    assert {write(client, **hot, seed=seed, min_p=1) for seed in range(3)} == {greedy}
    assert len({write(client, **hot, seed=seed, top_k=-1, min_p=0) for seed in range(3)}) == 3


def test_truncation(server: Server, client: OpenAI) -> None:
    exchanges: list[Any] = [{"role": "system", "content": "Be brief."}]
    for number in range(40):
        exchanges += [
            {"role": "user", "content": f"note {number}: " + "long " * 120},
            {"role": "assistant", "content": "ok"},
        ]
    question = {"role": "user", "content": "hello"}
    wanted: Any = {"model": "hearth", "input": [*exchanges, question], "temperature": 0, "max_output_tokens": 50}
    refused = server.session.post("/v1/responses", json=wanted)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    answer = client.responses.create(**wanted, truncation="auto")
    assert answer.output_text and answer.truncation == "auto"
    assert answer.usage is not None and 4096 - 50 - 300 < answer.usage.input_tokens <= 4096 - 50
    prompt = server.session.get(f"/runs/{answer.id.removeprefix('resp_')}/steps/1").json()["model_calls"][0]["prompt"]
    assert "Be brief." in prompt and "note 39:" in prompt and "note 0:" not in prompt
    # A question that is too long by itself is refused, and not cut.
    alone = {**wanted, "input": "very long " * 9000, "truncation": "auto"}
    assert server.session.post("/v1/responses", json=alone).json()["error"]["code"] == "context_length_exceeded"
    short = client.responses.create(model="hearth", input="hello", temperature=0, truncation="auto")
    assert short.output_text == client.responses.create(model="hearth", input="hello", temperature=0).output_text
