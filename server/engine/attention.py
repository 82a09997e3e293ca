"""The attention of one pass over KV rows: the tokens of all sequences stand side by side, and each sees its own row.

On a CPU it takes as long as the memory that it reads. Rows that begin alike, as those of all do who ask the same
tools, hold the same keys and values there, so that beginning is read once for all of them. What they see in it, and
what each sees in the rest of its own row, are put together by their weights (Hydragen,
https://arxiv.org/abs/2402.05099).
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

from server.engine.kv_cache import Row, common_prefix

#: Under which it is known to Transformers.
ATTENTION = "hearth_rows"
#: Rows with as many new tokens each are attended to at once up to this number of tokens.
SIDE_BY_SIDE = 16
#: How many rows have to begin alike, and for how many tokens, before it saves time to read that once.
FEWEST_ALIKE, SHORTEST_ALIKE = 3, 64

Batch = Sequence[tuple[Row, Sequence[int]]]
"""Rows, with the new tokens of each."""
Written = Callable[[int, torch.Tensor, torch.Tensor, "Plan"], tuple[torch.Tensor, torch.Tensor]]
"""Writes a layer's new keys and values (heads, tokens, width) into the rows of a plan, and gives all of that layer's
(rows, heads, capacity, width)."""


@dataclass(frozen=True)
class Part:
    """Rows from `first` to `end` with `width` new tokens each, which stand together from `start` on, and the tokens
    that each row will hold then."""

    first: int
    end: int
    start: int
    width: int
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> slice:
        """Where they stand."""
        return slice(self.start, self.start + (self.end - self.first) * self.width)


@dataclass(frozen=True)
class Alike:
    """`rows` that share their first `share` tokens, and have at most `longest` more. Their new tokens stand at
    `tokens`.

    `padded` (rows, most new tokens): where each row's new tokens stand among those, its last one again where a row
    has fewer. `back`: where each of them stands in that. `places`, like `padded`: the place in its row, from what is
    shared on.
    """

    rows: slice | torch.Tensor
    share: int
    longest: int
    tokens: slice
    padded: torch.Tensor
    back: torch.Tensor
    places: torch.Tensor


@dataclass(frozen=True)
class Stretch:
    """Rows whose new tokens stand together; `alike` where they begin alike."""

    parts: tuple[Part, ...]
    alike: Alike | None = None


class Plan:
    """Where the tokens of one pass belong."""

    def __init__(self, batch: Batch, wanted: Sequence[int], device: torch.device, written: Written) -> None:
        """Of the new tokens of each row, the logits behind the last so many are `wanted`."""
        self.written = written
        self.windows: set[int | None] = set()
        """How many tokens back the layers look that have been run; None: to the beginning."""
        by_index = sorted(range(len(batch)), key=lambda number: batch[number][0].index)
        groups = _groups(batch, by_index) if device.type == "cpu" else []
        in_groups = {number for group, _ in groups for number in group}
        others = [number for number in by_index if number not in in_groups]
        self.order = [*others, *(number for group, _ in groups for number in group)]
        """The numbers of the batch in the order in which their tokens stand."""
        rows, news = [batch[number][0] for number in self.order], [batch[number][1] for number in self.order]
        self.tokens = torch.tensor([token for new in news for token in new], device=device)
        self.slots = torch.tensor(
            [row.index for row, new in zip(rows, news, strict=True) for _ in new], device=device
        )
        self.places = torch.tensor(
            [len(row.held) + place for row, new in zip(rows, news, strict=True) for place in range(len(new))],
            device=device,
        )
        ends = list(itertools.accumulate(map(len, news)))
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
        for group, share in groups:
            members = [batch[number] for number in group]
            alike = _alike(members, share, start)
            self.stretches.append(Stretch(_parts(members, start), alike))
            start = alike.tokens.stop
        self._masks: dict[tuple[Part | int, int | None, int], torch.Tensor | None] = {}

    def mask(self, part: Part, window: int | None, groups: int, dtype: torch.dtype) -> torch.Tensor | None:
        """What is added to the scores: (rows, 1, groups x width, longest), 0 where the new tokens may attend to and
        else -inf; None where they may attend to everything. `window` is how many tokens back, where that is
        bounded."""
        key = (part, window, groups)
        if key not in self._masks:
            lengths = torch.tensor(part.lengths, device=self.slots.device)
            longest = max(part.lengths)
            if part.width == 1 and min(part.lengths) == longest and (window is None or longest <= window):
                self._masks[key] = None
            else:
                # Of each new token, its own place; of each row.
                own = lengths[:, None] - part.width + torch.arange(part.width, device=lengths.device)
                column = torch.arange(longest, device=lengths.device)
                allowed = column <= own[..., None]
                if window is not None:
                    allowed &= column > own[..., None] - window
                self._masks[key] = _added(allowed, groups, dtype)
        return self._masks[key]

    def mask_alike(self, alike: Alike, groups: int, dtype: torch.dtype) -> torch.Tensor:
        """The same for what rows don't share."""
        key = (alike.tokens.start, None, groups)
        if key not in self._masks:
            self._masks[key] = _added(torch.arange(alike.longest) <= alike.places[..., None], groups, dtype)
        mask = self._masks[key]
        assert mask is not None
        return mask


def _added(allowed: torch.Tensor, groups: int, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)
    return mask.repeat(1, groups, 1)[:, None]


def _groups(batch: Batch, numbers: Sequence[int]) -> list[tuple[list[int], int]]:
    """Those of the `numbers` whose rows begin alike, and how many tokens they share."""
    groups: list[tuple[list[int], int]] = []
    for number in numbers:
        row, new = batch[number]
        if len(new) > SIDE_BY_SIDE:
            continue
        for place, (group, shared) in enumerate(groups):
            both = min(shared, common_prefix(batch[group[0]][0].held, row.held))
            if both >= SHORTEST_ALIKE and 2 * both >= shared:
                groups[place] = ([*group, number], both)
                break
        else:
            groups.append(([number], len(row.held)))
    return [(group, share) for group, share in groups if _saves([batch[number] for number in group], share)]


def _saves(members: Batch, share: int) -> bool:
    """Whether it saves time to read once what `members` share: what they have beyond it is read as if all had as much
    as the longest."""
    lengths = [len(row.held) + len(new) for row, new in members]
    padded = len(members) * (max(lengths) - share)
    return len(members) >= FEWEST_ALIKE and 4 * (share + padded) <= 3 * sum(lengths)


def _parts(members: Batch, start: int) -> tuple[Part, ...]:
    """Rows in the order of their index as parts, the first of which stands at `start`."""
    parts: list[Part] = []
    for row, new in members:
        length = len(row.held) + len(new)
        last = parts[-1] if parts else None
        if last and len(new) == last.width <= SIDE_BY_SIDE and row.index == last.end:
            parts[-1] = Part(last.first, row.index + 1, last.start, last.width, (*last.lengths, length))
        else:
            parts.append(Part(row.index, row.index + 1, start, len(new), (length,)))
        start += len(new)
    return tuple(parts)


def _alike(members: Batch, share: int, start: int) -> Alike:
    indices = [row.index for row, _ in members]
    widths = torch.tensor([len(new) for _, new in members])
    held = torch.tensor([len(row.held) for row, _ in members])
    most = int(widths.max())
    number = torch.arange(most).minimum(widths[:, None] - 1)
    return Alike(
        rows=slice(indices[0], indices[-1] + 1) if indices[-1] - indices[0] < len(indices) else torch.tensor(indices),
        share=share,
        longest=int((held + widths).max()) - share,
        tokens=slice(start, start + int(widths.sum())),
        padded=(widths.cumsum(0) - widths)[:, None] + number,
        back=(torch.arange(most) < widths[:, None]).flatten().nonzero()[:, 0],
        places=held[:, None] - share + number,
    )


_plan: ContextVar[Plan] = ContextVar("plan")


@contextmanager
def running(plan: Plan) -> Iterator[None]:
    """Within it the model's passes are of `plan`."""
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
    """Attention as Transformers' models call it, over the rows of the plan of this pass.

    `query` (1, heads, tokens, width), `key` and `value` (1, key heads, tokens, width), already turned by position.
    Gives (1, tokens, heads, width). `softcap` as in Gemma 2, `s_aux` (a sink a head) as in GPT-OSS.
    """
    plan = _plan.get()
    plan.windows.add(sliding_window)
    keys, values = plan.written(int(module.layer_idx), key[0], value[0], plan)  # type: ignore[arg-type]
    heads, shared = query.shape[1], key.shape[1]
    groups = heads // shared
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plain = softcap is None and s_aux is None
    out = query.new_empty(query.shape[2], heads, value.shape[-1])
    # The query heads that share a key head become more queries of that head, so that nothing is repeated.
    asking = query[0].unflatten(0, (shared, groups))
    for stretch in plan.stretches:
        alike = stretch.alike if plain and key.shape[-1] == value.shape[-1] else None
        if alike is not None and (sliding_window is None or alike.share + alike.longest <= sliding_window):
            mask = plan.mask_alike(alike, groups, query.dtype)
            seen = _attend_alike(asking[:, :, alike.tokens], keys, values, alike, mask, scale)
            out[alike.tokens] = seen.permute(2, 0, 1, 3).flatten(1, 2)
            continue
        for part in stretch.parts:
            rows, width, longest = part.end - part.first, part.width, max(part.lengths)
            asked = asking[:, :, part.tokens].unflatten(2, (rows, width)).permute(2, 0, 1, 3, 4).flatten(2, 3)
            known = keys[part.first : part.end, :, :longest]
            told = values[part.first : part.end, :, :longest]
            added = plan.mask(part, sliding_window, groups, query.dtype)
            if plain:
                seen = F.scaled_dot_product_attention(asked, known, told, attn_mask=added, scale=scale)
            else:
                seen = _attend_unlike_others(asked, known, told, added, scale, softcap, s_aux)
            seen = seen.unflatten(2, (groups, width)).permute(0, 3, 1, 2, 4)
            out[part.tokens] = seen.reshape(rows * width, heads, -1)
    return out[None], None


def _attend_unlike_others(
    asked: torch.Tensor,
    known: torch.Tensor,
    told: torch.Tensor,
    added: torch.Tensor | None,
    scale: float,
    softcap: float | None,
    s_aux: torch.Tensor | None,
) -> torch.Tensor:
    """As `scaled_dot_product_attention`, with what that doesn't do."""
    scores = asked @ known.transpose(2, 3) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if added is not None:
        scores = scores + added
    if s_aux is not None:
        rows, shared, asked_of_each, _ = scores.shape
        groups = len(s_aux) // shared
        sinks = s_aux.view(1, shared, groups, 1).expand(rows, -1, -1, asked_of_each // groups).flatten(2)[..., None]
        scores = torch.cat([scores, sinks.to(scores.dtype)], dim=-1)
    chances = scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
    return chances[..., : known.shape[2]] @ told


def _attend_alike(
    asking: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, alike: Alike, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """What `asking` (key heads, groups, tokens, width) sees; of the same shape."""
    shared, groups, _, width = asking.shape
    rows, most = alike.padded.shape
    # The attention that `scaled_dot_product_attention` takes on a CPU; this tells the weights as well.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    first = alike.rows.start if isinstance(alike.rows, slice) else int(alike.rows[0])
    beginning = slice(0, alike.share)
    seen, weight = attention(
        asking.flatten(1, 2)[None],
        keys[first : first + 1, :, beginning],
        values[first : first + 1, :, beginning],
        scale=scale,
    )
    seen, weight = seen.view(asking.shape), weight.view(asking.shape[:3])
    rest = slice(alike.share, alike.share + alike.longest)
    by_row = asking[:, :, alike.padded.flatten()].unflatten(2, (rows, most)).permute(2, 0, 1, 3, 4)
    own, own_weight = attention(
        by_row.flatten(2, 3), keys[alike.rows, :, rest], values[alike.rows, :, rest], attn_mask=mask, scale=scale
    )
    own = own.view(rows, shared, groups, most, width).permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, alike.back]
    own_weight = own_weight.view(rows, shared, groups, most).permute(1, 2, 0, 3).flatten(2)[:, :, alike.back]
    # Both weights are logarithms of what the scores of a token amount to.
    return torch.lerp(own, seen, torch.sigmoid(weight - own_weight)[..., None].to(own.dtype))


AttentionInterface.register(ATTENTION, attend)
