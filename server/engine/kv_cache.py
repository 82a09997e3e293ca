"""KV memory: what the model has already read, kept from one call of a run to the next.

A call takes the free memory whose tokens agree longest with its prompt, owns it alone while it decodes, and gives
it back. So a run finds its own text again, and a new run finds the prompt that it shares with an earlier one.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel


def common_prefix(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens two sequences share from their beginning."""
    length = min(len(one), len(two))
    if list(one[:length]) == list(two[:length]):
        return length
    return next(place for place in range(length) if one[place] != two[place])


class KVMemory:
    """The keys and values of one sequence. Belongs to one thread at a time.

    `held` names the tokens whose keys and values are in it, and is set only after the pass that wrote them.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self.held: list[int] = []

    def logits(self, tokens: list[int]) -> torch.Tensor:
        """The logits (vocabulary,) behind the last of `tokens`, float32 on the model's device, by one forward pass
        over those that are not held yet (at least the last one)."""
        keep = min(common_prefix(self.held, tokens), len(tokens) - 1)
        self._forget_from(keep)
        new = torch.tensor([tokens[len(self.held) :]], device=self._model.device)
        try:
            with torch.inference_mode():
                output: Any = self._model(
                    input_ids=new, past_key_values=self._cache, use_cache=True, logits_to_keep=1
                )
        except BaseException:
            self._reset()  # a pass that broke off may have written some layers and not others
            raise
        self.held = list(tokens)
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits

    def _forget_from(self, length: int) -> None:
        if length == len(self.held):
            return
        if any(self._cache.is_sliding):
            self._reset()  # what slid out of the window is gone, so it can't be wound back
            return
        self._cache.crop(length - len(self.held))
        self.held = self.held[:length]

    def _reset(self) -> None:
        self._cache = DynamicCache(config=self._model.config)
        self.held = []


class KVPool:
    """KV memories that no call uses at the moment: at most `size`, the longest unused dropped first."""

    def __init__(self, model: PreTrainedModel, size: int) -> None:
        self._model = model
        self._size = size
        self._free: list[KVMemory] = []
        self._lock = threading.Lock()

    def take(self, tokens: list[int]) -> KVMemory:
        """The free memory that agrees longest with `tokens`; a new one where none agrees at all."""
        with self._lock:
            best = max(self._free, key=lambda memory: common_prefix(memory.held, tokens), default=None)
            if best is not None and common_prefix(best.held, tokens):
                self._free.remove(best)
                return best
        return KVMemory(self._model)

    def clear(self) -> None:
        """Forget what no call uses."""
        with self._lock:
            self._free.clear()

    def give_back(self, memory: KVMemory) -> None:
        with self._lock:
            if memory.held:
                self._free.append(memory)
            del self._free[: -self._size]
