"""Realistic tools of a lab or an office, and realistic questions for them, all written by hand.

`phrasings/handwritten_tools/` has one file for each subject. A tool there has

- `name`, `description`, `arguments` as in `ToolSpec`;
- `need`: what it returns or does, in words of its description;
- `values` of its arguments: for a text, examples or one of `KINDS`; for a number, the lowest and the highest;
- `results`: possible results;
- `questions`: templates with arguments as slots. Where the words imply an argument's value without naming it, the
  question is a table of the template (`ask`) and these arguments.

The tools of a file are distinct: each question fits only one of them.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from training import synthetic_questions, words
from training.phrasing import FOLDER, Phrasing
from training.samples import Sample, Step, ToolSpec, one_call

#: Kinds of text arguments, and a function that makes one.
KINDS: dict[str, Callable[[Random], str]] = {
    "person": lambda rng: rng.choice(words.PEOPLE),
    "place": lambda rng: rng.choice(words.PLACES),
    "code": words.identifier,
    "date": words.date,
    "time": lambda rng: f"{rng.randint(0, 23):02}:{rng.choice(('00', '15', '30', '45'))}",
    "word": words.any_word,
    "saying": lambda rng: words.saying(rng) if rng.random() < 0.7 else words.phrase(rng),
    "phrase": words.phrase,
    "sentence": words.sentence,
}
#: The share of text arguments that get any value instead of a typical one, so that the model learns to copy.
SURPRISING_SHARE = 0.25
#: The share of questions that name the tool, among those for tools that take one text.
NAMED_SHARE = 0.3
_SLOT = re.compile(r"\{(\w+)\}")
_IN_MARKS = re.compile(r"""(?<=["'«])\{(\w+)\}""")


@dataclass(frozen=True)
class HandwrittenTool:
    """`spec` is the tool as listed, perhaps renamed; `own` is the tool as written. The slots of `questions` have the
    argument names of `own`."""

    spec: ToolSpec
    own: ToolSpec
    subject: str
    need: str
    values: dict[str, Any]
    results: tuple[str, ...]
    questions: dict[str, dict[str, Any]]
    about: frozenset[str]
    """The telling words of its description. Tools of different subjects that share one are not listed together."""


@cache
def handwritten_tools() -> dict[str, tuple[HandwrittenTool, ...]]:
    """All handwritten tools, by subject."""
    return {
        file.stem: tuple(_read(file.stem, entry) for entry in tomllib.loads(file.read_text("utf-8"))["tools"])
        for file in sorted((FOLDER / "handwritten_tools").glob("*.toml"))
    }


def _read(subject: str, entry: dict[str, Any]) -> HandwrittenTool:
    arguments = {name: tuple(kind) if isinstance(kind, list) else kind for name, kind in entry["arguments"].items()}
    questions = [{"ask": one} if isinstance(one, str) else one for one in entry["questions"]]
    spec = ToolSpec(entry["name"], entry["description"], arguments)
    return HandwrittenTool(
        spec,
        spec,
        subject,
        entry["need"],
        entry.get("values", {}),
        tuple(entry["results"]),
        {one["ask"]: {name: value for name, value in one.items() if name != "ask"} for one in questions},
        frozenset(word for word in re.findall(r"[a-z]+", spec.description.lower()) if len(word) > 3),
    )


def choose(rng: Random, number: int, subject: str | None = None) -> list[HandwrittenTool]:
    """Up to `number` tools, some of them of one subject (`subject` or a random one). Tools of other subjects share no
    telling word with the rest."""
    subjects = handwritten_tools()
    main = subject or rng.choice(tuple(subjects))
    own = rng.sample(subjects[main], min(len(subjects[main]), rng.randint(1, number)))
    everything = [tool for subject, tools in subjects.items() if subject != main for tool in tools]
    chosen = [_renamed(rng, tool) for tool in own]
    for tool in rng.sample(everything, min(len(everything), 3 * number)):
        if len(chosen) < number and not any(tool.about & other.about for other in chosen):
            chosen.append(_renamed(rng, tool))
    rng.shuffle(chosen)
    return list({tool.spec.name: tool for tool in chosen}.values())


def missing(rng: Random, listed: Sequence[HandwrittenTool]) -> HandwrittenTool | None:
    """A tool that is not `listed` and that no listed one can replace; None if there is none."""
    subjects = handwritten_tools()
    here = {tool.subject for tool in listed}
    pool = [tool for subject, tools in subjects.items() for tool in tools if subject in here or rng.random() < 0.1]
    known = {tool.own.name for tool in listed}
    others = [
        tool
        for tool in pool
        if tool.own.name not in known
        and not any(tool.about & other.about for other in listed if other.subject != tool.subject)
    ]
    return rng.choice(others) if others else None


def _renamed(rng: Random, tool: HandwrittenTool) -> HandwrittenTool:
    """The same tool, sometimes with an invented name or invented argument names."""
    name, arguments = tool.spec.name, dict(tool.spec.arguments)
    if rng.random() < 0.2:
        name = words.invent_word(rng, 2)
    if rng.random() < 0.12:
        arguments = {
            words.invent_word(rng, 2) + ("?" if argument.endswith("?") else ""): kind
            for argument, kind in arguments.items()
        }
        if len(arguments) < len(tool.spec.arguments):
            arguments = dict(tool.spec.arguments)
    spec = ToolSpec(name, tool.spec.description, arguments)
    return replace(tool, spec=spec)


def single(rng: Random, phrasing: Phrasing, tool: HandwrittenTool) -> Sample:
    """A sample with one call of `tool`."""
    need, said = tool.need, dict[str, Any]()
    if list(tool.spec.arguments.values()) == ["string"] and rng.random() < NAMED_SHARE:
        need = tool.spec.name
        name = next(iter(tool.own.arguments)).rstrip("?")
        said[name], _ = _value(rng, tool, name)
        question = phrasing.ask(
            synthetic_questions.PHRASINGS["explicit"],
            t=tool.spec.name,
            v=synthetic_questions.in_quotes(rng, str(said[name])),
        )
    else:
        text = phrasing.pick(tuple(tool.questions))
        said |= tool.questions[text]
        marked, shown = set(_IN_MARKS.findall(text)), dict[str, str]()
        for name in _SLOT.findall(text):
            said[name], surprising = _value(rng, tool, name)
            bare = name in marked or not surprising
            shown[name] = str(said[name]) if bare else synthetic_questions.unambiguous(rng, said[name])
        question = phrasing.as_typed(text)
        question = _SLOT.sub(lambda slot: shown[slot[1]], question)
    listed = {
        own.rstrip("?"): shown.rstrip("?") for own, shown in zip(tool.own.arguments, tool.spec.arguments, strict=True)
    }
    given = {shown: said[own] for own, shown in listed.items() if own in said}
    result = rng.choice(tool.results)
    step = Step(one_call(need, tool.spec), tool.spec.name, given, result)
    return Sample(question, result, (step,), kind="handwritten tool")


def _value(rng: Random, tool: HandwrittenTool, name: str) -> tuple[Any, bool]:
    """A value of an argument, and whether it is an unusual one for this tool."""
    kind = tool.own.arguments.get(name) or tool.own.arguments[name + "?"]
    if isinstance(kind, tuple):
        return rng.choice(kind), False
    values = tool.values[name]
    if kind == "integer":
        return rng.randint(*values), False
    if kind == "number":
        number = round(rng.uniform(*values), rng.choice((0, 1, 1, 2)))
        return int(number) if number == int(number) else number, False
    if rng.random() < SURPRISING_SHARE:
        return synthetic_questions.any_key(rng), True
    return KINDS[values](rng) if isinstance(values, str) else rng.choice(values), False
