"""What every kind of KV memory has in common: rows that sequences take and give back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

# How CUDA, the CPU's allocator, the operating system and cuBLAS put it.
_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that there is no memory left, on whatever device."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def common_prefix(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens two sequences share from their beginning."""
    length = min(len(one), len(two))
    for start in range(0, length, 64):
        end = min(start + 64, length)
        if one[start:end] != two[start:end]:
            return next(place for place in range(start, end) if one[place] != two[place])
    return length


@dataclass(eq=False)
class Row:
    """A place in KV memory. `held` names the tokens whose keys and values are in it, and is set only after the pass
    that wrote them."""

    index: int
    held: list[int] = field(default_factory=list)
    taken: bool = False
    used: int = 0
    """Counts up; the row with the least has been unused for longest."""


class Memory(Protocol):
    """KV memory of one model. Belongs to the thread that runs the model."""

    @property
    def bytes(self) -> int:
        """What it takes now. Any thread may ask."""

    def take(self, tokens: Sequence[int]) -> Row | None:
        """A row for a sequence that begins with `tokens`, holding as many of them as any row knows (never all: the
        last one is to be read anew). None where all rows are taken and there is no memory for another.

        Raises MemoryError where the sequence alone is more than there may be, and what the device raises where it has
        less. Then rows that are taken may hold nothing any more, and `reach` is to be called before the next `run`.
        """

    def reach(self, length: int) -> bool:
        """Make taken rows long enough for `length` tokens; False where that takes the place of another's. Raises what
        `take` raises."""

    def known(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, from the beginning, some row holds."""

    def spare(self, row: Row) -> int:
        """How many tokens could be read into the row as it is and, when they turn out to be other ones, be taken back
        by shortening `held`; 0 where that costs more than it saves."""

    def run(self, batch: Sequence[tuple[Row, Sequence[int]]], wanted: Sequence[int] | None = None) -> torch.Tensor:
        """The model reads the new tokens of each row, which hold them from then on.

        Gives the logits behind the last of each, or behind the last so many as are `wanted`, one row's after the
        other's in the order of `batch`: (all that are wanted, vocabulary), float32, on the model's device. Where it
        raises, no row holds more than before.
        """

    def give_back(self, row: Row) -> None:
        """The row is free, and keeps what it holds until the place is needed."""

    def forget(self) -> None:
        """Drop what no sequence uses at the moment."""

    def clear(self) -> None:
        """Give everything back. No row may be taken."""
