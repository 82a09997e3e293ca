"""Choosing the next tokens, on the model's device, for all sequences of a pass together."""

from collections.abc import Sequence as Several
from typing import Any

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from server.engine.images import FIRST_ID
from server.engine.sequence import Sequence

GREEDY_BELOW = 1e-5
CHANGES = ("repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias")
"""Parameters that change the logits, and so the likeliest token."""


def choose(
    logits: torch.Tensor, places: Several[int], likeliest: Several[int], sequences: Several[Sequence], end: int
) -> list[int]:
    """One token for each sequence, from the row of `logits` (rows, vocabulary) at its place. `likeliest`: the argmax
    of each row, without the grammar. `end`: the token that ends a text.

    If a grammar may end and the model chooses a forbidden token, the text ends, as in guidance.
    """
    tokens = [_likeliest(likeliest[place], sequence, end) for place, sequence in zip(places, sequences, strict=True)]
    open_ones = [number for number, token in enumerate(tokens) if token is None]
    if open_ones:
        rows = logits[[places[number] for number in open_ones]]
        masked = _masked(rows, [sequences[number] for number in open_ones], end)
        for number, token in zip(open_ones, masked, strict=True):
            tokens[number] = token
    return [token for token in tokens if token is not None]


def _likeliest(token: int, sequence: Sequence, end: int) -> int | None:
    """The next token of a sequence if the argmax of its row, `token`, is enough to know it; else None."""
    if _draws(sequence) or sequence.logprobs is not None:
        return None
    if sequence.allows(token):
        return token
    return end if sequence.may_end else None


def _draws(sequence: Sequence) -> bool:
    return sequence.temperature >= GREEDY_BELOW or any(map(sequence.sampling.get, CHANGES))


def _masked(logits: torch.Tensor, sequences: Several[Sequence], end: int) -> list[int]:
    """One token for each sequence, from `logits` (sequences, vocabulary) and the masks of the grammars."""
    masks = torch.stack([sequence.mask for sequence in sequences]).to(logits.device)
    bits = masks[..., None] >> torch.arange(8, dtype=torch.uint8, device=logits.device) & 1
    allowed = bits.flatten(1)[:, : logits.shape[1]].bool()
    may_end = torch.tensor([sequence.may_end for sequence in sequences], device=logits.device)
    offered = logits.masked_fill(~(allowed | may_end[:, None]), -torch.inf)
    chosen = offered.argmax(-1)
    for number, sequence in enumerate(sequences):
        if _draws(sequence):
            chosen[number] = _drawn(offered[number : number + 1], sequence)
        if sequence.logprobs is not None:
            sequence.logprobs.log_probability += float(offered[number].float().log_softmax(-1)[chosen[number]])
    fits = allowed.gather(1, chosen[:, None])[:, 0]
    return [int(token) for token in torch.where(fits, chosen, end).tolist()]


def _drawn(scores: torch.Tensor, sequence: Sequence) -> torch.Tensor:
    """A token sampled from `scores` (1, vocabulary), with Transformers' own logits processors."""
    wanted = sequence.sampling
    penalty, top_k = wanted.get("repetition_penalty"), wanted.get("top_k")
    top_p, min_p = wanted.get("top_p"), wanted.get("min_p")
    # Image tokens are no tokens of the vocabulary: no penalty is about them.
    tokens: Any = torch.tensor([[token for token in sequence.tokens if token < FIRST_ID]], device=scores.device)
    if penalty:
        scores = RepetitionPenaltyLogitsProcessor(penalty)(tokens, scores)
    scores = _adjusted(scores, sequence)
    if sequence.temperature < GREEDY_BELOW:
        return scores[0].argmax()
    scores = TemperatureLogitsWarper(sequence.temperature)(tokens, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(tokens, scores)
    if top_p:
        scores = TopPLogitsWarper(top_p)(tokens, scores)
    if min_p:
        scores = MinPLogitsWarper(min_p)(tokens, scores)
    if sequence.random is None and wanted.get("seed") is not None:
        sequence.random = torch.Generator(scores.device).manual_seed(wanted["seed"])
    return torch.multinomial(scores.softmax(-1), 1, generator=sequence.random)[0, 0]


def _adjusted(scores: torch.Tensor, sequence: Sequence) -> torch.Tensor:
    """`scores` with the penalties for what was written, and with the bias."""
    wanted = sequence.sampling
    bias = wanted.get("logit_bias")
    presence, frequency = wanted.get("presence_penalty") or 0.0, wanted.get("frequency_penalty") or 0.0
    if not (bias or presence or frequency):
        return scores
    scores, width = scores.clone(), scores.shape[-1]
    if presence or frequency:
        written = torch.tensor(sequence.tokens[sequence.lookup.start :], dtype=torch.long, device=scores.device)
        ids, counts = written[written < width].unique(return_counts=True)
        scores[0, ids] -= presence + frequency * counts.to(scores.dtype)
    if bias:
        ids = torch.tensor(list(bias), device=scores.device)
        scores[0, ids] += torch.tensor(list(bias.values()), dtype=scores.dtype, device=scores.device)
    return scores
