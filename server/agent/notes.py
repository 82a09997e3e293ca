"""What a session remembers: how much of it a question is shown, and what a model adds to its notepad."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from . import prompts
from .agent import Message
from .chat import Chat

# Of what the history may take, turns as they were get this much, and notes of the others the rest.
RECENT_SHARE = 1 / 2
MOST_TOKENS = 8192
NOTE_TOKENS = 512
# A title is some of the question's words, in a row.
LEAST_TITLE_WORDS, MOST_TITLE_WORDS, WORDS_FOR_TITLES = 3, 8, 20
# What an entry may say of a long answer is one of its passages.
LONGEST_PASSAGE, MOST_PASSAGES, LONGEST_NOTED = 300, 20, 6000


def recall(model: Any, question: str, turns: Sequence[Mapping[str, Any]], share: float) -> list[Message]:
    """What `question` is shown of the `turns` before it: at most this share of the model's window.

    The last turns are shown as they were, in full; the others by what the notepad says of them, in one message of the
    role system. Where not all of that fits, what has words in common with the question goes first, then the latest.
    A turn has `number`, `question`, `answer` and `entry`, the notepad's, which is None where somebody took it out.
    """
    agent = Chat(model, {}, 0)
    tokens = min(int(model.context_length * share), MOST_TOKENS)

    def size(*messages: Message) -> int:
        return agent.open([dict(one) for one in messages]).length

    nothing = size({"role": "user", "content": ""})

    def size_within(text: str) -> int:
        return size({"role": "user", "content": text}) - nothing

    def as_was(turn: Mapping[str, Any]) -> list[Message]:
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
    history: list[Message] = []
    if shown:
        notes = "\n".join(shown[number] for number in sorted(shown))
        history.append({"role": "system", "content": prompts.NOTES.format(notes=notes)})
    return history + [message for turn in recent for message in as_was(turn)]


def by_relevance(question: str, turns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """`turns`, those first that share words with `question` which few of them have, and then the latest."""
    words = {turn["number"]: _words(turn) for turn in turns}
    having = Counter(word for found in words.values() for word in found)
    asked = _split(question)

    def worth(turn: Mapping[str, Any]) -> float:
        return sum(math.log(len(turns) / having[word]) for word in asked & words[turn["number"]])

    return sorted(turns, key=lambda turn: (-worth(turn), -turn["number"]))


def write_note(complete: Callable[..., str], record: Mapping[str, Any]) -> dict[str, str]:
    """What a model adds to the entry of a run: its `title`, in words of the question, and what it `found`, which is a
    passage of the answer where that is long. Neither can be wrong, however poor the model is.

    `complete(messages, max_tokens=..., schema=...)` has the background model write JSON.
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
    written = complete(prompts.conversation(prompts.WRITE_NOTE, asked), max_tokens=NOTE_TOKENS, schema=schema)
    # Not every model behind an API keeps to a schema.
    try:
        note = json.loads(written)
    except ValueError:
        return {}
    return {name: note[name] for name, texts in options.items() if isinstance(note, dict) and note.get(name) in texts}


def _titles(question: str) -> list[str]:
    """What a question may be called."""
    words = question.split()[:WORDS_FOR_TITLES]
    least = min(LEAST_TITLE_WORDS, len(words))
    spans = [
        " ".join(words[first : first + count]).strip(" ,;:.?!")
        for first in range(len(words))
        for count in range(least, min(MOST_TITLE_WORDS, len(words) - first) + 1)
    ]
    return list(dict.fromkeys(span for span in spans if span)) or [" ".join(words)]


def _passages(answer: str) -> list[str]:
    """Sentences of an answer, as many in a row as fit a passage; the whole answer where it does."""
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
    # So that a question for the third answer finds it.
    ordinal = prompts.ORDINALS[turn["number"] - 1 : turn["number"]]
    return _split(" ".join([*text, *ordinal]))


def _split(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
