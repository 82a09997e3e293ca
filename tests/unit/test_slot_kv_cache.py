"""Decoding many texts at once in KV cache slots, beside Transformers' own greedy decoding of each alone."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from server.engine import attention
from server.engine.kv_cache import KVCache, Slot, common_prefix
from server.engine.per_sequence_cache import PerSequenceCache
from server.engine.slot_kv_cache import SlotKVCache, fits
from server.model import load_model

SHAPE = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
HEADS_OF_16 = {**SHAPE, "head_dim": 16}
#: Architectures with what is special about them: shared key heads, windows, soft caps, norms, sinks, experts, learned
#: positions.
FITTING: dict[str, dict[str, Any]] = {
    "llama": SHAPE,
    "mistral": {**SHAPE, "sliding_window": 16},
    "qwen2": SHAPE,
    "qwen3": HEADS_OF_16,
    "gemma2": {**HEADS_OF_16, "sliding_window": 16},
    "gemma3_text": {**HEADS_OF_16, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi3": {**SHAPE, "sliding_window": 16},
    "gpt_oss": {**HEADS_OF_16, "sliding_window": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {"vocab_size": 200, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512},
}
UNFIT: dict[str, dict[str, Any]] = {
    "falcon": {**SHAPE, "alibi": True},
    "gptj": {"vocab_size": 200, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512, "rotary_dim": 8},
}
LENGTHS = (5, 40, 23, 70)
NEW = 24


def random_model(kind: str, shape: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **shape)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    for weight in model.parameters():
        if weight.ndim > 1:  # wide apart, so that the argmax is never close
            torch.nn.init.normal_(weight, std=0.15)
    return model


def prompts() -> list[list[int]]:
    torch.manual_seed(4)
    return [torch.randint(2, 199, (length,)).tolist() for length in LENGTHS]


def prompts_with_shared_prefixes() -> list[list[int]]:
    """Four that do, three that begin in another way, and between them one that is like no other."""
    torch.manual_seed(5)
    one, two, own = (torch.randint(2, 199, (length,)).tolist() for length in (90, 75, 80))
    ends = [torch.randint(2, 199, (length,)).tolist() for length in (3, 20, 1, 11, 6, 2, 30)]
    first, *others = [(one, two)[number % 2] + end for number, end in enumerate(ends)]
    return [first, own, *others]


def by_transformers(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    with torch.inference_mode():
        made: Any = model.generate(  # type: ignore[operator]
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
    tokens: list[int] = made[0].tolist()
    return tokens


def take(cache: KVCache, text: list[int]) -> Slot:
    """A slot for a text. There has to be one."""
    slot = cache.take(text)
    assert slot is not None
    return slot


def together(cache: KVCache, given: list[list[int]], piece: int) -> list[list[int]]:
    """All texts continued greedily, side by side, at most `piece` tokens of each a pass."""
    texts = [list(prompt) for prompt in given]
    slots = [take(cache, text) for text in texts]
    while unfinished := [at for at, text in enumerate(texts) if len(text) < len(given[at]) + NEW]:
        batch = [(slots[at], texts[at][len(slots[at].cached_tokens) :][:piece]) for at in unfinished]
        for at, logits in zip(unfinished, cache.run(batch), strict=True):
            if len(slots[at].cached_tokens) == len(texts[at]):
                texts[at].append(int(logits.argmax()))
        assert cache.ensure_capacity(max(map(len, texts)) + 1)
    for slot in slots:
        cache.release(slot)
    return texts


@pytest.mark.parametrize("kind", FITTING)
def test_slots_write_what_transformers_writes(kind: str) -> None:
    model = random_model(kind, FITTING[kind])
    alone = [by_transformers(model, prompt) for prompt in prompts()]
    assert len({token for text in alone for token in text[-NEW:]}) > 3
    assert fits(model)
    cache = SlotKVCache(model, 2**30)
    assert together(cache, prompts(), piece=13) == alone
    assert [together(cache, [prompt], piece=512)[0] for prompt in prompts()] == alone


@pytest.mark.parametrize("kind", FITTING)
def test_a_shared_prefix_is_read_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    attend_shared_prefix = attention._attend_shared_prefix

    def seen(asking: Any, keys: Any, values: Any, shared: attention.SharedPrefix, *more: Any) -> torch.Tensor:
        shares.append(shared.length)
        return attend_shared_prefix(asking, keys, values, shared, *more)

    monkeypatch.setattr(attention, "_attend_shared_prefix", seen)
    model, given = random_model(kind, FITTING[kind]), prompts_with_shared_prefixes()
    alone = [by_transformers(model, prompt) for prompt in given]
    assert together(SlotKVCache(model, 2**30), given, piece=13) == alone
    # Where all layers have a window, or something else that the kernel doesn't do, each slot is read by itself.
    assert ({75, 90} <= set(shares)) == (kind not in ("mistral", "phi3", "gemma2", "gpt_oss"))


#: How the embedded model is loaded, and how far a logit may be from what it is alone, in standard deviations of the
#: logits. bitsandbytes takes a column of activations out of the 8-bit product as soon as one text is large in it: so
#: with its threshold a text's neighbours matter; and without, where the last bit of an activation decides how it is
#: rounded to 8 bit.
TOLERANCES: dict[str, tuple[float, dict[str, Any]]] = {
    "float32": (1e-4, {"dtype": "float32", "load_in_8bit": False}),
    "bfloat16": (0.25, {"dtype": "bfloat16", "load_in_8bit": False}),
    "8bit, float32": (0.25, {"dtype": "float32", "load_in_8bit": True}),
    "8bit, float32, no threshold": (0.25, {"dtype": "float32", "load_in_8bit": True, "int8_threshold": 0.0}),
    "8bit, bfloat16": (0.25, {"dtype": "bfloat16", "load_in_8bit": True}),
    "int8, float32": (1e-4, {"dtype": "float32", "load_in_8bit": True, "quantizer": "torchao"}),
    "int8, bfloat16": (0.25, {"dtype": "bfloat16", "load_in_8bit": True, "quantizer": "torchao"}),
    "fp8, float32": (1e-4, {"dtype": "float32", "load_in_8bit": True, "quantizer": "torchao_fp8"}),
    "fp8, bfloat16": (0.25, {"dtype": "bfloat16", "load_in_8bit": True, "quantizer": "torchao_fp8"}),
}
SLOW_ON_A_CPU = ("8bit, float32", "8bit, bfloat16")
"""Of the three with bitsandbytes, one is in the ordinary run."""


def written_alone(cache: KVCache, prompt: list[int]) -> tuple[list[int], list[torch.Tensor]]:
    """A text continued greedily in a cache of its own, and the logits behind which each new token was chosen."""
    text = list(prompt)
    logits: list[torch.Tensor] = []
    slot = take(cache, text)
    while len(logits) < NEW:
        logits.append(cache.run([(slot, text[len(slot.cached_tokens) :])])[0])
        text.append(int(logits[-1].argmax()))
        assert cache.ensure_capacity(len(text) + 1)
    cache.clear()
    return text, logits


def read_together(cache: KVCache, texts: list[list[int]]) -> list[list[torch.Tensor]]:
    """The same logits where such texts are read side by side: prompts in pieces, then a token a pass."""
    logits: list[list[torch.Tensor]] = [[] for _ in texts]
    slots = [take(cache, text) for text in texts]
    while unfinished := [at for at in range(len(texts)) if len(logits[at]) < NEW]:
        batch = []
        for at in unfinished:
            held, prompt = len(slots[at].cached_tokens), len(texts[at]) - NEW
            batch.append((slots[at], texts[at][held : min(held + 13, prompt) if held < prompt else held + 1]))
        for at, found in zip(unfinished, cache.run(batch), strict=True):
            if len(slots[at].cached_tokens) >= len(texts[at]) - NEW:
                logits[at].append(found)
    return logits


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW_ON_A_CPU else []) for kind in TOLERANCES]
)
def test_in_a_batch_logits_are_nearly_those_alone(kind: str) -> None:
    tolerance, options = TOLERANCES[kind]
    options = {"device_map": "cpu", "int8_threshold": 6.0, **options}
    loaded = load_model("embedded", progress=lambda stage, done, total: None, **options)
    cache = SlotKVCache(loaded.model, 2**30)
    questions = [
        "What is 37 * 52?",
        "Say hello.",
        "How many days has May?",
        "2 km in miles",
        "Who are you?",
        "7 - 12",
    ]
    # Half of them with a beginning that is long enough to be read once for all.
    system = [{"role": "system", "content": "You are a helpful assistant that answers questions with tools. " * 8}]
    prompts: list[Any] = [
        loaded.tokenizer.apply_chat_template(
            [*(system if number % 2 else ()), {"role": "user", "content": question}], add_generation_prompt=True
        )
        for number, question in enumerate(questions)
    ]
    texts, alone = zip(*(written_alone(cache, prompt["input_ids"]) for prompt in prompts), strict=True)
    beside = read_together(cache, list(texts))
    own, other = (torch.stack([one for logits in many for one in logits]) for many in (alone, beside))
    assert ((own - other).abs().amax(-1) / own.std(-1)).max() < tolerance
    assert (own.argmax(-1) == other.argmax(-1)).float().mean() > 0.95


@pytest.mark.parametrize("kind", UNFIT)
def test_other_models_are_found_out_and_read_one_by_one(kind: str) -> None:
    model = random_model(kind, UNFIT[kind])
    alone = [by_transformers(model, prompt) for prompt in prompts()]
    assert not fits(model)
    assert [by_transformers(model, prompt) for prompt in prompts()] == alone
    cache = PerSequenceCache(model)
    assert together(cache, prompts(), piece=512) == alone
    assert together(cache, prompts(), piece=512) == alone  # with what the first time has cached


def test_a_model_without_keys_and_values_is_refused() -> None:
    with pytest.raises(ValueError, match="MambaForCausalLM keeps no keys"):
        PerSequenceCache(random_model("mamba", SHAPE))


def test_attention_in_chunks_does_not_fit() -> None:
    shape = {**HEADS_OF_16, "num_local_experts": 2, "layer_types": ["chunked_attention", "full_attention"] * 2}
    assert not fits(random_model("llama4_text", shape))


def test_a_cached_prefix_is_not_read_again() -> None:
    cache = SlotKVCache(random_model("llama", SHAPE), 2**30)
    beginning = prompts()[3]
    first = cache.take(beginning)
    assert first is not None and first.cached_tokens == []
    cache.run([(first, beginning)])
    second = cache.take([*beginning, 5])  # beside the first, which is still taken
    assert second is not None and second is not first
    assert second.cached_tokens == beginning
    third = cache.take([*beginning[:40], 7, 8, 9])
    assert third is not None and third.cached_tokens == beginning[:40]
    whole = cache.take(beginning)  # never all of it: there must be something to read
    assert whole is not None and whole.cached_tokens == beginning[:-1]
    copied = cache.run([(second, [5]), (whole, beginning[-1:])])
    cache.clear()
    fresh = [take(cache, text) for text in ([*beginning, 5], beginning)]
    anew = cache.run([(fresh[0], [*beginning, 5]), (fresh[1], beginning)])
    torch.testing.assert_close(copied, anew, rtol=1e-4, atol=1e-4)


#: Bytes a token of a random Llama: keys and values, layers, heads, width, float32.
TOKEN = 2 * 4 * 2 * 16 * 4


def test_memory_stays_within_its_bound() -> None:
    model = random_model("llama", SHAPE)
    cache = SlotKVCache(model, 3 * 256 * TOKEN)
    slots = []
    for start in range(3):
        slot = cache.take([start + 2, 3, 4])
        assert slot is not None
        cache.run([(slot, [start + 2, 3, 4])])
        slots.append(slot)
    assert cache.take([9, 9, 9]) is None
    assert cache.bytes <= 3 * 256 * TOKEN
    assert cache.ensure_capacity(257) is False  # for three slots that long there is no memory, and all are taken
    cache.release(slots[0])
    cache.release(slots[1])
    assert cache.ensure_capacity(257)
    assert cache.bytes <= 3 * 256 * TOKEN
    assert slots[2].cached_tokens == [4, 3, 4]
    with pytest.raises(MemoryError):
        cache.ensure_capacity(1025)
    cache.release(slots[2])
    cache.clear()
    assert cache.bytes == 0


def test_the_longest_unused_makes_room() -> None:
    model = random_model("llama", SHAPE)
    cache = SlotKVCache(model, 2 * 256 * TOKEN)
    for start in (2, 3, 4):
        slot = cache.take([start] * 40)
        assert slot is not None
        cache.run([(slot, [start] * 40)])
        cache.release(slot)
    assert [cache.prefix_match([start] * 40) for start in (2, 3, 4)] == [0, 40, 40]


def test_the_bound_holds_before_anything_is_read() -> None:
    cache = SlotKVCache(random_model("llama", SHAPE), 3 * 256 * TOKEN)
    assert [cache.take([start, 3, 4]) is not None for start in range(5, 9)] == [True, True, True, False]
    assert cache.bytes <= 3 * 256 * TOKEN


def test_a_text_that_fits_is_taken_though_twice_its_length_would_not_fit() -> None:
    cache = SlotKVCache(random_model("llama", SHAPE), 1300 * TOKEN)
    assert cache.take([5] * 1100) is not None
    assert cache.bytes <= 1300 * TOKEN


def test_a_long_text_does_not_leave_place_for_few_for_ever() -> None:
    cache = SlotKVCache(random_model("llama", SHAPE), 2 * 2048 * TOKEN)
    long = cache.take([5] * 2000)
    assert long is not None
    cache.release(long)
    slots = [cache.take([start, 3, 4]) for start in range(5, 15)]
    assert None not in slots
    assert cache.bytes <= 2 * 2048 * TOKEN


def test_a_device_without_memory_for_more_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SlotKVCache(random_model("llama", SHAPE), 2**30)
    text = prompts()[1]
    slot = cache.take(text)
    assert slot is not None
    before = cache.run([(slot, text)])
    there = 2 * cache.bytes  # for one slot, and while it is copied

    def zeros(*arguments: Any, **options: Any) -> torch.Tensor:
        new = torch.ones(*arguments, **options).zero_()
        if cache.bytes + new.nbytes > there:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return new

    with monkeypatch.context() as full:
        full.setattr(torch, "zeros", zeros)
        with pytest.raises(torch.OutOfMemoryError):
            cache.take([7, 7, 7])
        assert slot.taken and slot.cached_tokens == []
        assert cache.ensure_capacity(len(text) + 1)
        torch.testing.assert_close(cache.run([(slot, text)]), before)
        with pytest.raises(torch.OutOfMemoryError):
            cache.take([7, 7, 7])
    assert cache.ensure_capacity(len(text) + 1)
    other = cache.take([7, 7, 7])
    assert other is not None
    torch.testing.assert_close(cache.run([(slot, text)]), before)


def test_caches_have_no_more_than_before_where_one_of_them_fails() -> None:
    model = random_model("llama", SHAPE)
    first, second = prompts()[1], prompts()[2]
    alone = PerSequenceCache(model)
    expected = [alone.run([(take(alone, text), text)])[0] for text in (first, second)]
    cache = PerSequenceCache(model)
    slots = [take(cache, first), take(cache, second)]

    def fail(_module: object, _arguments: object, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] == len(second):
            raise RuntimeError("a bad kernel")

    failing = model.register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(RuntimeError, match="a bad kernel"):
        cache.run([(slots[0], first), (slots[1], second)])
    failing.remove()
    assert [slot.cached_tokens for slot in slots] == [[], []]
    for slot, text, logits in zip(slots, (first, second), expected, strict=True):
        torch.testing.assert_close(cache.run([(slot, text)])[0], logits)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_turned_by_the_length_of_the_text_do_not_fit(kind: str) -> None:
    how: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
    if kind == "longrope":
        how |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 64}
    assert not fits(random_model("llama", {**SHAPE, "rope_parameters": how}))


@pytest.mark.parametrize(("one", "two", "shared"), [([], [1], 0), ([1, 2], [1, 3], 1), ([5] * 200, [5] * 130, 130)])
def test_common_prefix(one: list[int], two: list[int], shared: int) -> None:
    assert common_prefix(one, two) == shared
    assert common_prefix([*one, 7], [*two, 8]) == shared or one == two
