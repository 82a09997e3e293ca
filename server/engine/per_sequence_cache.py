"""A KV cache for models that `SlotKVCache` does not fit: one Transformers cache for each sequence, one pass each."""

import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from server.engine.image_features import ImageFeatures
from server.engine.kv_cache import Slot, common_prefix

#: Maximum number of sequences at a time, and of idle ones that stay cached.
MAX_SLOTS = 16


@dataclass(eq=False)
class CachedSlot(Slot):
    cache: DynamicCache | None = None
    length: int = 0
    """Tokens in the cache. It may be more than `cached_tokens` after the grammar has backtracked."""


class PerSequenceCache:
    """See `KVCache`. Each sequence of a batch is a forward pass of its own."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises ValueError for a model that takes no cache, such as a plain state-space model."""
        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise ValueError(
                f"{type(model).__name__} keeps no keys and values of what it has read, and can't be decoded here. "
                "Load a model with attention."
            )
        self._model = model
        self.images: ImageFeatures | None = None
        self._slots: list[CachedSlot] = []
        self._clock = itertools.count(1)

    @property
    def bytes(self) -> int:
        # Other threads read this while the model's thread changes it, so whatever may grow is copied first.
        caches = [slot.cache for slot in list(self._slots)]
        images = self.images.bytes if self.images is not None else 0
        return images + sum(
            tensor.nbytes
            for cache in caches
            for layer in (list(cache.layers) if cache else ())
            for tensor in list(vars(layer).values())
            if isinstance(tensor, torch.Tensor)
        )

    def take(self, tokens: Sequence[int]) -> Slot | None:
        free = [slot for slot in self._slots if not slot.taken]
        slot = max(free, key=lambda one: common_prefix(one.cached_tokens, tokens), default=None)
        if slot is None or not common_prefix(slot.cached_tokens, tokens):
            if len(self._slots) < MAX_SLOTS:
                slot = CachedSlot(len(self._slots))
                self._slots.append(slot)
            else:
                slot = min(free, key=lambda one: one.used, default=None)
        if slot is not None:
            slot.cached_tokens = slot.cached_tokens[: min(common_prefix(slot.cached_tokens, tokens), len(tokens) - 1)]
            slot.taken = True
        return slot

    def ensure_capacity(self, length: int) -> bool:
        return True  # a cache grows by itself

    def prefix_match(self, tokens: Sequence[int]) -> int:
        return max((common_prefix(slot.cached_tokens, tokens) for slot in self._slots if not slot.taken), default=0)

    def spare_capacity(self, slot: Slot) -> int:
        return 0  # many caches can't drop tokens; their sequence would be read again

    def run(self, batch: Sequence[tuple[Slot, Sequence[int]]], wanted: Sequence[int] | None = None) -> torch.Tensor:
        rows = wanted or [1] * len(batch)
        before = [(slot, slot.cached_tokens) for slot, _ in batch]
        try:
            return torch.cat(
                [
                    self._read(slot, new, count)
                    for (slot, new), count in zip(batch, rows, strict=True)
                    if isinstance(slot, CachedSlot)
                ]
            )
        except BaseException:
            for slot, cached in before:
                # Empty if its cache was lost; otherwise the next pass crops the cache to this.
                slot.cached_tokens = slot.cached_tokens and cached
            raise

    def _read(self, slot: CachedSlot, new: Sequence[int], rows: int) -> torch.Tensor:
        """The logits after the last `rows` tokens of `new`."""
        if slot.length > len(slot.cached_tokens) and not self._crop(slot):
            new, slot.cached_tokens = [*slot.cached_tokens, *new], []
        if slot.cache is None:
            slot.cache, slot.length = DynamicCache(config=self._model.config), 0
        try:
            with torch.inference_mode():
                output: Any = self._model(
                    **(
                        {"input_ids": torch.tensor([new], device=self._model.device)}
                        if self.images is None
                        else self.images.inputs(new)
                    ),
                    past_key_values=slot.cache,
                    use_cache=True,
                    logits_to_keep=rows,
                )
        except BaseException:
            # Some layers may have been written and others not.
            slot.cache, slot.length, slot.cached_tokens = None, 0, []
            raise
        slot.cached_tokens = [*slot.cached_tokens, *new]
        slot.length = len(slot.cached_tokens)
        logits: torch.Tensor = output.logits[0, -rows:].float()
        return logits

    def _crop(self, slot: CachedSlot) -> bool:
        """Crop the cache to `cached_tokens`. False if it can't be cropped; then it is dropped."""
        assert slot.cache is not None
        if slot.cached_tokens and all(type(layer) is DynamicLayer for layer in slot.cache.layers):
            slot.cache.crop(len(slot.cached_tokens) - slot.length)
            slot.length = len(slot.cached_tokens)
            return True
        # A recurrent state can't be cropped, nor a sliding window whose first tokens are gone.
        slot.cache, slot.length = None, 0
        return False

    def release(self, slot: Slot) -> None:
        slot.taken = False
        slot.used = next(self._clock)

    def drop_idle(self) -> None:
        if self.images is not None:
            self.images.clear()
        self._slots = [slot for slot in self._slots if slot.taken]
        for index, slot in enumerate(self._slots):
            slot.index = index

    def clear(self) -> None:
        if self.images is not None:
            self.images.clear()
        self._slots = []
