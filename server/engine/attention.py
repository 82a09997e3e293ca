"""Attention of one forward pass over KV cache slots. The new tokens of all sequences form one batch without padding,
and each sequence attends to its own slot only.

On a CPU, attention takes as long as the memory that it reads. Sequences with the same tools share a prefix, and its
keys and values are the same in each slot, so they are read once for all. The attention over the shared prefix and the
attention over the rest of each slot are then merged by their log-sum-exp (Hydragen, https://arxiv.org/abs/2402.05099).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from server.engine.kv_cache import Slot, common_prefix

#: The name of this attention in Transformers.
ATTENTION = "hearth_rows"
#: Adjacent slots with the same number of new tokens run in one call, up to this number of tokens a slot.
SIDE_BY_SIDE = 16
#: Minimum number of slots and of tokens for which reading a shared prefix once saves time.
MIN_SHARING, MIN_SHARED_TOKENS = 3, 64

Batch = Sequence[tuple[Slot, Sequence[int]]]
"""Slots, with the new tokens of each."""
Written = Callable[[int, torch.Tensor, torch.Tensor, "Plan"], tuple[torch.Tensor, torch.Tensor]]
"""Writes a layer's new keys and values (heads, tokens, width) into the slots of a plan. Returns all keys and values
of that layer (slots, heads, capacity, width)."""


@dataclass(frozen=True)
class Part:
    """Slots from `first` to `end` (exclusive) with `width` new tokens each, which start at `start` in the batch.
    `lengths`: the tokens in each slot after the pass."""

    first: int
    end: int
    start: int
    width: int
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> slice:
        """Where the new tokens are in the batch."""
        return slice(self.start, self.start + (self.end - self.first) * self.width)


@dataclass(frozen=True)
class SharedPrefix:
    """`slots` that share their first `length` tokens and have at most `longest` more. `tokens`: where their new
    tokens are in the batch.

    `padded` (slots, most new tokens): the index of each new token within `tokens`; the last one is repeated where a
    slot has fewer. `unpad`: the index of each new token in the flattened `padded`. `positions`, in the shape of
    `padded`: the position of each new token in its slot, counted from the end of the prefix.
    """

    slots: slice | torch.Tensor
    length: int
    longest: int
    tokens: slice
    padded: torch.Tensor
    unpad: torch.Tensor
    positions: torch.Tensor


@dataclass(frozen=True)
class Stretch:
    """Slots whose new tokens are adjacent in the batch, with their shared prefix if they have one."""

    parts: tuple[Part, ...]
    prefix: SharedPrefix | None = None


class Plan:
    """The layout of one pass: which token belongs to which slot, and what it may attend to."""

    def __init__(self, batch: Batch, wanted: Sequence[int], device: torch.device, written: Written) -> None:
        """`wanted`: for each slot, the number of its last tokens whose logits are needed."""
        self.written = written
        self.windows: set[int | None] = set()
        """The attention windows of the layers that have run, in tokens; None: unlimited."""
        by_index = sorted(range(len(batch)), key=lambda number: batch[number][0].index)
        groups = _groups(batch, by_index) if device.type == "cpu" else []
        in_groups = {number for group, _ in groups for number in group}
        others = [number for number in by_index if number not in in_groups]
        self.order = [*others, *(number for group, _ in groups for number in group)]
        """Indices into `batch`, in the order of the tokens in the pass."""
        slots, new_tokens = [batch[number][0] for number in self.order], [batch[number][1] for number in self.order]
        self.tokens = [token for new in new_tokens for token in new]
        self.slot_indices = torch.tensor(
            [slot.index for slot, new in zip(slots, new_tokens, strict=True) for _ in new], device=device
        )
        self.positions = torch.tensor(
            [
                len(slot.cached_tokens) + place
                for slot, new in zip(slots, new_tokens, strict=True)
                for place in range(len(new))
            ],
            device=device,
        )
        ends = list(itertools.accumulate(map(len, new_tokens)))
        self.wanted = torch.tensor(
            [
                place
                for number, end in zip(self.order, ends, strict=True)
                for place in range(end - wanted[number], end)
            ],
            device=device,
        )
        self.stretches = [Stretch(_parts([batch[number] for number in others], 0))]
        start = ends[len(others) - 1] if others else 0
        for group, length in groups:
            members = [batch[number] for number in group]
            prefix = _shared_prefix(members, length, start)
            self.stretches.append(Stretch(_parts(members, start), prefix))
            start = prefix.tokens.stop
        self._masks: dict[tuple[Part | int, int | None, int], torch.Tensor | None] = {}

    def mask(self, part: Part, window: int | None, groups: int, dtype: torch.dtype) -> torch.Tensor | None:
        """The mask that is added to the scores (slots, 1, groups x width, longest): 0 where a new token may attend,
        else -inf. None where every new token may attend to everything. `window`: the attention window in tokens."""
        key = (part, window, groups)
        if key not in self._masks:
            lengths = torch.tensor(part.lengths, device=self.slot_indices.device)
            longest = max(part.lengths)
            if part.width == 1 and min(part.lengths) == longest and (window is None or longest <= window):
                self._masks[key] = None
            else:
                # The position of each new token in its slot.
                own = lengths[:, None] - part.width + torch.arange(part.width, device=lengths.device)
                column = torch.arange(longest, device=lengths.device)
                allowed = column <= own[..., None]
                if window is not None:
                    allowed &= column > own[..., None] - window
                self._masks[key] = _added(allowed, groups, dtype)
        return self._masks[key]

    def mask_after_prefix(self, prefix: SharedPrefix, groups: int, dtype: torch.dtype) -> torch.Tensor:
        """The mask for the tokens after a shared prefix."""
        key = (prefix.tokens.start, None, groups)
        if key not in self._masks:
            self._masks[key] = _added(torch.arange(prefix.longest) <= prefix.positions[..., None], groups, dtype)
        mask = self._masks[key]
        assert mask is not None
        return mask


def _added(allowed: torch.Tensor, groups: int, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)
    return mask.repeat(1, groups, 1)[:, None]


def _groups(batch: Batch, numbers: Sequence[int]) -> list[tuple[list[int], int]]:
    """Groups of `numbers` whose slots share a prefix, each with the length of that prefix."""
    groups: list[tuple[list[int], int]] = []
    for number in numbers:
        slot, new = batch[number]
        if len(new) > SIDE_BY_SIDE:
            continue
        for place, (group, shared) in enumerate(groups):
            both = min(shared, common_prefix(batch[group[0]][0].cached_tokens, slot.cached_tokens))
            if both >= MIN_SHARED_TOKENS and 2 * both >= shared:
                groups[place] = ([*group, number], both)
                break
        else:
            groups.append(([number], len(slot.cached_tokens)))
    return [(group, length) for group, length in groups if _saves([batch[number] for number in group], length)]


def _saves(members: Batch, length: int) -> bool:
    """Whether reading a shared prefix of that length once saves time. The rest of each slot is read padded to the
    longest."""
    lengths = [len(slot.cached_tokens) + len(new) for slot, new in members]
    padded = len(members) * (max(lengths) - length)
    return len(members) >= MIN_SHARING and 4 * (length + padded) <= 3 * sum(lengths)


def _parts(members: Batch, start: int) -> tuple[Part, ...]:
    """Slots, sorted by index, as parts. The tokens of the first part are at `start` in the batch."""
    parts: list[Part] = []
    for slot, new in members:
        length = len(slot.cached_tokens) + len(new)
        last = parts[-1] if parts else None
        if last and len(new) == last.width <= SIDE_BY_SIDE and slot.index == last.end:
            parts[-1] = Part(last.first, slot.index + 1, last.start, last.width, (*last.lengths, length))
        else:
            parts.append(Part(slot.index, slot.index + 1, start, len(new), (length,)))
        start += len(new)
    return tuple(parts)


def _shared_prefix(members: Batch, length: int, start: int) -> SharedPrefix:
    indices = [slot.index for slot, _ in members]
    widths = torch.tensor([len(new) for _, new in members])
    cached = torch.tensor([len(slot.cached_tokens) for slot, _ in members])
    most = int(widths.max())
    number = torch.arange(most).minimum(widths[:, None] - 1)
    contiguous = indices[-1] - indices[0] < len(indices)
    return SharedPrefix(
        slots=slice(indices[0], indices[-1] + 1) if contiguous else torch.tensor(indices),
        length=length,
        longest=int((cached + widths).max()) - length,
        tokens=slice(start, start + int(widths.sum())),
        padded=(widths.cumsum(0) - widths)[:, None] + number,
        unpad=(torch.arange(most) < widths[:, None]).flatten().nonzero()[:, 0],
        positions=cached[:, None] - length + number,
    )


_plan: ContextVar[Plan] = ContextVar("plan")


@contextmanager
def running(plan: Plan) -> Iterator[None]:
    """In this context the model's passes use `plan`."""
    token = _plan.set(plan)
    try:
        yield
    finally:
        _plan.reset(token)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as Transformers' models call it, over the slots of the plan of this pass.

    `query` (1, heads, tokens, width), `key` and `value` (1, key heads, tokens, width), with positional embeddings
    applied. Returns (1, tokens, heads, width). `softcap` as in Gemma 2, `s_aux` (one attention sink a head) as in
    GPT-OSS.
    """
    plan = _plan.get()
    plan.windows.add(sliding_window)
    keys, values = plan.written(int(module.layer_idx), key[0], value[0], plan)  # type: ignore[arg-type]
    heads, key_heads = query.shape[1], key.shape[1]
    groups = heads // key_heads
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plain = softcap is None and s_aux is None
    out = query.new_empty(query.shape[2], heads, value.shape[-1])
    # Query heads with the same key head become more queries of that head, so that keys and values aren't repeated.
    queries = query[0].unflatten(0, (key_heads, groups))
    for stretch in plan.stretches:
        prefix = stretch.prefix if plain and key.shape[-1] == value.shape[-1] else None
        if prefix is not None and (sliding_window is None or prefix.length + prefix.longest <= sliding_window):
            mask = plan.mask_after_prefix(prefix, groups, query.dtype)
            attended = _attend_shared_prefix(queries[:, :, prefix.tokens], keys, values, prefix, mask, scale)
            out[prefix.tokens] = attended.permute(2, 0, 1, 3).flatten(1, 2)
            continue
        for part in stretch.parts:
            slots, width, longest = part.end - part.first, part.width, max(part.lengths)
            own_queries = queries[:, :, part.tokens].unflatten(2, (slots, width)).permute(2, 0, 1, 3, 4).flatten(2, 3)
            own_keys = keys[part.first : part.end, :, :longest]
            own_values = values[part.first : part.end, :, :longest]
            added = plan.mask(part, sliding_window, groups, query.dtype)
            if plain:
                attended = F.scaled_dot_product_attention(
                    own_queries, own_keys, own_values, attn_mask=added, scale=scale
                )
            else:
                attended = _attend_with_extras(own_queries, own_keys, own_values, added, scale, softcap, s_aux)
            attended = attended.unflatten(2, (groups, width)).permute(0, 3, 1, 2, 4)
            out[part.tokens] = attended.reshape(slots * width, heads, -1)
    return out[None], None


def _attend_with_extras(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    added: torch.Tensor | None,
    scale: float,
    softcap: float | None,
    s_aux: torch.Tensor | None,
) -> torch.Tensor:
    """`scaled_dot_product_attention` with soft caps and attention sinks, which torch's does not have."""
    scores = queries @ keys.transpose(2, 3) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if added is not None:
        scores = scores + added
    if s_aux is not None:
        slots, key_heads, queries_a_head, _ = scores.shape
        groups = len(s_aux) // key_heads
        sinks = s_aux.view(1, key_heads, groups, 1).expand(slots, -1, -1, queries_a_head // groups)
        scores = torch.cat([scores, sinks.flatten(2)[..., None].to(scores.dtype)], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
    return weights[..., : keys.shape[2]] @ values


def _attend_shared_prefix(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    prefix: SharedPrefix,
    mask: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """The attention of `queries` (key heads, groups, tokens, width), in the same shape."""
    key_heads, groups, _, width = queries.shape
    slots, most = prefix.padded.shape
    # The kernel of `scaled_dot_product_attention` on a CPU; called directly, it returns the log-sum-exp as well.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    first = prefix.slots.start if isinstance(prefix.slots, slice) else int(prefix.slots[0])
    beginning = slice(0, prefix.length)
    shared, shared_lse = attention(
        queries.flatten(1, 2)[None],
        keys[first : first + 1, :, beginning],
        values[first : first + 1, :, beginning],
        scale=scale,
    )
    shared, shared_lse = shared.view(queries.shape), shared_lse.view(queries.shape[:3])
    rest = slice(prefix.length, prefix.length + prefix.longest)
    by_slot = queries[:, :, prefix.padded.flatten()].unflatten(2, (slots, most)).permute(2, 0, 1, 3, 4)
    own, own_lse = attention(
        by_slot.flatten(2, 3), keys[prefix.slots, :, rest], values[prefix.slots, :, rest], attn_mask=mask, scale=scale
    )
    own = own.view(slots, key_heads, groups, most, width).permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, prefix.unpad]
    own_lse = own_lse.view(slots, key_heads, groups, most).permute(1, 2, 0, 3).flatten(2)[:, :, prefix.unpad]
    return torch.lerp(own, shared, torch.sigmoid(shared_lse - own_lse)[..., None].to(own.dtype))


AttentionInterface.register(ATTENTION, attend)
