"""KV memory for models whose attention can't be told apart by rows: a Transformers cache a sequence, read in turn."""

import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from server.engine.kv_cache import Row, common_prefix

#: Sequences at a time, and how many of those that have ended are remembered.
MOST_ROWS = 16


@dataclass(eq=False)
class CachedRow(Row):
    cache: DynamicCache | None = None
    length: int = 0
    """Tokens in the cache, which may be more than `held` after a step back."""


class Caches:
    """See `Memory`. Each pass is one for each sequence."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises ValueError for a model that takes no cache, such as a plain state-space model."""
        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise ValueError(
                f"{type(model).__name__} keeps no keys and values of what it has read, and can't be decoded here. "
                "Load a model with attention."
            )
        self._model = model
        self._rows: list[CachedRow] = []
        self._clock = itertools.count(1)

    @property
    def bytes(self) -> int:
        # Other threads ask this while the model's thread changes it: of all that may grow a copy is read.
        caches = [row.cache for row in list(self._rows)]
        return sum(
            tensor.nbytes
            for cache in caches
            for layer in (list(cache.layers) if cache else ())
            for tensor in list(vars(layer).values())
            if isinstance(tensor, torch.Tensor)
        )

    def take(self, tokens: Sequence[int]) -> Row | None:
        free = [row for row in self._rows if not row.taken]
        row = max(free, key=lambda one: common_prefix(one.held, tokens), default=None)
        if row is None or not common_prefix(row.held, tokens):
            if len(self._rows) < MOST_ROWS:
                row = CachedRow(len(self._rows))
                self._rows.append(row)
            else:
                row = min(free, key=lambda one: one.used, default=None)
        if row is not None:
            row.held = row.held[: min(common_prefix(row.held, tokens), len(tokens) - 1)]
            row.taken = True
        return row

    def reach(self, length: int) -> bool:
        return True  # a cache grows by itself

    def known(self, tokens: Sequence[int]) -> int:
        return max((common_prefix(row.held, tokens) for row in self._rows if not row.taken), default=0)

    def spare(self, row: Row) -> int:
        return 0  # many a cache can't be wound back, and is read anew

    def run(self, batch: Sequence[tuple[Row, Sequence[int]]], wanted: Sequence[int] | None = None) -> torch.Tensor:
        assert wanted is None or set(wanted) == {1}
        before = [(row, row.held) for row, _ in batch]
        try:
            return torch.stack([self._read(row, new) for row, new in batch if isinstance(row, CachedRow)])
        except BaseException:
            for row, held in before:
                row.held = row.held and held  # nothing where its cache was lost; else the cache is wound back
            raise

    def _read(self, row: CachedRow, new: Sequence[int]) -> torch.Tensor:
        if row.length > len(row.held) and not self._shortened(row):
            new, row.held = [*row.held, *new], []
        if row.cache is None:
            row.cache, row.length = DynamicCache(config=self._model.config), 0
        try:
            with torch.inference_mode():
                output: Any = self._model(
                    input_ids=torch.tensor([new], device=self._model.device),
                    past_key_values=row.cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
        except BaseException:
            row.cache, row.length, row.held = None, 0, []  # some layers may have been written and others not
            raise
        row.held = [*row.held, *new]
        row.length = len(row.held)
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits

    def _shortened(self, row: CachedRow) -> bool:
        """Whether the cache could be wound back to what is held; else it is gone."""
        assert row.cache is not None
        if row.held and all(type(layer) is DynamicLayer for layer in row.cache.layers):
            row.cache.crop(len(row.held) - row.length)
            row.length = len(row.held)
            return True
        row.cache, row.length = None, 0  # what slid out of a window, or a recurrent state, can't be wound back
        return False

    def give_back(self, row: Row) -> None:
        row.taken = False
        row.used = next(self._clock)

    def forget(self) -> None:
        self._rows = [row for row in self._rows if row.taken]
        for index, row in enumerate(self._rows):
            row.index = index

    def clear(self) -> None:
        self._rows = []
