"""A KV cache in slots: contiguous memory for each sequence, so that one forward pass serves many sequences.

A layer's keys are one tensor (slots, heads, capacity, width), its values another. A sequence owns a slot while it is
decoded. Then its tokens stay cached, for the next call of the same run or for another sequence with the same prefix,
until the slot is needed. The new tokens of all sequences go through the model as one batch without padding; only the
attention separates them.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from server.engine.attention import ATTENTION, Plan, running
from server.engine.image_features import ImageFeatures
from server.engine.kv_cache import Slot, common_prefix

log = logging.getLogger(__name__)

MAX_SLOTS = 64
#: Tokens of the test pass in `fits`.
PROBE = 24
#: Maximum number of idle cached prefixes (LRU), unless all slots are needed.
MAX_IDLE_PREFIXES = 16
SMALLEST_CAPACITY = 256


@dataclass(frozen=True)
class Layer:
    """The shape of a layer's keys and values for one token."""

    heads: int
    key_width: int
    value_width: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes(self) -> int:
        return self.heads * (self.key_width + self.value_width) * self.dtype.itemsize


class SlotKVCache:
    """See `KVCache`. Memory is allocated for all layers together, and never during a pass."""

    def __init__(self, model: PreTrainedModel, budget: int) -> None:
        """`budget`: the maximum bytes of all slots together. It may change at any time; memory that is allocated
        stays."""
        self._model = model
        set_text_attention(model, ATTENTION)
        self.images: ImageFeatures | None = None
        self.budget = budget
        self.windows: set[int | None] = set()
        """The attention windows of the layers, in tokens; None: unlimited."""
        self._layers: dict[int, Layer] = {}
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        self._clock = itertools.count(1)
        self.slots: list[Slot] = []
        self.capacity = 0
        self._learn_layers()

    def _learn_layers(self) -> None:
        """Learn each layer's shape from a pass of one token."""
        slot = Slot(0)
        self.slots, self.capacity = [slot], 1
        self.run([(slot, [0])])
        self._layers = {
            number: Layer(keys.shape[1], keys.shape[3], self._values[number].shape[3], keys.dtype, keys.device)
            for number, keys in self._keys.items()
        }
        self.clear()

    @property
    def bytes(self) -> int:
        images = self.images.bytes if self.images is not None else 0
        return images + sum(tensor.nbytes for tensor in (*self._keys.values(), *self._values.values()))

    @torch.inference_mode()
    def take(self, tokens: Sequence[int]) -> Slot | None:
        self._shrink(len(tokens) + 1)
        if not self.ensure_capacity(len(tokens) + 1):
            return None
        matches = {slot.index: common_prefix(slot.cached_tokens, tokens) for slot in self.slots}
        source = max(self.slots, key=lambda slot: matches[slot.index], default=None)
        shared = min(matches[source.index], len(tokens) - 1) if source else 0
        if not shared:
            source = None
        # Reusing a free slot drops its tokens after the shared prefix, so at least half of them must match.
        free = [
            slot for slot in self.slots if not slot.taken and 0 < len(slot.cached_tokens) <= 2 * matches[slot.index]
        ]
        slot = max(free, key=lambda one: matches[one.index], default=None)
        own = matches[slot.index] if slot is not None else 0
        if slot is None:
            slot = self._fresh(keep=source)
        if slot is None:
            return None
        if source is not None and slot is not source and own < shared:
            for tensor in (*self._keys.values(), *self._values.values()):
                tensor[slot.index, :, :shared] = tensor[source.index, :, :shared]
        slot.cached_tokens = list(tokens[:shared])
        slot.taken = True
        return slot

    def prefix_match(self, tokens: Sequence[int]) -> int:
        return max((common_prefix(slot.cached_tokens, tokens) for slot in self.slots), default=0)

    def release(self, slot: Slot) -> None:
        slot.taken = False
        slot.used = next(self._clock)

    def drop_idle(self) -> None:
        for slot in self.slots:
            if not slot.taken:
                slot.cached_tokens = []
        if self.images is not None:
            self.images.clear()

    def clear(self) -> None:
        if self.images is not None:
            self.images.clear()
        self._keys, self._values, self.slots, self.capacity = {}, {}, [], 0

    @torch.inference_mode()
    def ensure_capacity(self, length: int) -> bool:
        if length <= self.capacity and self._keys:
            return True
        capacity = max(self.capacity, _capacity(length))
        if self._max_slots(capacity) < 1:
            capacity = max(self.capacity, -(-length // SMALLEST_CAPACITY) * SMALLEST_CAPACITY)
        most = self._max_slots(capacity)
        if most < 1:
            raise MemoryError
        if most < sum(slot.taken for slot in self.slots):
            return False
        keep = sorted(
            (slot for slot in self.slots if slot.taken or slot.cached_tokens),
            key=lambda slot: (not slot.taken, -slot.used),
        )
        self._reshape(keep[:most], max(min(len(keep), most), 1), capacity)
        return True

    def _shrink(self, length: int) -> None:
        """Make slots shorter again, for `length` tokens, if long ones leave room for few and none is taken."""
        capacity = _capacity(length)
        if (
            not any(slot.taken for slot in self.slots)
            and 4 * capacity <= self.capacity
            and self._max_slots(self.capacity) < MAX_IDLE_PREFIXES
        ):
            self._keys, self._values = {}, {}
            self.slots, self.capacity = [], 0

    def spare_capacity(self, slot: Slot) -> int:
        return self.capacity - len(slot.cached_tokens)

    @torch.inference_mode()
    def run(self, batch: Sequence[tuple[Slot, Sequence[int]]], wanted: Sequence[int] | None = None) -> torch.Tensor:
        wanted = wanted or [1] * len(batch)
        plan = Plan(batch, wanted, self._model.device, self._written)
        read = (
            {"input_ids": torch.tensor([plan.tokens], device=self._model.device)}
            if self.images is None
            else self.images.inputs(plan.tokens)
        )
        with running(plan):
            output: Any = self._model(
                **read,
                position_ids=plan.positions[None],
                use_cache=False,
                logits_to_keep=plan.wanted,
            )
        self.windows |= plan.windows
        for slot, new in batch:
            slot.cached_tokens = [*slot.cached_tokens, *new]
        logits: torch.Tensor = output.logits[0].float()
        if plan.order == list(range(len(batch))):
            return logits
        parts = dict(zip(plan.order, logits.split([wanted[number] for number in plan.order]), strict=True))
        return torch.cat([parts[number] for number in range(len(batch))])

    def _written(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, plan: Plan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a layer's new keys and values (heads, tokens, width) into the slots. Returns all of that layer's."""
        if not self._layers:
            for memory, new in ((self._keys, key), (self._values, value)):
                memory[layer] = new.new_zeros(1, new.shape[0], 1, new.shape[2])
        keys, values = self._keys[layer], self._values[layer]
        keys[plan.slot_indices, :, plan.positions] = key.transpose(0, 1)
        values[plan.slot_indices, :, plan.positions] = value.transpose(0, 1)
        return keys, values

    def _fresh(self, keep: Slot | None) -> Slot | None:
        """An empty slot, a new one, or the least recently used one (`keep` last); None if none is free."""
        free = sorted((slot for slot in self.slots if not slot.taken), key=lambda slot: (slot is keep, slot.used))
        empty = next((slot for slot in free if not slot.cached_tokens), None)
        most = self._max_slots(self.capacity)
        if empty is None and len(free) < MAX_IDLE_PREFIXES and len(self.slots) < most:
            count = len(self.slots)
            self._reshape(self.slots, min(max(2 * count, 1), most), self.capacity)
            return self.slots[count]
        return empty or next(iter(free), None)

    def _max_slots(self, capacity: int) -> int:
        return min(MAX_SLOTS, self.budget // (sum(layer.bytes for layer in self._layers.values()) * capacity))

    def _reshape(self, keep: list[Slot], count: int, capacity: int) -> None:
        """Allocate memory for `count` slots of `capacity` tokens and copy the slots `keep` into it, one layer after
        the other to bound the peak. If there is no memory for it, all cached tokens are dropped, and only the slots
        that are taken remain."""
        length = max((len(slot.cached_tokens) for slot in keep), default=0)
        order = [slot.index for slot in keep]
        try:
            for number, layer in self._layers.items():
                for memory, width in ((self._keys, layer.key_width), (self._values, layer.value_width)):
                    shape = (count, layer.heads, capacity, width)
                    new = torch.zeros(shape, dtype=layer.dtype, device=layer.device)
                    if number in memory:
                        new[: len(keep), :, :length] = memory[number][order, :, :length]
                    memory[number] = new
        except BaseException:
            self._keys, self._values = {}, {}
            keep = [slot for slot in self.slots if slot.taken]
            for slot in self.slots:
                slot.cached_tokens = []
            count, capacity = len(keep), self.capacity
            raise
        finally:
            self.slots = [*keep, *(Slot(0) for _ in range(count - len(keep)))]
            for index, slot in enumerate(self.slots):
                slot.index = index
            self.capacity = capacity


def _capacity(length: int) -> int:
    return max(SMALLEST_CAPACITY, 1 << (length - 1).bit_length())


def set_text_attention(model: PreTrainedModel, implementation: str) -> None:
    """Set the attention of the layers that read text, and leave the one of a vision tower as it is."""
    text = model.config.get_text_config()
    parts = [name for name in model.config.sub_configs if getattr(model.config, name, None) is text]
    model.set_attn_implementation({name: implementation for name in parts} or implementation)


def _rotates_by_length(config: Any) -> bool:
    """Whether the rotary embedding of a token depends on the length of its text: a pass would use the length of its
    longest text for all."""
    found = getattr(config, "rope_parameters", None) or {}
    by_layer = [part for part in found.values() if isinstance(part, dict)] or [found]
    kinds = {str(part.get("rope_type")) for part in by_layer}
    return "longrope" in kinds or any("dynamic" in kind for kind in kinds)


def fits(model: PreTrainedModel) -> bool:
    """Whether the model's logits over slots are its own logits. The model's attention implementation is restored.

    A short test pass finds models with an attention of their own, or with state other than keys and values. Models
    that differ only on long texts are known by their configuration: chunked attention, or rotary embeddings that
    depend on the length of the text.
    """
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ())
    if "chunked_attention" in layers or _rotates_by_length(config):
        return False
    tokens = torch.arange(PROBE, device=model.device) * 7919 % config.vocab_size
    own = config._attn_implementation
    try:
        cache = SlotKVCache(model, 2**62)
        slot = cache.take(tokens.tolist())
        assert slot is not None
        for part in tokens.tolist()[: PROBE // 2], tokens.tolist()[PROBE // 2 :]:
            ours = cache.run([(slot, part)])[0]
    except Exception:  # boundary: a model that slots don't fit may raise anything
        log.debug("slots don't fit %s", type(model).__name__, exc_info=True)
        return False
    finally:
        set_text_attention(model, own)
    if "sliding_attention" in layers and cache.windows == {None}:
        return False
    with torch.inference_mode():
        theirs = model(input_ids=tokens[None], use_cache=False, logits_to_keep=1).logits[0, -1].float()
    return bool((ours - theirs).abs().mean() <= tolerance(model) * theirs.std())


def tolerance(model: PreTrainedModel) -> float:
    """By how much a logit may differ on average from the model's own, in standard deviations."""
    return 0.001 if model.dtype == torch.float32 and not hasattr(model, "hf_quantizer") else 0.2
