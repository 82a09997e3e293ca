"""Texts whose tokens are scored: the log-probabilities are the model's own, whatever the cache has."""

import json
from collections.abc import Callable
from typing import Any

import guidance
import pytest
import torch
from guidance.models._engine import EngineState

from server.engine import GuidedEngine
from server.engine.offload import Weights
from server.engine.per_sequence_cache import PerSequenceCache
from server.engine.scheduler import TOKENS_A_PASS, TOKENS_WITH_DRAFTS, Scheduler
from server.engine.scored_text import BEST, ROWS_A_PASS, ScoredText
from server.engine.slot_kv_cache import SlotKVCache
from server.errors import InvalidRequestError, ModelNotLoadedError
from server.sdk import context
from server.sdk.model_call import ModelCall
from tests.unit.test_slot_kv_cache import SHAPE, UNFIT, random_model

CONTEXT = 2048
CACHES: dict[str, Callable[[Any], Any]] = {
    "slots": lambda model: SlotKVCache(model, 2**30),
    "one each": PerSequenceCache,
}


@pytest.mark.parametrize(
    ("cache", "kind", "shape"),
    [("slots", "llama", SHAPE), ("one each", "llama", SHAPE), *(("one each", kind, UNFIT[kind]) for kind in UNFIT)],
)
def test_the_scores_are_the_models_own(cache: str, kind: str, shape: dict[str, Any]) -> None:
    model = random_model(kind, shape)
    generator = torch.Generator().manual_seed(0)
    first, length = TOKENS_A_PASS + 50, TOKENS_A_PASS + 50 + 2 * ROWS_A_PASS + 5
    if kind != "llama":
        first, length = 20, 20 + ROWS_A_PASS + 5
    tokens = torch.randint(3, model.config.get_text_config().vocab_size, (length,), generator=generator)
    with torch.inference_mode():
        expected = model(input_ids=tokens[None], use_cache=False).logits[0].float().log_softmax(-1)
    scheduler = Scheduler(CACHES[cache](model), Weights(model), 0, CONTEXT, 1)
    for begin in (first, first, first + 7, 1):
        text = ScoredText(tokens.tolist(), begin)
        scheduler.submit(text)
        scored = text.result()
        assert [one.id for one in scored] == tokens[begin:].tolist()
        rows = expected[begin - 1 : -1]
        own = rows.gather(1, tokens[begin:, None])[:, 0]
        torch.testing.assert_close(torch.tensor([one.logprob for one in scored]), own, atol=1e-3, rtol=0)
        best = torch.tensor([[value for _, value in one.top] for one in scored])
        torch.testing.assert_close(best, rows.topk(BEST).values, atol=1e-3, rtol=0)
    scheduler.close()


def test_a_text_takes_no_more_of_a_pass_than_its_share() -> None:
    passes: list[list[int]] = []

    class Recording(SlotKVCache):
        def run(self, batch: Any, wanted: Any = None) -> torch.Tensor:
            passes.append(list(wanted or [1] * len(batch)))
            return super().run(batch, wanted)

    model, beside = random_model("llama", SHAPE), 8
    scheduler = Scheduler(Recording(model, 2**30), Weights(model), 0, CONTEXT, 1)
    texts = [ScoredText([number, *range(3, 103), *range(3, 103)], 1) for number in range(beside)]
    for text in texts:
        scheduler.submit(text)
    assert all(len(text.result()) == 200 for text in texts)
    scheduler.close()
    full = [rows for rows in passes if len(rows) == beside]
    assert full and max(max(rows) for rows in full) == TOKENS_WITH_DRAFTS // beside
    assert max(max(rows) for rows in passes) <= ROWS_A_PASS


def test_a_text_that_is_waiting_ends_with_its_model() -> None:
    model = random_model("llama", SHAPE)
    scheduler = Scheduler(SlotKVCache(model, 2**30), Weights(model), 0, CONTEXT, 1)
    failing = model.register_forward_pre_hook(lambda *_: 1 / 0)
    text = ScoredText([1, 2, 3], 1)
    scheduler.submit(text)
    with pytest.raises(ZeroDivisionError):
        text.result()
    failing.remove()
    scheduler.close()
    with pytest.raises(ModelNotLoadedError):
        scheduler.submit(ScoredText([1, 2, 3], 1))


# Texts with which a call has to begin


def written(engine: GuidedEngine, grammar: str, beginning: str, prompt: str = "Q: ") -> ModelCall:
    calls: list[ModelCall] = []
    begin = iter([beginning])
    state = EngineState()
    state.prompt = prompt
    with context.scope(on_model_call=calls.append, beginning=lambda: next(begin, "")):
        list(engine(state, grammar))
    return calls[0]


def object_grammar() -> str:
    number = {"type": "integer", "minimum": -99_999, "maximum": 99_999}
    schema = {"type": "object", "properties": {"n": number}, "required": ["n"], "additionalProperties": False}
    return str((guidance.string("Input: ") + guidance.json("value", schema=schema)).ll_grammar())


@pytest.mark.parametrize("beginning", ["I", "Input: ", 'Input: {"n', 'Input: {"n": 12345', 'Input: {"n": -7}'])
def test_a_text_is_continued_as_the_grammar_allows(engine: GuidedEngine, beginning: str) -> None:
    call = written(engine, object_grammar(), beginning)
    assert call.written.startswith(beginning)
    assert isinstance(json.loads(call.written.removeprefix("Input: "))["n"], int)
    alone = written(engine, object_grammar(), "")
    assert written(engine, object_grammar(), alone.written).written == alone.written


@pytest.mark.parametrize(
    ("beginning", "place"), [("Output", 0), ('Input: {"m"', 9), ('Input: {"n": 1} and more', 15), ("Input: é", 7)]
)
def test_a_text_that_is_not_allowed_is_refused_with_its_place(
    engine: GuidedEngine, beginning: str, place: int
) -> None:
    with pytest.raises(InvalidRequestError, match=f"from character {place} on"):
        written(engine, object_grammar(), beginning)


def test_any_text_can_begin_free_text(engine: GuidedEngine) -> None:
    text = "Grüße, 世界 🔥! \n\t" + "a" * 50
    call = written(engine, str(guidance.gen(max_tokens=200).ll_grammar()), text)
    assert call.written.startswith(text)
    assert engine.beginning(call.prompt, call.bos, call.prompt_tokens, call.tokens).startswith(call.written)
    scored = engine.score(call.prompt, call.bos, call.prompt_tokens, call.tokens, 0, 10_000)
    assert [one.id for one in scored] == list(call.tokens)
