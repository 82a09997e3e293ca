"""Prompt lookup (n-gram speculation): draft tokens, so that one forward pass can confirm several tokens.

An agent's text repeats its prompt (a number of the question, the name of a tool) and recent texts (the same thought,
the same arguments). The draft is what followed the same n-gram there. A draft never changes a text: the model and the
grammar choose each token, and a draft token that equals the choice saves a pass. See prompt lookup decoding
(github.com/apoorvumang/prompt-lookup-decoding) and SuffixDecoding (arXiv 2411.04975), which also looks up earlier
texts.
"""

from collections.abc import Sequence
from itertools import islice

#: Lengths of the n-grams that are looked up, the longest first.
NGRAM_LENGTHS = (4, 3, 2)
#: Maximum number of draft tokens at once.
MAX_DRAFT_TOKENS = 8
#: Number of passes without a draft, by the number of rejected drafts in a row; the last one holds for more.
PAUSES = (0, 1, 3, 7, 15)
#: Maximum number of n-grams of recent texts.
REMEMBERED = 20_000

Places = dict[tuple[int, ...], int]


class RecentTexts:
    """The n-grams of recent texts of an engine. Only the thread that runs the model may call it."""

    def __init__(self) -> None:
        self._recent: dict[tuple[int, ...], tuple[Sequence[int], int]] = {}

    def remember(self, tokens: Sequence[int], start: int) -> None:
        """Add a finished text, which the model wrote from `start` on."""
        text = tokens[max(0, start - NGRAM_LENGTHS[0]) :]
        places: Places = {}
        _note(text, 0, places)
        for key, place in places.items():
            self._recent.pop(key, None)
            self._recent[key] = (text, place)
        for key in list(islice(self._recent, max(0, len(self._recent) - REMEMBERED))):
            del self._recent[key]

    def after(self, key: tuple[int, ...], most: int) -> Sequence[int]:
        """Up to `most` tokens that followed the n-gram `key` the last time."""
        text, place = self._recent.get(key, ((), 0))
        return text[place : place + most]


class PromptLookup:
    """The drafts for one sequence."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """`tokens`: the prompt."""
        self.start = len(tokens)
        """The length of the prompt."""
        self._places: Places = {}
        self._noted = 0
        self._rejected = 0
        """Drafts in a row of which no token was accepted."""
        self._pause = 0
        self._note(tokens)

    def propose(self, tokens: Sequence[int], most: int, others: RecentTexts) -> Sequence[int]:
        """Up to `most` draft tokens after `tokens`, the sequence as it is now; none during a pause."""
        self._note(tokens)
        if self._pause:
            self._pause -= 1
            return ()
        for length in NGRAM_LENGTHS:
            key = tuple(tokens[-length:])
            place = self._places.get(key)
            if found := others.after(key, most) if place is None else tokens[place : place + most]:
                return found
        return ()

    def report(self, accepted: int) -> None:
        """The number of tokens of the last draft that were accepted."""
        self._rejected = 0 if accepted else min(self._rejected + 1, len(PAUSES) - 1)
        self._pause = PAUSES[self._rejected]

    def _note(self, tokens: Sequence[int]) -> None:
        # After the grammar has backtracked some places are outdated; drafts from there are rejected.
        _note(tokens, min(self._noted, len(tokens)), self._places)
        self._noted = len(tokens)


def _note(tokens: Sequence[int], start: int, places: Places) -> None:
    """Record in `places` where each n-gram was followed by a token, from `start` on."""
    for length in NGRAM_LENGTHS:
        first = min(max(start, length), len(tokens))
        few = zip(*(tokens[first - length + nth : len(tokens) - length + nth] for nth in range(length)), strict=True)
        places.update(zip(few, range(first, len(tokens)), strict=True))
