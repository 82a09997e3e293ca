"""The interface of a KV cache: slots that sequences take and release."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from server.engine.image_features import ImageFeatures

# How CUDA, the CPU's allocator, the operating system and cuBLAS put it.
_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that a device, or the host, has run out of memory."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def common_prefix(one: Sequence[int], two: Sequence[int]) -> int:
    """The length of the prefix that two sequences share."""
    length = min(len(one), len(two))
    for start in range(0, length, 64):
        end = min(start + 64, length)
        if one[start:end] != two[start:end]:
            return next(place for place in range(start, end) if one[place] != two[place])
    return length


@dataclass(eq=False)
class Slot:
    """The place of one sequence in the KV cache. `cached_tokens`: the tokens whose keys and values are in it; updated
    only after the pass that wrote them."""

    index: int
    cached_tokens: list[int] = field(default_factory=list)
    taken: bool = False
    used: int = 0
    """A counter: the slot with the lowest number is the least recently used."""


class KVCache(Protocol):
    """The KV cache of one model. Only the thread that runs the model may call it."""

    images: "ImageFeatures | None"
    """The features of pictures, for a model that takes images. They are freed with the cache."""

    @property
    def bytes(self) -> int:
        """The memory that it takes now. Any thread may read this."""

    def take(self, tokens: Sequence[int]) -> Slot | None:
        """A slot for a sequence that begins with `tokens`, with the longest prefix of them that is cached (never all:
        the model has to read the last one). None if all slots are taken and there is no memory for another.

        Raises MemoryError if the sequence alone exceeds the budget, and the device's error if the device has less.
        Then slots that are taken may have lost their tokens: call `ensure_capacity` before the next `run`.
        """

    def ensure_capacity(self, length: int) -> bool:
        """Make every taken slot long enough for `length` tokens. False if that needs the memory of another taken
        slot. Raises what `take` raises."""

    def prefix_match(self, tokens: Sequence[int]) -> int:
        """The length of the longest prefix of `tokens` that is cached in a slot."""

    def spare_capacity(self, slot: Slot) -> int:
        """The maximum number of draft tokens for this slot. Rejected ones are dropped by shortening `cached_tokens`;
        0 if dropping costs more than drafts save."""

    def run(self, batch: Sequence[tuple[Slot, Sequence[int]]], wanted: Sequence[int] | None = None) -> torch.Tensor:
        """One forward pass over the new tokens of each slot. Afterwards they are cached.

        Returns the logits after the last token of each slot, or after its last `wanted` tokens, in the order of
        `batch`: (all that are wanted, vocabulary), float32, on the model's device. If it raises, no slot has more
        cached tokens than before.
        """

    def release(self, slot: Slot) -> None:
        """Free the slot. Its tokens stay cached until the slot is needed."""

    def drop_idle(self) -> None:
        """Drop the cached tokens of free slots."""

    def clear(self) -> None:
        """Free all memory. No slot may be taken."""
