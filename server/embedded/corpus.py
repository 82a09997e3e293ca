"""The mixture: lists of tools with questions about them, and the very text that the agent would read and write.

Endless and made on the fly; a seed fixes it. `held_out=True` gives the side of the phrasings that is kept for
scoring.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from server.agent import prompts
from server.embedded import direct, earlier, invented, several, shipped, texts, two_steps, written_tools
from server.embedded.examples import Example, Situation, Step, ToolSpec
from server.embedded.invented_tools import InventedTool, invent_tool, takes_one_text
from server.embedded.phrasing import Phrasing, read_phrasings

#: Examples that share one list of tools, and so one reading of it.
EXAMPLES_A_SITUATION = 8
#: The shares of situations: moods of texts, and talk, with no tools at all; a plan to be written, an agent to be
#: chosen, an answer to be drawn from a plan's results; questions amid a conversation, and at its beginning.
SHARES = {"none": 0.03, "chat": 0.03, "plan": 0.14, "choose": 0.05, "conclude": 0.02, "history": 0.18, "act": 0.55}
#: Of the last, the share of questions that are a step of a plan.
STEP_SHARE = 0.07
#: The shares of situations: over the shipped ones, over written ones; the rest is invented.
SHIPPED_SHARE, WRITTEN_SHARE = 0.42, 0.29
#: Of the questions for two tools.
CUT_SHORT_SHARE = 0.08
#: Of the situations where a question is answered.
TOLD_SHARE = 0.12
INSTRUCTIONS = read_phrasings("instructions")["instructions"]


def situations(seed: int, *, held_out: bool = False) -> Iterator[Situation]:
    """An endless stream of situations."""
    rng = Random(seed)
    phrasing = Phrasing(rng, held_out)
    while True:
        [purpose] = rng.choices(tuple(SHARES), tuple(SHARES.values()))
        # Several questions in a text are many words, and where one ends is hard to see when each has a story.
        phrasing.calm = purpose in ("plan", "choose", "conclude", "history") and rng.random() < 0.75
        if purpose == "none":
            examples = tuple(texts.mood_example(rng) for _ in range(EXAMPLES_A_SITUATION))
            yield Situation((), examples, "none")
        elif purpose == "chat":
            yield Situation((), tuple(direct.chat(phrasing, rng) for _ in range(EXAMPLES_A_SITUATION)), "chat")
        else:
            kind = rng.random()
            over = (
                _over_shipped_tools
                if kind < SHIPPED_SHARE
                else _over_written_tools
                if kind < SHIPPED_SHARE + WRITTEN_SHARE
                else _over_invented_tools
            )
            situation = over(rng, phrasing)
            before = [one for _ in range(2) for one in over(rng, phrasing).examples] if purpose == "history" else []
            situation = _put_to_use(rng, phrasing, situation, before, purpose)
            yield _told(rng, phrasing, situation) if rng.random() < TOLD_SHARE else situation


def _put_to_use(
    rng: Random, phrasing: Phrasing, situation: Situation, before: Sequence[Example], purpose: str
) -> Situation:
    """What is made of the questions of a situation, and of those asked `before`; itself where they are too few."""
    tools, questions = situation.tools, situation.examples
    singles = [one for one in [*questions, *before] if len(one.steps) == 1 and not one.wanted]
    if len({one.question for one in singles}) < 2:
        return situation
    own = {tool.name: tool for tool in tools if tool in shipped.TOOLS}

    def task() -> several.Task:
        return several.make_task(rng, phrasing, singles, own)

    def chosen(example: Example) -> Example:
        draw = rng.random()
        if draw < 0.33:
            return Example(task().text, "plan_execute", kind="choose")
        if draw < 0.6:
            return Example(direct.chat(phrasing, rng).question, "chat", kind="choose")
        talk = not example.steps and not example.answer.startswith(direct.MY_TOOLS)
        return Example(example.question, "chat" if talk else "react", kind="choose")

    if purpose == "plan":
        return Situation(tools, tuple(several.plan(rng, task()) for _ in questions), "plan")
    if purpose == "choose":
        return Situation(tools, tuple(chosen(one) for one in questions), "choose")
    if purpose == "conclude":
        return Situation((), tuple(several.conclude(task()) for _ in questions), "conclude")
    if purpose == "history":
        calculator = own.get(shipped.CALCULATOR.name)
        return Situation(
            tools, tuple(earlier.with_history(rng, phrasing, one, singles, calculator) for one in questions)
        )
    steps = (several.step(rng, task()) if rng.random() < STEP_SHARE else one for one in questions)
    return Situation(tools, tuple(steps))


def _told(rng: Random, phrasing: Phrasing, situation: Situation) -> Situation:
    """With somebody's own system message: at the end of the agent's, as for clients of an API, or at the beginning of
    the history, as a session keeps it."""
    if situation.purpose != "act":
        return situation
    told = " ".join(phrasing.pick(INSTRUCTIONS) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    if rng.random() < 0.5:
        return replace(situation, told=told)
    spoken = (replace(one, history=(("system", told), *one.history)) for one in situation.examples)
    return replace(situation, examples=tuple(spoken))


def _over_shipped_tools(rng: Random, phrasing: Phrasing) -> Situation:
    """All of the shipped tools or some, as they are or disguised, sometimes among invented ones."""
    own = list(shipped.TOOLS)
    everything = rng.random() < 0.45
    if not everything:
        own = rng.sample(own, rng.randint(1, len(own)))
    tools: dict[str, ToolSpec] = {}
    for tool in own:
        skin = tool if (everything and rng.random() < 0.9) or rng.random() < 0.5 else shipped.disguise(rng, tool)
        if skin.name not in {other.name for other in tools.values()}:
            tools[tool.name] = skin
    extra = [] if rng.random() < 0.6 else [invent_tool(rng) for _ in range(rng.randint(1, 4))]
    taken = {tool.name for tool in tools.values()}
    extra = [tool for tool in _distinct(extra) if tool.spec.name not in taken]
    listed = [*tools.values(), *(tool.spec for tool in extra)]
    if not everything or rng.random() < 0.2:
        rng.shuffle(listed)
    examples: list[Example] = []
    while len(examples) < EXAMPLES_A_SITUATION:
        draw = rng.random()
        if draw < 0.13:
            examples.append(_without_tool(rng, phrasing, listed))
        elif draw < 0.33 and len(tools) > 2:
            pairs = {"calculator", "convert_units"}, {"days_between", "calculator"}, {"add_days", "weekday"}
            if any(pair <= tools.keys() for pair in pairs):
                example = two_steps.double(rng, phrasing, tools)
                examples.append(_cut_short(example) if rng.random() < CUT_SHORT_SHARE else example)
        elif draw < 0.43 and extra:
            examples.append(invented.single(rng, phrasing, rng.choice(extra)))
        elif draw < 0.46 and "calculator" in tools and (numeric := [tool for tool in extra if _looks_up(tool)]):
            one = rng.choice(numeric)
            examples.append(invented.then_calculate(rng, phrasing, one, tools["calculator"]))
        elif draw < 0.53 and not everything:
            missing = [tool.name for tool in shipped.TOOLS if tool.name not in tools]
            if missing:
                task = rng.choice(missing)
                away = shipped.single(rng, phrasing, next(tool for tool in shipped.TOOLS if tool.name == task), task)
                examples.append(Example(away.question, direct.CANNOT, thought=direct.NONE_FITS))
        else:
            task = rng.choices(
                tuple(tools),
                [3.0 if name == "calculator" else 1.5 if name == "convert_units" else 1.0 for name in tools],
            )[0]
            example = shipped.single(rng, phrasing, tools[task], task)
            examples.append(shipped.failing(rng, example, task) if rng.random() < 0.07 else example)
    return Situation(tuple(listed), tuple(examples))


def _over_invented_tools(rng: Random, phrasing: Phrasing) -> Situation:
    tools = _distinct([invent_tool(rng) for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6)))])
    examples: list[Example] = []
    if rng.random() < 0.04:
        tools = []
    while len(examples) < EXAMPLES_A_SITUATION:
        draw = rng.random()
        if draw < 0.12 or not tools:
            examples.append(_without_tool(rng, phrasing, [tool.spec for tool in tools]))
        elif draw < 0.32 and len(tools) > 1:
            one, two = rng.sample(tools, 2)
            if takes_one_text(one) and takes_one_text(two):
                example = invented.double(rng, phrasing, one, two)
                examples.append(_cut_short(example) if rng.random() < CUT_SHORT_SHARE else example)
        elif draw < 0.42:
            stranger = invent_tool(rng)
            about = {word for tool in tools for word in (tool.entity, tool.attribute)}
            if stranger.entity not in about and stranger.attribute:
                away = invented.single(rng, phrasing, stranger)
                if stranger.spec.name not in away.question and not stranger.record:
                    examples.append(Example(away.question, direct.CANNOT, thought=direct.NONE_FITS))
        else:
            tool = rng.choice(tools)
            example = invented.single(rng, phrasing, tool)
            examples.append(invented.failing(rng, example, tool.entity) if rng.random() < 0.12 else example)
    return Situation(tuple(tool.spec for tool in tools), tuple(examples))


def _over_written_tools(rng: Random, phrasing: Phrasing) -> Situation:
    """Written tools, sometimes among shipped and invented ones."""
    draw = rng.random()
    if draw < 0.2:  # as in a notebook: a person's own first tool or two beside those that ship
        subject = "small_text_tools" if rng.random() < 0.5 else None
        tools, own = written_tools.choose(rng, rng.choice((1, 1, 2)), subject), list(shipped.TOOLS)
    else:
        tools = written_tools.choose(rng, rng.choice((1, 2, 2, 3, 3, 3, 4, 5, 6, 8)))
        own = rng.sample(shipped.TOOLS, rng.randint(1, 3)) if draw < 0.4 else []
    extra = [invent_tool(rng)] if rng.random() < 0.15 else []
    specs = [*own, *(tool.spec for tool in extra), *(tool.spec for tool in tools)]
    listed = {spec.name: spec for spec in specs}
    order = list(listed.values())
    if rng.random() < 0.8:
        rng.shuffle(order)
    examples: list[Example] = []
    while len(examples) < EXAMPLES_A_SITUATION:
        draw = rng.random()
        if draw < 0.14:
            examples.append(_without_tool(rng, phrasing, order))
        elif draw < 0.26:
            if stranger := written_tools.missing(rng, tools):
                away = written_tools.single(rng, phrasing, stranger)
                examples.append(Example(away.question, direct.CANNOT, thought=direct.NONE_FITS))
        elif draw < 0.36 and own:
            one = rng.choice(own)
            examples.append(shipped.single(rng, phrasing, one, one.name))
        else:
            tool = rng.choice(tools)
            example = written_tools.single(rng, phrasing, tool)
            failed = rng.random() < 0.08
            examples.append(invented.failing(rng, example, tool.need.split()[-1]) if failed else example)
    return Situation(tuple(order), tuple(examples))


def _without_tool(rng: Random, phrasing: Phrasing, tools: list[ToolSpec]) -> Example:
    draw = rng.random()
    if draw < 0.40:
        return direct.outside(phrasing, rng)
    if draw < 0.64:
        return direct.small_talk(phrasing, rng)
    if draw < 0.88:
        return direct.which_tools(phrasing, rng, tools)
    return direct.repeat(phrasing, rng)


def _cut_short(example: Example) -> Example:
    """A question for two tools, where only one call is allowed: the answer is what the first one gave."""
    first, second = example.steps
    return Example(example.question, first.observation, (first,), second.thought, "cut short", second.tool)


def _distinct(tools: list[InventedTool]) -> list[InventedTool]:
    """Without tools of one name, and without two that the same words ask for."""
    kept: list[InventedTool] = []
    for tool in tools:
        wanted = (tool.entity, tool.attribute, tool.action, tool.record)
        if all(
            tool.spec.name != other.spec.name
            and wanted != (other.entity, other.attribute, other.action, other.record)
            and not (tool.record != other.record and tool.entity == other.entity)
            for other in kept
        ):
            kept.append(tool)
    return kept


def _looks_up(tool: InventedTool) -> bool:
    return bool(tool.attribute) and not tool.record and takes_one_text(tool)


def system(situation: Situation) -> str | None:
    """The message that all of its conversations begin with, the agents' own; None where there is none."""
    listed = prompts.list_tools((tool.name, tool.description, tool.schema) for tool in situation.tools)
    told = f"\n\n{situation.told}" if situation.told else ""
    return {
        "act": prompts.SYSTEM.format(tools=listed) + told,
        "plan": prompts.PLAN.format(tools=listed),
        "choose": prompts.CHOOSE.format(tools=listed),
        "conclude": prompts.CONCLUDE,
        "chat": prompts.CHAT,
        "none": None,
    }[situation.purpose]


def conversation(situation: Situation, example: Example) -> list[dict[str, str]]:
    """What stands before the model when it is asked `example`."""
    history = [{"role": role, "content": content} for role, content in example.history]
    turns = prompts.conversation(system(situation) or "", example.question, history)
    return turns[1:] if situation.purpose == "none" else turns


def assistant_parts(example: Example) -> list[tuple[str, bool]]:
    """The assistant's turn in pieces; True for what the model writes, False for what tools answered."""
    if example.kind in ("plain", "plan", "choose", "conclude", "chat"):
        return [(example.answer, True)]
    parts: list[tuple[str, bool]] = []
    lead = prompts.THOUGHT
    for step in example.steps:
        parts.append(
            (lead + step.thought + prompts.ACTION + step.tool + prompts.ACTION_INPUT + dump(step.input), True)
        )
        parts.append((prompts.OBSERVATION + observed(step), False))
        lead = prompts.NEXT_THOUGHT
    if example.wanted:
        parts.append((lead + example.thought + prompts.ACTION + example.wanted, True))
        parts.append((prompts.OUT_OF_STEPS, False))
        parts.append((example.answer, True))
    else:
        parts.append((lead + example.thought + prompts.ANSWER + example.answer, True))
    return parts


def observed(step: Step) -> str:
    return prompts.FAILED.format(message=step.observation) if step.failed else step.observation


def dump(arguments: dict[str, object]) -> str:
    """Arguments as the agent's grammar writes them."""
    return json.dumps(arguments, ensure_ascii=False)
