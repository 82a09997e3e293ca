"""A session's memory: which part of it a question gets, and what a model adds to its notepad."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from . import prompts
from .agent import HistoryMessage
from .chat import Chat

# The share of the history for whole exchanges; notes on the others get the rest.
RECENT_SHARE = 1 / 2
MOST_TOKENS = 8192
NOTE_TOKENS = 512
# A title is some of the question's words, in a row.
LEAST_TITLE_WORDS, MOST_TITLE_WORDS, WORDS_FOR_TITLES = 3, 8, 20
# An entry has one passage of a long answer.
LONGEST_PASSAGE, MOST_PASSAGES, LONGEST_NOTED = 300, 20, 6000


def recall(model: Any, question: str, turns: Sequence[Mapping[str, Any]], share: float) -> list[HistoryMessage]:
    """The history for `question`: messages about the `turns` before it, at most this share of the context length.

    The last exchanges are complete. The notepad's entries for the others are in one system message. If not all of
    them fit, those with words of the question take precedence, then the latest. A turn has `number`, `question`,
    `answer` and `entry`, its notepad entry; None if a person deleted it.
    """
    agent = Chat(model, {}, 0)
    tokens = min(int(model.context_length * share), MOST_TOKENS)

    def size(*messages: HistoryMessage) -> int:
        return agent.open([dict(one) for one in messages]).length

    nothing = size({"role": "user", "content": ""})

    def size_within(text: str) -> int:
        return size({"role": "user", "content": text}) - nothing

    def as_was(turn: Mapping[str, Any]) -> list[HistoryMessage]:
        return [{"role": "user", "content": turn["question"]}, {"role": "assistant", "content": turn["answer"]}]

    sizes: list[int] = []
    for turn in reversed(turns):
        sizes.append(size(*as_was(turn)))
        if sum(sizes) > tokens:
            break
    if len(sizes) < len(turns) or sum(sizes) > tokens:
        sizes = [one for one, total in zip(sizes, accumulate(sizes), strict=True) if total <= tokens * RECENT_SHARE]
    noted, recent = turns[: len(turns) - len(sizes)], turns[len(turns) - len(sizes) :]

    left = tokens - sum(sizes) - size_within(prompts.NOTES.format(notes=""))
    shown: dict[int, str] = {}
    for turn in by_relevance(question, [one for one in noted if one["entry"]]):
        entry = turn["entry"]
        line = prompts.note(turn["number"], entry["asked"], entry["found"])
        left -= size_within(line)
        if left < 0:
            break
        shown[turn["number"]] = line
    history: list[HistoryMessage] = []
    if shown:
        notes = "\n".join(shown[number] for number in sorted(shown))
        history.append({"role": "system", "content": prompts.NOTES.format(notes=notes)})
    return history + [message for turn in recent for message in as_was(turn)]


def by_relevance(question: str, turns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """`turns`, sorted by the words that they share with `question`, weighted by their rarity, and then by time."""
    words = {turn["number"]: _words(turn) for turn in turns}
    having = Counter(word for found in words.values() for word in found)
    asked = _split(question)

    def worth(turn: Mapping[str, Any]) -> float:
        return sum(math.log(len(turns) / having[word]) for word in asked & words[turn["number"]])

    return sorted(turns, key=lambda turn: (-worth(turn), -turn["number"]))


def write_note(complete: Callable[..., str], record: Mapping[str, Any]) -> dict[str, str]:
    """What a model adds to the entry of a run: a `title` in words of the question, and `found`, the answer or a
    passage of it. The model only chooses among parts of the texts, so a poor model can't write anything wrong.

    `complete(messages, max_tokens=..., schema=..., words=...)` asks the background model for JSON. `words` are the
    request for it in the prompt of a model that can't be constrained to a schema.
    """
    options = {"title": _titles(record["question"]), "found": _passages(record["answer"])}
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "enum": texts} for name, texts in options.items()},
        "required": list(options),
        "additionalProperties": False,
    }
    question, answer = record["question"][:LONGEST_NOTED], record["answer"][:LONGEST_NOTED]
    asked = prompts.NOTED.format(question=question, answer=answer)
    written = complete(
        prompts.conversation(prompts.WRITE_NOTE, asked),
        max_tokens=NOTE_TOKENS,
        schema=schema,
        words=prompts.write_json(schema),
    )
    # Not every remote model keeps to a schema.
    try:
        note = json.loads(written)
    except ValueError:
        return {}
    return {name: note[name] for name, texts in options.items() if isinstance(note, dict) and note.get(name) in texts}


def _titles(question: str) -> list[str]:
    """The possible titles of a question."""
    words = question.split()[:WORDS_FOR_TITLES]
    least = min(LEAST_TITLE_WORDS, len(words))
    spans = [
        " ".join(words[first : first + count]).strip(" ,;:.?!")
        for first in range(len(words))
        for count in range(least, min(MOST_TITLE_WORDS, len(words) - first) + 1)
    ]
    return list(dict.fromkeys(span for span in spans if span)) or [" ".join(words)]


def _passages(answer: str) -> list[str]:
    """The passages of an answer: consecutive sentences up to the maximum length. A short answer is one passage."""
    passages = [""]
    for written in re.split(r"(?<=[.!?])\s+|\n+", answer):
        sentence = " ".join(written.split())
        joined = f"{passages[-1]} {sentence}".strip()
        if len(joined) <= LONGEST_PASSAGE:
            passages[-1] = joined
        else:
            passages.append(sentence[:LONGEST_PASSAGE])
    return list(dict.fromkeys(filter(None, passages)))[:MOST_PASSAGES] or [""]


def _words(turn: Mapping[str, Any]) -> set[str]:
    entry = turn["entry"]
    text = (entry.get("title") or "", entry["asked"], entry["found"], *entry["files"], *entry["variables"])
    # So that a question about the third answer finds it.
    ordinal = prompts.ORDINALS[turn["number"] - 1 : turn["number"]]
    return _split(" ".join([*text, *ordinal]))


def _split(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
