"""Tools that a lab or an office might really have, and questions as people would really type them.

All of it is written by hand, a file a subject, in `phrasings/tools/`. A tool there has

- `name`, `description`, `arguments` as in `ToolSpec`;
- `need`: what it gives or does, in words of its description;
- `values`: of a text, examples or one of `KINDS`; of a number, the lowest and the highest;
- `results`: what it may answer;
- `questions`: with the arguments as slots, each a text or, where its words settle arguments without naming their
  values, a table of the text (`ask`) and these.

The tools of a file are distinct: of those, a question is for one alone.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from server.embedded import invented, words
from server.embedded.examples import Example, Step, ToolSpec, one_call
from server.embedded.phrasing import FOLDER, Phrasing

#: Kinds of text that an argument may take, and what makes one.
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
#: The share of texts that are of any kind, whatever the tool's own are, so that they are copied and not known.
SURPRISING_SHARE = 0.25
#: The share of questions that name the tool, of those for tools that take one text.
NAMED_SHARE = 0.3
_SLOT = re.compile(r"\{(\w+)\}")
_IN_MARKS = re.compile(r"""(?<=["'«])\{(\w+)\}""")


@dataclass(frozen=True)
class WrittenTool:
    """`spec` as it is listed now, `own` as it was written, whose argument names the slots of `questions` bear."""

    spec: ToolSpec
    own: ToolSpec
    subject: str
    need: str
    values: dict[str, Any]
    results: tuple[str, ...]
    questions: dict[str, dict[str, Any]]
    about: frozenset[str]
    """The words that tell it from tools of other subjects."""


@cache
def written_tools() -> dict[str, tuple[WrittenTool, ...]]:
    """All of them, by subject."""
    return {
        file.stem: tuple(_read(file.stem, entry) for entry in tomllib.loads(file.read_text("utf-8"))["tools"])
        for file in sorted((FOLDER / "tools").glob("*.toml"))
    }


def _read(subject: str, entry: dict[str, Any]) -> WrittenTool:
    arguments = {name: tuple(kind) if isinstance(kind, list) else kind for name, kind in entry["arguments"].items()}
    questions = [{"ask": one} if isinstance(one, str) else one for one in entry["questions"]]
    spec = ToolSpec(entry["name"], entry["description"], arguments)
    return WrittenTool(
        spec,
        spec,
        subject,
        entry["need"],
        entry.get("values", {}),
        tuple(entry["results"]),
        {one["ask"]: {name: value for name, value in one.items() if name != "ask"} for one in questions},
        frozenset(word for word in re.findall(r"[a-z]+", spec.description.lower()) if len(word) > 3),
    )


def choose(rng: Random, number: int, subject: str | None = None) -> list[WrittenTool]:
    """`number` tools, most of one subject, the one that is asked for or any; of other subjects such that share no
    telling word with the rest."""
    subjects = written_tools()
    main = subject or rng.choice(tuple(subjects))
    own = rng.sample(subjects[main], min(len(subjects[main]), rng.randint(1, number)))
    everything = [tool for subject, tools in subjects.items() if subject != main for tool in tools]
    chosen = [_disguised(rng, tool) for tool in own]
    for tool in rng.sample(everything, min(len(everything), 3 * number)):
        if len(chosen) < number and not any(tool.about & other.about for other in chosen):
            chosen.append(_disguised(rng, tool))
    rng.shuffle(chosen)
    return list({tool.spec.name: tool for tool in chosen}.values())


def missing(rng: Random, listed: Sequence[WrittenTool]) -> WrittenTool | None:
    """A tool that is not among those `listed` and that none of them can stand for."""
    subjects = written_tools()
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


def _disguised(rng: Random, tool: WrittenTool) -> WrittenTool:
    """The same tool, now and then under a name or with argument names that tell nothing."""
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


def single(rng: Random, phrasing: Phrasing, tool: WrittenTool) -> Example:
    """A question that one call of `tool` answers."""
    need, said = tool.need, dict[str, Any]()
    if list(tool.spec.arguments.values()) == ["string"] and rng.random() < NAMED_SHARE:
        need = tool.spec.name
        name = next(iter(tool.own.arguments)).rstrip("?")
        said[name], _ = _value(rng, tool, name)
        question = phrasing.ask(
            invented.PHRASINGS["explicit"], t=tool.spec.name, v=invented.in_marks(rng, str(said[name]))
        )
    else:
        text = phrasing.pick(tuple(tool.questions))
        said |= tool.questions[text]
        marked, shown = set(_IN_MARKS.findall(text)), dict[str, str]()
        for name in _SLOT.findall(text):
            said[name], surprising = _value(rng, tool, name)
            bare = name in marked or not surprising
            shown[name] = str(said[name]) if bare else invented.unmistakable(rng, said[name])
        question = phrasing.as_typed(text)
        question = _SLOT.sub(lambda slot: shown[slot[1]], question)
    listed = {
        own.rstrip("?"): shown.rstrip("?") for own, shown in zip(tool.own.arguments, tool.spec.arguments, strict=True)
    }
    given = {shown: said[own] for own, shown in listed.items() if own in said}
    result = rng.choice(tool.results)
    step = Step(one_call(need, tool.spec), tool.spec.name, given, result)
    return Example(question, result, (step,), kind="realistic")


def _value(rng: Random, tool: WrittenTool, name: str) -> tuple[Any, bool]:
    """A value of an argument, and whether it is one that the tool's own words do not lead one to expect."""
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
        return invented.any_key(rng), True
    return KINDS[values](rng) if isinstance(values, str) else rng.choice(values), False
