"""Guesses at how a text goes on, so that a forward pass can confirm several tokens where it would write one.

An agent's text repeats what stands before it (a number of the question, the name of a tool) and what was written
lately (the same thought, the same arguments). The guess is what followed the same few tokens there. It never changes
a text: each token is chosen by the model and the grammar as ever, and a guess only saves the pass between two that
were guessed right. After prompt lookup decoding (github.com/apoorvumang/prompt-lookup-decoding) and SuffixDecoding
(arXiv 2411.04975), which takes in what was written before.
"""

from collections.abc import Sequence
from itertools import islice

#: How many tokens have to agree, the best first.
AGREEING = (4, 3, 2)
#: Tokens that are guessed at once.
LONGEST = 8
#: Passes without a guess after so many that went wrong in a row, of which more are as the last.
RESTS = (0, 1, 3, 7, 15)
#: Places in texts written lately.
REMEMBERED = 20_000

Places = dict[tuple[int, ...], int]


class Drafts:
    """What was written lately, by all sequences of an engine. Belongs to the thread that runs the model."""

    def __init__(self) -> None:
        self._lately: dict[tuple[int, ...], tuple[Sequence[int], int]] = {}

    def remember(self, tokens: Sequence[int], start: int) -> None:
        """A text has come to its end that was written from `start` on."""
        text = tokens[max(0, start - AGREEING[0]) :]
        places: Places = {}
        _note(text, 0, places)
        for key, place in places.items():
            self._lately.pop(key, None)
            self._lately[key] = (text, place)
        for key in list(islice(self._lately, max(0, len(self._lately) - REMEMBERED))):
            del self._lately[key]

    def after(self, key: tuple[int, ...], most: int) -> Sequence[int]:
        """Up to `most` tokens that followed these the last time."""
        text, place = self._lately.get(key, ((), 0))
        return text[place : place + most]


class Draft:
    """The guesses for one sequence."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """`tokens`: its beginning."""
        self.start = len(tokens)
        """Where what is written begins."""
        self._places: Places = {}
        self._noted = 0
        self._wrong = 0
        """Guesses in a row of which no token was right."""
        self._rest = 0
        self._note(tokens)

    def next(self, tokens: Sequence[int], most: int, others: Drafts) -> Sequence[int]:
        """Up to `most` tokens that may follow `tokens`, the sequence as it is now; none while guesses go wrong."""
        self._note(tokens)
        if self._rest:
            self._rest -= 1
            return ()
        for length in AGREEING:
            key = tuple(tokens[-length:])
            place = self._places.get(key)
            if found := others.after(key, most) if place is None else tokens[place : place + most]:
                return found
        return ()

    def judge(self, right: int) -> None:
        """Of the last guess so many tokens were right."""
        self._wrong = 0 if right else min(self._wrong + 1, len(RESTS) - 1)
        self._rest = RESTS[self._wrong]

    def _note(self, tokens: Sequence[int]) -> None:
        # After a step back of the grammar some places are not what they were, and guesses from there go wrong.
        _note(tokens, min(self._noted, len(tokens)), self._places)
        self._noted = len(tokens)


def _note(tokens: Sequence[int], start: int, places: Places) -> None:
    """Where each few tokens were followed by one from `start` on."""
    for length in AGREEING:
        first = min(max(start, length), len(tokens))
        few = zip(*(tokens[first - length + nth : len(tokens) - length + nth] for nth in range(length)), strict=True)
        places.update(zip(few, range(first, len(tokens)), strict=True))
