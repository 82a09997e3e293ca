"""The training corpus: an endless stream of sample groups, made on the fly.

Groups differ in their tools (shipped, synthetic, handwritten), their purpose (a question to the default agent, a
plan, the choice of an agent and so on) and their history.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from training import (
    handwritten_tools,
    multi_turn,
    no_tool,
    plans,
    shipped_tools,
    synthetic_questions,
    two_calls,
)
from training.phrasing import Phrasing, read_phrasings
from training.samples import Sample, SampleGroup, ToolSpec
from training.synthetic_tools import SyntheticTool, make_tool, takes_one_text

SAMPLES_PER_GROUP = 8
#: The shares of groups by purpose. `none` is the sentiment tool's own prompt; `history` is `act` in the middle of a
#: conversation.
SHARES = {"none": 0.03, "chat": 0.03, "plan": 0.14, "choose": 0.05, "conclude": 0.02, "history": 0.18, "act": 0.55}
#: The share of plan steps among the samples of `act`.
STEP_SHARE = 0.07
#: The shares of groups with mostly shipped and with mostly handwritten tools; the rest has synthetic ones.
SHIPPED_SHARE, HANDWRITTEN_SHARE = 0.42, 0.29
#: The share of samples that end at the step limit, among those with two calls.
STEP_LIMIT_SHARE = 0.08
#: The share of groups with a client's own system message.
CLIENT_SYSTEM_SHARE = 0.12
INSTRUCTIONS = read_phrasings("instructions")["instructions"]


def sample_groups(seed: int, *, held_out: bool = False) -> Iterator[SampleGroup]:
    """An endless stream, which `seed` determines. With `held_out`, only from the phrasings that are kept for
    evaluation; otherwise from none of these."""
    rng = Random(seed)
    phrasing = Phrasing(rng, held_out)
    while True:
        [purpose] = rng.choices(tuple(SHARES), tuple(SHARES.values()))
        # A text of several questions is long, and context around each of them would hide where it ends.
        phrasing.plain = purpose in ("plan", "choose", "conclude", "history") and rng.random() < 0.75
        if purpose == "none":
            moods = tuple(no_tool.mood_sample(rng) for _ in range(SAMPLES_PER_GROUP))
            yield SampleGroup((), moods, "none")
        elif purpose == "chat":
            yield SampleGroup((), tuple(no_tool.chat(phrasing, rng) for _ in range(SAMPLES_PER_GROUP)), "chat")
        else:
            kind = rng.random()
            make_group = (
                _with_shipped_tools
                if kind < SHIPPED_SHARE
                else _with_handwritten_tools
                if kind < SHIPPED_SHARE + HANDWRITTEN_SHARE
                else _with_synthetic_tools
            )
            group = make_group(rng, phrasing)
            more = purpose == "history"
            earlier = [one for _ in range(2) for one in make_group(rng, phrasing).samples] if more else []
            group = _for_purpose(rng, phrasing, group, earlier, purpose)
            yield _with_client_system(rng, phrasing, group) if rng.random() < CLIENT_SYSTEM_SHARE else group


def _for_purpose(
    rng: Random, phrasing: Phrasing, group: SampleGroup, earlier: Sequence[Sample], purpose: str
) -> SampleGroup:
    """A group for `purpose`, made of a group of questions and of the `earlier` ones of a conversation. The group
    itself if it has too few questions that one call answers."""
    tools, questions = group.tools, group.samples
    singles = [one for one in [*questions, *earlier] if len(one.steps) == 1 and not one.next_tool]
    if len({one.question for one in singles}) < 2:
        return group
    shipped = {tool.name: tool for tool in tools if tool in shipped_tools.TOOLS}

    def task() -> plans.Task:
        return plans.make_task(rng, phrasing, singles, shipped)

    def choice(sample: Sample) -> Sample:
        draw = rng.random()
        if draw < 0.33:
            return Sample(task().text, "plan_execute", kind="choose")
        if draw < 0.6:
            return Sample(no_tool.chat(phrasing, rng).question, "chat", kind="choose")
        talk = not sample.steps and not sample.answer.startswith(no_tool.MY_TOOLS)
        return Sample(sample.question, "chat" if talk else "react", kind="choose")

    if purpose == "plan":
        return SampleGroup(tools, tuple(plans.plan(rng, task()) for _ in questions), "plan")
    if purpose == "choose":
        return SampleGroup(tools, tuple(choice(one) for one in questions), "choose")
    if purpose == "conclude":
        return SampleGroup((), tuple(plans.conclude(task()) for _ in questions), "conclude")
    if purpose == "history":
        calculator = shipped.get(shipped_tools.CALCULATOR.name)
        return SampleGroup(
            tools, tuple(multi_turn.with_history(rng, phrasing, one, singles, calculator) for one in questions)
        )
    steps = (plans.step(rng, task()) if rng.random() < STEP_SHARE else one for one in questions)
    return SampleGroup(tools, tuple(steps))


def _with_client_system(rng: Random, phrasing: Phrasing, group: SampleGroup) -> SampleGroup:
    """With a client's own system message: at the end of the agent's, as for clients of an API, or at the beginning of
    the history, as in a session. Only for the default agent."""
    if group.purpose != "act":
        return group
    message = " ".join(phrasing.pick(INSTRUCTIONS) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    if rng.random() < 0.5:
        return replace(group, client_system=message)
    samples = (replace(one, history=(("system", message), *one.history)) for one in group.samples)
    return replace(group, samples=tuple(samples))


def _with_shipped_tools(rng: Random, phrasing: Phrasing) -> SampleGroup:
    """All or some of the shipped tools, with their own names or others, sometimes with synthetic tools."""
    chosen = list(shipped_tools.TOOLS)
    everything = rng.random() < 0.45
    if not everything:
        chosen = rng.sample(chosen, rng.randint(1, len(chosen)))
    tools: dict[str, ToolSpec] = {}
    for tool in chosen:
        shown = (
            tool if (everything and rng.random() < 0.9) or rng.random() < 0.5 else shipped_tools.renamed(rng, tool)
        )
        if shown.name not in {other.name for other in tools.values()}:
            tools[tool.name] = shown
    extra = [] if rng.random() < 0.6 else [make_tool(rng) for _ in range(rng.randint(1, 4))]
    taken = {tool.name for tool in tools.values()}
    extra = [tool for tool in _distinct(extra) if tool.spec.name not in taken]
    listed = [*tools.values(), *(tool.spec for tool in extra)]
    if not everything or rng.random() < 0.2:
        rng.shuffle(listed)
    samples: list[Sample] = []
    while len(samples) < SAMPLES_PER_GROUP:
        draw = rng.random()
        if draw < 0.13:
            samples.append(_without_tool(rng, phrasing, listed))
        elif draw < 0.33 and len(tools) > 2:
            pairs = {"calculator", "convert_units"}, {"days_between", "calculator"}, {"add_days", "weekday"}
            if any(pair <= tools.keys() for pair in pairs):
                sample = two_calls.double(rng, phrasing, tools)
                samples.append(_at_step_limit(sample) if rng.random() < STEP_LIMIT_SHARE else sample)
        elif draw < 0.43 and extra:
            samples.append(synthetic_questions.single(rng, phrasing, rng.choice(extra)))
        elif draw < 0.46 and "calculator" in tools and (numeric := [tool for tool in extra if _looks_up(tool)]):
            one = rng.choice(numeric)
            samples.append(synthetic_questions.then_calculate(rng, phrasing, one, tools["calculator"]))
        elif draw < 0.53 and not everything:
            missing = [tool.name for tool in shipped_tools.TOOLS if tool.name not in tools]
            if missing:
                task = rng.choice(missing)
                away = shipped_tools.single(
                    rng, phrasing, next(tool for tool in shipped_tools.TOOLS if tool.name == task), task
                )
                samples.append(Sample(away.question, no_tool.CANNOT, thought=no_tool.NONE_FITS))
        else:
            task = rng.choices(
                tuple(tools),
                [3.0 if name == "calculator" else 1.5 if name == "convert_units" else 1.0 for name in tools],
            )[0]
            sample = shipped_tools.single(rng, phrasing, tools[task], task)
            samples.append(shipped_tools.failing(rng, sample, task) if rng.random() < 0.07 else sample)
    return SampleGroup(tuple(listed), tuple(samples))


def _with_synthetic_tools(rng: Random, phrasing: Phrasing) -> SampleGroup:
    tools = _distinct([make_tool(rng) for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6)))])
    samples: list[Sample] = []
    if rng.random() < 0.04:
        tools = []
    while len(samples) < SAMPLES_PER_GROUP:
        draw = rng.random()
        if draw < 0.12 or not tools:
            samples.append(_without_tool(rng, phrasing, [tool.spec for tool in tools]))
        elif draw < 0.32 and len(tools) > 1:
            one, two = rng.sample(tools, 2)
            if takes_one_text(one) and takes_one_text(two):
                sample = synthetic_questions.double(rng, phrasing, one, two)
                samples.append(_at_step_limit(sample) if rng.random() < STEP_LIMIT_SHARE else sample)
        elif draw < 0.42:
            stranger = make_tool(rng)
            about = {word for tool in tools for word in (tool.entity, tool.attribute)}
            if stranger.entity not in about and stranger.attribute:
                away = synthetic_questions.single(rng, phrasing, stranger)
                if stranger.spec.name not in away.question and not stranger.record:
                    samples.append(Sample(away.question, no_tool.CANNOT, thought=no_tool.NONE_FITS))
        else:
            tool = rng.choice(tools)
            sample = synthetic_questions.single(rng, phrasing, tool)
            samples.append(synthetic_questions.failing(rng, sample, tool.entity) if rng.random() < 0.12 else sample)
    return SampleGroup(tuple(tool.spec for tool in tools), tuple(samples))


def _with_handwritten_tools(rng: Random, phrasing: Phrasing) -> SampleGroup:
    """Handwritten tools, sometimes with shipped and synthetic ones."""
    draw = rng.random()
    if draw < 0.2:  # as in a notebook: a first tool or two of one's own with the shipped ones
        subject = "small_text_tools" if rng.random() < 0.5 else None
        tools, own = handwritten_tools.choose(rng, rng.choice((1, 1, 2)), subject), list(shipped_tools.TOOLS)
    else:
        tools = handwritten_tools.choose(rng, rng.choice((1, 2, 2, 3, 3, 3, 4, 5, 6, 8)))
        own = rng.sample(shipped_tools.TOOLS, rng.randint(1, 3)) if draw < 0.4 else []
    extra = [make_tool(rng)] if rng.random() < 0.15 else []
    specs = [*own, *(tool.spec for tool in extra), *(tool.spec for tool in tools)]
    listed = {spec.name: spec for spec in specs}
    order = list(listed.values())
    if rng.random() < 0.8:
        rng.shuffle(order)
    samples: list[Sample] = []
    while len(samples) < SAMPLES_PER_GROUP:
        draw = rng.random()
        if draw < 0.14:
            samples.append(_without_tool(rng, phrasing, order))
        elif draw < 0.26:
            if stranger := handwritten_tools.missing(rng, tools):
                away = handwritten_tools.single(rng, phrasing, stranger)
                samples.append(Sample(away.question, no_tool.CANNOT, thought=no_tool.NONE_FITS))
        elif draw < 0.36 and own:
            one = rng.choice(own)
            samples.append(shipped_tools.single(rng, phrasing, one, one.name))
        else:
            tool = rng.choice(tools)
            sample = handwritten_tools.single(rng, phrasing, tool)
            failed = rng.random() < 0.08
            samples.append(synthetic_questions.failing(rng, sample, tool.need.split()[-1]) if failed else sample)
    return SampleGroup(tuple(order), tuple(samples))


def _without_tool(rng: Random, phrasing: Phrasing, tools: list[ToolSpec]) -> Sample:
    draw = rng.random()
    if draw < 0.40:
        return no_tool.outside(phrasing, rng)
    if draw < 0.64:
        return no_tool.small_talk(phrasing, rng)
    if draw < 0.88:
        return no_tool.which_tools(phrasing, rng, tools)
    return no_tool.repeat(phrasing, rng)


def _at_step_limit(sample: Sample) -> Sample:
    """A question for two tools with one call allowed: the answer is the result of the first call."""
    first, second = sample.steps
    return Sample(sample.question, first.observation, (first,), second.thought, "step limit", second.tool)


def _distinct(tools: list[SyntheticTool]) -> list[SyntheticTool]:
    """Without tools of the same name, and without two that the same question would fit."""
    kept: list[SyntheticTool] = []
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


def _looks_up(tool: SyntheticTool) -> bool:
    return bool(tool.attribute) and not tool.record and takes_one_text(tool)
