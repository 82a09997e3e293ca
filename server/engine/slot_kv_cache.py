"""KV memory in rows: what the model has already read of each sequence, contiguous, so that many are read at once.

A layer's keys are one tensor (rows, heads, capacity, width), its values another. A sequence owns a row while it is
decoded; afterwards the row keeps what it holds, for the next call of the same run or for whoever begins alike, until
somebody needs the place. The tokens of all sequences go through the model side by side, as one text without padding;
only the attention tells them apart.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from server.engine.attention import ATTENTION, Plan, running
from server.engine.kv_cache import Row, common_prefix

log = logging.getLogger(__name__)

MOST_ROWS = 64
#: Tokens that a model is asked about to find out whether rows fit it.
PROBE = 24
#: Free rows with something in them, above which the oldest makes room before another row is made.
ROWS_REMEMBERED = 16
SMALLEST_CAPACITY = 256


@dataclass(frozen=True)
class Layer:
    """What a token takes in a layer: a key and a value of each head."""

    heads: int
    key_width: int
    value_width: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes(self) -> int:
        return self.heads * (self.key_width + self.value_width) * self.dtype.itemsize


class KVRows:
    """The rows of one model; see `Memory`. Memory is taken for all layers at once, and never amid a pass."""

    def __init__(self, model: PreTrainedModel, budget: int) -> None:
        """`budget`: the bytes that all rows together may take. It may be changed at any time; what is there stays."""
        self._model = model
        model.set_attn_implementation(ATTENTION)
        self.budget = budget
        self.windows: set[int | None] = set()
        """How many tokens back the layers look that have been run; None: to the beginning."""
        self._layers: dict[int, Layer] = {}
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        self._clock = itertools.count(1)
        self.rows: list[Row] = []
        self.capacity = 0
        self._learn_layers()

    def _learn_layers(self) -> None:
        """By a pass of one token, in which each layer shows its keys and values."""
        row = Row(0)
        self.rows, self.capacity = [row], 1
        self.run([(row, [0])])
        self._layers = {
            number: Layer(keys.shape[1], keys.shape[3], self._values[number].shape[3], keys.dtype, keys.device)
            for number, keys in self._keys.items()
        }
        self.clear()

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self._keys.values(), *self._values.values()))

    @torch.inference_mode()
    def take(self, tokens: Sequence[int]) -> Row | None:
        self._shrink(len(tokens) + 1)
        if not self.reach(len(tokens) + 1):
            return None
        known = {row.index: common_prefix(row.held, tokens) for row in self.rows}
        source = max(self.rows, key=lambda row: known[row.index], default=None)
        shared = min(known[source.index], len(tokens) - 1) if source else 0
        if not shared:
            source = None
        # What a free row holds beyond the beginning that it shares is lost; not if that is most of it.
        free = [row for row in self.rows if not row.taken and 0 < len(row.held) <= 2 * known[row.index]]
        row = max(free, key=lambda one: known[one.index], default=None)
        own = known[row.index] if row is not None else 0
        if row is None:
            row = self._fresh(keep=source)
        if row is None:
            return None
        if source is not None and row is not source and own < shared:
            for tensor in (*self._keys.values(), *self._values.values()):
                tensor[row.index, :, :shared] = tensor[source.index, :, :shared]
        row.held = list(tokens[:shared])
        row.taken = True
        return row

    def known(self, tokens: Sequence[int]) -> int:
        return max((common_prefix(row.held, tokens) for row in self.rows), default=0)

    def give_back(self, row: Row) -> None:
        row.taken = False
        row.used = next(self._clock)

    def forget(self) -> None:
        for row in self.rows:
            if not row.taken:
                row.held = []

    def clear(self) -> None:
        self._keys, self._values, self.rows, self.capacity = {}, {}, [], 0

    @torch.inference_mode()
    def reach(self, length: int) -> bool:
        if length <= self.capacity and self._keys:
            return True
        capacity = max(self.capacity, _capacity(length))
        if self._most_rows(capacity) < 1:
            capacity = max(self.capacity, -(-length // SMALLEST_CAPACITY) * SMALLEST_CAPACITY)
        most = self._most_rows(capacity)
        if most < 1:
            raise MemoryError
        if most < sum(row.taken for row in self.rows):
            return False
        kept = sorted((row for row in self.rows if row.taken or row.held), key=lambda row: (not row.taken, -row.used))
        self._reshape(kept[:most], max(min(len(kept), most), 1), capacity)
        return True

    def _shrink(self, length: int) -> None:
        """Shorter rows again, for `length` tokens, where long ones left place for few and nobody uses them now."""
        capacity = _capacity(length)
        if (
            not any(row.taken for row in self.rows)
            and 4 * capacity <= self.capacity
            and self._most_rows(self.capacity) < ROWS_REMEMBERED
        ):
            self._keys, self._values = {}, {}
            self.rows, self.capacity = [], 0

    def spare(self, row: Row) -> int:
        return self.capacity - len(row.held)

    @torch.inference_mode()
    def run(self, batch: Sequence[tuple[Row, Sequence[int]]], wanted: Sequence[int] | None = None) -> torch.Tensor:
        wanted = wanted or [1] * len(batch)
        plan = Plan(batch, wanted, self._model.device, self._written)
        with running(plan):
            output: Any = self._model(
                input_ids=plan.tokens[None],
                position_ids=plan.places[None],
                use_cache=False,
                logits_to_keep=plan.wanted,
            )
        self.windows |= plan.windows
        for row, new in batch:
            row.held = [*row.held, *new]
        logits: torch.Tensor = output.logits[0].float()
        if plan.order == list(range(len(batch))):
            return logits
        pieces = dict(zip(plan.order, logits.split([wanted[number] for number in plan.order]), strict=True))
        return torch.cat([pieces[number] for number in range(len(batch))])

    def _written(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, plan: Plan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a layer's new keys and values (heads, tokens, width) into the rows; gives all of that layer's."""
        if not self._layers:
            for memory, new in ((self._keys, key), (self._values, value)):
                memory[layer] = new.new_zeros(1, new.shape[0], 1, new.shape[2])
        keys, values = self._keys[layer], self._values[layer]
        keys[plan.slots, :, plan.places] = key.transpose(0, 1)
        values[plan.slots, :, plan.places] = value.transpose(0, 1)
        return keys, values

    def _fresh(self, keep: Row | None) -> Row | None:
        """An empty row, a new one, or the one that was unused for longest (`keep` last of all); None where none is
        free."""
        free = sorted((row for row in self.rows if not row.taken), key=lambda row: (row is keep, row.used))
        empty = next((row for row in free if not row.held), None)
        most = self._most_rows(self.capacity)
        if empty is None and len(free) < ROWS_REMEMBERED and len(self.rows) < most:
            count = len(self.rows)
            self._reshape(self.rows, min(max(2 * count, 1), most), self.capacity)
            return self.rows[count]
        return empty or next(iter(free), None)

    def _most_rows(self, capacity: int) -> int:
        return min(MOST_ROWS, self.budget // (sum(layer.bytes for layer in self._layers.values()) * capacity))

    def _reshape(self, kept: list[Row], count: int, capacity: int) -> None:
        """Memory anew, for `count` rows of `capacity` tokens, with what `kept` rows hold; a layer after the other, so
        that little more than the new is ever there. Where there is no memory for it, nothing is held any more, and
        there are no rows but those that are taken."""
        length = max((len(row.held) for row in kept), default=0)
        order = [row.index for row in kept]
        try:
            for number, layer in self._layers.items():
                for memory, width in ((self._keys, layer.key_width), (self._values, layer.value_width)):
                    shape = (count, layer.heads, capacity, width)
                    new = torch.zeros(shape, dtype=layer.dtype, device=layer.device)
                    if number in memory:
                        new[: len(kept), :, :length] = memory[number][order, :, :length]
                    memory[number] = new
        except BaseException:
            self._keys, self._values = {}, {}
            kept = [row for row in self.rows if row.taken]
            for row in self.rows:
                row.held = []
            count, capacity = len(kept), self.capacity
            raise
        finally:
            self.rows = [*kept, *(Row(0) for _ in range(count - len(kept)))]
            for index, row in enumerate(self.rows):
                row.index = index
            self.capacity = capacity


def _capacity(length: int) -> int:
    return max(SMALLEST_CAPACITY, 1 << (length - 1).bit_length())


def _turns_by_length(config: Any) -> bool:
    """Whether how a token is turned by its position depends on the length of the text: a pass would take that of its
    longest text for all."""
    found = getattr(config, "rope_parameters", None) or {}
    by_layer = [part for part in found.values() if isinstance(part, dict)] or [found]
    kinds = {str(part.get("rope_type")) for part in by_layer}
    return "longrope" in kinds or any("dynamic" in kind for kind in kinds)


def fits(model: PreTrainedModel) -> bool:
    """Whether rows give the model's own logits. Leaves the model with the attention that it had.

    Models that do their attention themselves, or hold other state than keys and values, are found out by asking them
    something both ways; those that do so only far beyond that, by their configuration: they cut their attention into
    chunks, or turn positions by the length of the text.
    """
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ())
    if "chunked_attention" in layers or _turns_by_length(config):
        return False
    tokens = torch.arange(PROBE, device=model.device) * 7919 % config.vocab_size
    own = model.config._attn_implementation
    try:
        rows = KVRows(model, 2**62)
        row = rows.take(tokens.tolist())
        assert row is not None
        for piece in tokens.tolist()[: PROBE // 2], tokens.tolist()[PROBE // 2 :]:
            ours = rows.run([(row, piece)])[0]
    except Exception:  # boundary: models that rows don't fit fail in as many ways as there are models
        log.debug("rows don't fit %s", type(model).__name__, exc_info=True)
        return False
    finally:
        model.set_attn_implementation(own)
    if "sliding_attention" in layers and rows.windows == {None}:
        return False
    with torch.inference_mode():
        theirs = model(input_ids=tokens[None], use_cache=False, logits_to_keep=1).logits[0, -1].float()
    allowed = 0.001 if model.dtype == torch.float32 and not hasattr(model, "hf_quantizer") else 0.2
    return bool((ours - theirs).abs().mean() <= allowed * theirs.std())
