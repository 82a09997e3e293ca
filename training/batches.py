"""Batches of packed sequences: each group's prefix once, and after it the group's samples.

A sample attends to its prefix and, causally, to itself, as in serving, where each question has its own prompt.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import torch

from training import corpus
from training.tokenizer import Encoder

GROUPS_PER_STEP = 4
POOL = 32  # batches that are made at once and sorted, so that prefixes of similar length share a batch
LONGEST_PREFIX, LONGEST_SAMPLE = 900, 800  # tokens; the few longer ones are left out
#: Sequences are padded to a multiple of the first, batches to a multiple of the second: on a CPU, matrix products are
#: compiled for each new shape, which took a fifth of the time.
SEQUENCE_MULTIPLE, BATCH_MULTIPLE = 32, 256

Sequence = tuple[slice | None, slice]
"""Where the prefix of a sequence is, without its padding (None for a prefix itself), and where the sequence is, with
its padding."""

Encoded = tuple[list[int], list[tuple[list[int], list[float]]]]
"""The tokens of a group's prefix; the tokens and loss weights of its samples."""


@dataclass(frozen=True)
class Batch:
    """Packed sequences. `tokens`, their `positions` and their `loss_weights` have one entry for each token; the loss
    weight is 0 where the model does not write the token."""

    tokens: torch.Tensor
    positions: torch.Tensor
    loss_weights: torch.Tensor
    sequences: list[Sequence]

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            tokens=self.tokens.to(device),
            positions=self.positions.to(device),
            loss_weights=self.loss_weights.to(device),
        )


def padded(length: int, multiple: int) -> int:
    """`length`, rounded up to a multiple of `multiple`."""
    return -(-length // multiple) * multiple


def batches(encoder: Encoder, seed: int, groups_per_step: int = GROUPS_PER_STEP) -> Iterator[Batch]:
    """An endless stream of batches of the training corpus, on the CPU. `seed` determines them."""
    rng = Random(seed + 1)
    stream = corpus.sample_groups(seed)
    while True:
        pool: list[Encoded] = []
        for group in itertools.islice(stream, POOL * groups_per_step):
            prefix = encoder.prefix(group)
            samples = [encoder.sample(group, sample) for sample in group.samples]
            samples = [sample for sample in samples if len(sample[0]) <= LONGEST_SAMPLE]
            if samples and len(prefix) <= LONGEST_PREFIX:
                # Groups have equal numbers of samples: the others are repeated where some were too long.
                pool.append((prefix, list(itertools.islice(itertools.cycle(samples), corpus.SAMPLES_PER_GROUP))))
        pool.sort(key=lambda encoded: len(encoded[0]))
        steps = [pool[at : at + groups_per_step] for at in range(0, len(pool), groups_per_step)]
        rng.shuffle(steps)
        for groups in steps:
            yield _pack(groups, rng, encoder.tokenizer.pad_token_id)


def _pack(groups: list[Encoded], rng: Random, pad: int) -> Batch:
    tokens: list[int] = []
    positions: list[int] = []
    loss_weights: list[float] = []
    sequences: list[Sequence] = []

    def append(sequence: list[int], weights: list[float], first_position: int, prefix: slice | None) -> slice:
        start, length = len(tokens), padded(len(sequence), SEQUENCE_MULTIPLE)
        tokens.extend(sequence + [pad] * (length - len(sequence)))
        positions.extend(range(first_position, first_position + length))
        loss_weights.extend(weights + [0.0] * (length - len(sequence)))
        sequences.append((prefix, slice(start, start + length)))
        return slice(start, start + len(sequence))

    for prefix_tokens, samples in groups:
        prefix = append(prefix_tokens, [0.0] * len(prefix_tokens), 0, None)
        gap = rng.randint(1, 900) if rng.random() < 0.2 else 0  # so that the model meets longer distances
        for sample, weights in samples:
            append(sample, weights, len(prefix_tokens) + gap, prefix)
    if missing := padded(len(tokens), BATCH_MULTIPLE) - len(tokens):
        append([pad] * missing, [0.0] * missing, 0, None)
    return Batch(torch.tensor(tokens), torch.tensor(positions), torch.tensor(loss_weights), sequences)
