"""Situations as tokens, several in a batch, which the embedded model is trained on a step at a time.

Each situation's list of tools is there once, and its examples each attend to it and to themselves alone, as in
serving, where every question has that prompt of its own.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from transformers import PreTrainedTokenizerBase

from server.embedded import corpus
from server.embedded.examples import Example, Situation
from server.embedded.tokenizer import END, USER

SITUATIONS_A_STEP = 4
POOL = 32  # batches made at once, so that prompts of like length go together
#: What is a token or two counts for little beside whole texts, so it weighs more.
WEIGHT_OF_KIND = {"choose": 10.0, "earlier": 2.0}
LONGEST_PROMPT, LONGEST_EXAMPLE = 900, 800  # tokens; the few longer ones are left out
#: A text is filled up to a multiple of the first, a batch to one of the second: a CPU's matrix products are compiled
#: for each shape that they meet, which took a fifth of the time.
TEXT_GRAIN, BATCH_GRAIN = 32, 256

Text = tuple[slice | None, slice]
"""Where the prompt is that a text follows, None for a prompt itself; and where the text is, with what fills it up."""


@dataclass(frozen=True)
class Batch:
    """Texts one behind another: `tokens`, their `positions`, and `written`, the weights of those that the model has
    to write, 0 for the others (three of one length). A text sees its prompt and itself alone."""

    tokens: torch.Tensor
    positions: torch.Tensor
    written: torch.Tensor
    texts: list[Text]


class Encoder:
    """Turns situations into tokens, exactly as the server's chat template and tokenizer would."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, situation: Situation) -> list[int]:
        """What all examples of a situation begin with."""
        system = corpus.system(situation)
        return self((self._rendered([{"role": "system", "content": system}], asked=False) if system else "") + USER)

    def example(self, situation: Situation, example: Example) -> tuple[list[int], list[float]]:
        """An example behind that, and the weights of its tokens: above 0 where the model writes."""
        turns = [turn for turn in corpus.conversation(situation, example) if turn["role"] != "system"]
        asked = self._rendered(turns, asked=True)
        tokens = self(asked.removeprefix(USER))
        weight = WEIGHT_OF_KIND.get(example.kind, 1.0)
        written = [0.0] * len(tokens)
        for text, by_model in corpus.assistant_parts(example):
            part = self(text)
            tokens += part
            written += [by_model * weight] * len(part)
        return [*tokens, *self(END)], [*written, weight]

    def _rendered(self, turns: list[dict[str, str]], asked: bool) -> str:
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asked))


def filled_up(length: int, grain: int) -> int:
    """The next multiple of `grain`."""
    return -(-length // grain) * grain


def batches(encoder: Encoder, seed: int) -> Iterator[Batch]:
    rng = Random(seed + 1)
    stream = corpus.situations(seed)
    while True:
        pool = []
        for situation in itertools.islice(stream, POOL * SITUATIONS_A_STEP):
            prompt = encoder.prompt(situation)
            rows = [encoder.example(situation, example) for example in situation.examples]
            rows = [row for row in rows if len(row[0]) <= LONGEST_EXAMPLE]
            if rows and len(prompt) <= LONGEST_PROMPT:
                # As many in each situation: where some were too long, others come twice.
                pool.append((prompt, list(itertools.islice(itertools.cycle(rows), corpus.EXAMPLES_A_SITUATION))))
        pool.sort(key=lambda item: len(item[0]))
        groups = [pool[at : at + SITUATIONS_A_STEP] for at in range(0, len(pool), SITUATIONS_A_STEP)]
        rng.shuffle(groups)
        for group in groups:
            yield _batch(group, rng, encoder.tokenizer.pad_token_id)


def _batch(
    situations: list[tuple[list[int], list[tuple[list[int], list[float]]]]], rng: Random, padding: int
) -> Batch:
    tokens: list[int] = []
    positions: list[int] = []
    written: list[float] = []
    texts: list[Text] = []

    def put(text: list[int], weights: list[float], first_position: int, behind: slice | None) -> slice:
        start, length = len(tokens), filled_up(len(text), TEXT_GRAIN)
        tokens.extend(text + [padding] * (length - len(text)))
        positions.extend(range(first_position, first_position + length))
        written.extend(weights + [0.0] * (length - len(text)))
        texts.append((behind, slice(start, start + length)))
        return slice(start, start + len(text))

    for prompt, rows in situations:
        behind = put(prompt, [0.0] * len(prompt), 0, None)
        gap = rng.randint(1, 900) if rng.random() < 0.2 else 0  # practice with distances
        for text, weights in rows:
            put(text, weights, len(prompt) + gap, behind)
    if lacking := filled_up(len(tokens), BATCH_GRAIN) - len(tokens):
        put([padding] * lacking, [0.0] * lacking, 0, None)
    return Batch(torch.tensor(tokens), torch.tensor(positions), torch.tensor(written), texts)
