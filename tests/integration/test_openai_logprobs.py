"""Log-probabilities in OpenAI's API: the model's own, of texts and of prompts, as evaluation harnesses read them."""

import json
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import pytest
import torch
from openai import OpenAI
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.server_process import REPOSITORY, Server

WEIGHTS = REPOSITORY / "server" / "embedded" / "weights"
TALK: Any = [{"role": "user", "content": "hello"}]
TOLERANCE = 1e-3


class Embedded:
    """The embedded model, asked without the server."""

    def __init__(self) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(WEIGHTS, local_files_only=True)
        self._model: Any = AutoModelForCausalLM.from_pretrained(WEIGHTS, local_files_only=True, dtype=torch.float32)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def logprobs(self, ids: list[int]) -> torch.Tensor:
        """Row i: of the token after the first i + 1."""
        with torch.inference_mode():
            rows: torch.Tensor = self._model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        return rows


@pytest.fixture(scope="module")
def embedded() -> Embedded:
    return Embedded()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=60) as client:
        yield client


def check(embedded: Embedded, before: list[int], tokens: list[Any]) -> None:
    """Each token's log-probability and alternatives are the model's own after the tokens `before`."""
    ids = [embedded.encode(one.token)[0] for one in tokens]
    rows = embedded.logprobs([*before, *ids])[len(before) - 1 :]
    for row, token, one in zip(rows, ids, tokens, strict=False):
        assert one.logprob == pytest.approx(float(row[token]), abs=TOLERANCE)
        best = row.topk(len(one.top_logprobs)).values.tolist()
        assert [top.logprob for top in one.top_logprobs] == pytest.approx(best, abs=TOLERANCE)
        assert bytes(one.bytes).decode() == one.token


def test_a_chats_tokens(embedded: Embedded, client: OpenAI) -> None:
    wanted: Any = {"model": "hearth", "messages": TALK, "temperature": 0, "max_tokens": 40}
    choice = client.chat.completions.create(**wanted, logprobs=True, top_logprobs=3).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content
    tokens = choice.logprobs.content
    assert "".join(one.token for one in tokens) == choice.message.content
    assert {len(one.top_logprobs) for one in tokens} == {3}
    before = embedded.encode(embedded.tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True))
    check(embedded, before, tokens)

    streamed: list[Any] = []
    for chunk in client.chat.completions.create(**wanted, logprobs=True, top_logprobs=3, stream=True):
        if chunk.choices and chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.content or ()
    assert streamed == tokens
    alone = client.chat.completions.create(**wanted, logprobs=True).choices[0]
    assert alone.logprobs is not None and alone.logprobs.content
    assert [(one.token, one.top_logprobs) for one in alone.logprobs.content] == [(one.token, []) for one in tokens]
    assert client.chat.completions.create(**wanted).choices[0].logprobs is None


def test_they_are_of_the_content(client: OpenAI) -> None:
    """Of what `stop` cuts off there are none, nor of a thought."""
    wanted: Any = {"model": "hearth", "messages": TALK, "temperature": 0, "max_tokens": 40, "logprobs": True}
    whole = client.chat.completions.create(**wanted).choices[0]
    content = whole.message.content or ""
    cut = client.chat.completions.create(**wanted, stop=[content[5:8]]).choices[0]
    assert cut.message.content == content[:5] and cut.logprobs is not None and cut.logprobs.content
    text = "".join(one.token for one in cut.logprobs.content)
    assert text.startswith(content[:5]) and not text[: -len(cut.logprobs.content[-1].token)].startswith(content[:5])

    function = {"name": "now", "description": "Tell the time.", "parameters": {"type": "object"}}
    tools: Any = [{"type": "function", "function": function}]
    with_tools = client.chat.completions.create(**{**wanted, "max_tokens": 200}, tools=tools).choices[0]
    assert with_tools.logprobs is not None
    assert "".join(one.token for one in with_tools.logprobs.content or ()) == (with_tools.message.content or "")
    several = client.chat.completions.create(**{**wanted, "temperature": 1.5}, n=2, seed=3)
    for choice in several.choices:
        assert choice.logprobs is not None and choice.logprobs.content
        assert b"".join(bytes(one.bytes or ()) for one in choice.logprobs.content).decode() == choice.message.content


def test_a_responses_tokens(client: OpenAI) -> None:
    wanted: Any = {"model": "hearth", "input": "hello", "temperature": 0, "max_output_tokens": 40}
    include: Any = ["message.output_text.logprobs"]
    answer: Any = client.responses.create(**wanted, include=include, top_logprobs=2)
    [part] = answer.output[0].content
    chat = client.chat.completions.create(
        model="hearth", messages=TALK, temperature=0, max_tokens=40, logprobs=True, top_logprobs=2
    )
    assert chat.choices[0].logprobs is not None
    expected = [one.model_dump() for one in chat.choices[0].logprobs.content or ()]
    assert [one.model_dump() for one in part.logprobs] == expected
    events: list[Any] = list(client.responses.create(**wanted, include=include, top_logprobs=2, stream=True))
    [done] = [event for event in events if event.type == "response.output_text.done"]
    assert [one.token for one in done.logprobs] == [one["token"] for one in expected]
    plain: Any = client.responses.create(**wanted)
    assert plain.output[0].content[0].logprobs == []


def test_a_completions_tokens(embedded: Embedded, client: OpenAI) -> None:
    wanted: Any = {"model": "hearth", "prompt": embedded.encode("The sea is"), "temperature": 0, "max_tokens": 8}
    choice: Any = client.completions.create(**wanted, logprobs=2).choices[0]
    found = choice.logprobs
    ids = [embedded.encode(token)[0] for token in found.tokens]
    rows = embedded.logprobs([*wanted["prompt"], *ids])[len(wanted["prompt"]) - 1 :]
    assert found.token_logprobs == pytest.approx(
        [float(row[one]) for row, one in zip(rows, ids, strict=False)], abs=TOLERANCE
    )
    assert "".join(found.tokens) == choice.text
    assert found.text_offset == [len("".join(found.tokens[:place])) for place in range(len(ids))]
    assert all(2 <= len(top) <= 3 for top in found.top_logprobs)
    streamed: list[Any] = list(client.completions.create(**wanted, logprobs=2, stream=True))
    [there] = [one.choices[0].logprobs for one in streamed if one.choices and one.choices[0].logprobs]
    assert there == found


def test_tokens_are_read_as_they_are(server: Server, embedded: Embedded, client: OpenAI) -> None:
    """Also those that no text has: a word as single characters, control tokens, half a character."""
    text = "The sea is blue"
    usual = embedded.encode(text)
    letters = [embedded.encode(one)[0] for one in text]
    assert len(letters) > len(usual)
    euro = embedded.encode("€")
    for ids in (usual, letters, [1, 3, *usual, 1, 4], euro[:1]):
        answer: Any = client.completions.create(
            model="hearth", prompt=ids, max_tokens=0, echo=True, logprobs=1, temperature=0
        )
        found = answer.choices[0].logprobs
        rows = embedded.logprobs(ids)
        expected = [float(row[one]) for row, one in zip(rows, ids[1:], strict=False)]
        assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
        assert found.token_logprobs[1:] == pytest.approx(expected, abs=TOLERANCE)
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 0)
        assert answer.choices[0].finish_reason == "length"
    # The run's record and its trace have them, too.
    ids = letters
    answer = client.completions.create(model="hearth", prompt=ids, max_tokens=2, temperature=0)
    run = answer.x_hearth["run_id"]
    assert server.session.get(f"/runs/{run}").json()["question"] == f"{len(ids)} tokens: {' '.join(map(str, ids))}"
    traced = server.session.get(f"/runs/{run}/tokens", params={"call": 1})
    assert traced.status_code == 200, traced.text
    shown = traced.json()["tokens"]
    assert [one["id"] for one in shown][: len(ids)] == ids
    assert [one["forced"] for one in shown] == [True] * len(ids) + [False] * (len(shown) - len(ids))
    too_large = server.session.post("/v1/completions", json={"model": "hearth", "prompt": [99_999]})
    assert (too_large.status_code, too_large.json()["error"]["code"]) == (400, "invalid_request")
    assert "99999" in too_large.json()["error"]["message"]
    too_long = server.session.post("/v1/completions", json={"model": "hearth", "prompt": [7] * 5000, "max_tokens": 0})
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_echo(embedded: Embedded, client: OpenAI) -> None:
    wanted: Any = {"model": "hearth", "prompt": ["The sea", "€ and more"], "temperature": 0, "max_tokens": 5}
    plain = client.completions.create(**wanted)
    echoed: Any = client.completions.create(**wanted, echo=True, logprobs=0)
    for prompt, one, other in zip(wanted["prompt"], echoed.choices, plain.choices, strict=True):
        assert one.text.startswith(prompt) and other.text
        ids = embedded.encode(prompt)
        assert one.logprobs.tokens[: len(ids)] == [embedded.tokenizer.decode([token]) for token in ids]
        assert one.logprobs.text_offset[0] == 0 and len(one.logprobs.tokens) > len(ids)
        assert [len(top) for top in one.logprobs.top_logprobs[1:]] == [1] * (len(one.logprobs.tokens) - 1)
    texts = ["", ""]
    for chunk in client.completions.create(**wanted, echo=True, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [one.text for one in echoed.choices]
    nothing: Any = client.completions.create(**{**wanted, "max_tokens": 0}, echo=True)
    assert [one.text for one in nothing.choices] == wanted["prompt"]
    assert client.completions.create(**{**wanted, "max_tokens": 0}).choices[0].text == ""


def test_the_log_likelihoods_of_lm_eval(server: Server, embedded: Embedded) -> None:
    """The request and the reading of the answer are those of its `local-completions`, tasks of log-likelihood."""
    pairs = [("The capital of France is", " Paris"), ("What is 2 + 2?", " 4 and more"), ("hello", "<|eos|>")]
    contexts = [embedded.encode(context) for context, _ in pairs]
    prompts = [[*ids, *embedded.encode(text)] for ids, (_, text) in zip(contexts, pairs, strict=True)]
    asked: Any = {
        "prompt": prompts,
        "model": "hearth",
        "max_tokens": 1,
        "logprobs": 1,
        "temperature": 0,
        "seed": 1234,
    }
    out = server.session.post("/v1/completions", json={**asked, "echo": True}).json()
    found = []
    for choice, length in zip(sorted(out["choices"], key=itemgetter("index")), map(len, contexts), strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        is_greedy = all(own == max(top.values()) for own, top in zip(logprobs, tops, strict=True))
        found.append((sum(logprobs), is_greedy))
    for ids, length, (total, is_greedy) in zip(prompts, map(len, contexts), found, strict=True):
        rows = embedded.logprobs(ids)[length - 1 : -1]
        own = [float(row[token]) for row, token in zip(rows, ids[length:], strict=True)]
        assert total == pytest.approx(sum(own), abs=TOLERANCE * len(own))
        assert is_greedy == all(int(row.argmax()) == token for row, token in zip(rows, ids[length:], strict=True))


def test_they_cost_nothing_unless_wanted(server: Server) -> None:
    def passes(**more: Any) -> float:
        def count() -> float:
            lines = server.session.get("/metrics").text.splitlines()
            [line] = [one for one in lines if one.startswith("hearth_forward_passes_total ")]
            return float(line.rpartition(" ")[2])

        before = count()
        body = {"model": "hearth", "messages": TALK, "temperature": 0, "max_tokens": 20, **more}
        answer = server.session.post("/v1/chat/completions", json=body).json()
        record = server.session.get(f"/runs/{answer['x_hearth']['run_id']}").json()
        assert "logprobs" not in json.dumps(record)
        assert count() - before >= record["usage"]["forward_passes"]
        return count() - before - float(record["usage"]["forward_passes"])

    assert passes() == 0
    assert passes(logprobs=True) > 0
