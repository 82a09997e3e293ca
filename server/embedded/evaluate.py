"""Scores the embedded model: `python -m server.embedded.evaluate`, with the real agents, engine and tools.

Three sets, of which the training has seen none: questions made with another seed from the phrasings that are kept for
scoring; those in questions.jsonl, written by hand by someone who had seen neither the phrasings nor the model; and
those in questions_seen.jsonl, written likewise, but known to whoever wrote more phrasings later. The tools of made
questions answer with what the corpus has for them if they are called right, and with an error if not.

A line of these files is `{"question", "tool", "answer", "tools"?}`: the tool that is to be used first (null:
none), the final answer, and, where it isn't about the shipped tools, the tools with what each of them gives.

Two more were written by hand without a look at the phrasings: in questions_auto.jsonl (`{"question", "agent"}`) each
question is for one of the agents that `auto` chooses from, and in questions_plans.jsonl (`{"question", "results"}`)
each is a task for `plan_execute` over the shipped tools, with what makes up its answer.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from server.agent import CustomAgentGuidance
from server.agent.auto import Auto
from server.agent.guided import GuidedConversation
from server.agent.plan_execute import PLAN_TOKENS, PlanExecute, plan_schema
from server.embedded import corpus
from server.embedded.examples import Example, Situation, ToolSpec
from server.engine import GuidedEngine
from server.errors import UnreadableReplyError
from server.model import load_model
from server.sdk import ResidentChatModel
from server.tools import load_tools

WRITTEN = {"by hand": "questions.jsonl", "by hand, and seen": "questions_seen.jsonl"}
FOR_AUTO, FOR_PLANS = "questions_auto.jsonl", "questions_plans.jsonl"
SEED = 20_001
MAX_STEPS = 4
SCORED = ("tool", "input", "answer")


@dataclass(frozen=True)
class Verdict:
    """What was right about an answer. Tools and inputs are compared step by step; where nothing of the kind was asked
    for, they count as the answer does."""

    kind: str
    tool: bool
    input: bool
    answer: bool
    shown: str


class PreparedTool:
    """A tool that gives what was prepared for it if it is called as was expected, and an error otherwise."""

    def __init__(self, spec: ToolSpec, example: Example) -> None:
        self.spec = spec
        self.steps = [step for step in example.steps if step.tool == spec.name]

    def __call__(self, **given: Any) -> str:
        for step in self.steps:
            if step.input == given:
                if step.failed:
                    raise ToolException(step.observation)
                return step.observation
        raise ToolException("this call was not expected")

    def as_tool(self) -> BaseTool:
        return StructuredTool(
            name=self.spec.name,
            description=self.spec.description,
            args_schema={"type": "object", **self.spec.schema},
            func=self,
        )


def made_questions(number: int) -> Iterator[tuple[Situation, Example]]:
    """One question a situation, so that no list of tools comes twice."""
    place = itertools.count()
    for situation in itertools.islice(corpus.situations(SEED, held_out=True), 20 * number):
        example = situation.examples[next(place) % len(situation.examples)]
        if example.kind not in ("plain", "cut short"):
            yield situation, example


def judge_made(engine: GuidedEngine, situation: Situation, example: Example) -> Verdict:
    if situation.purpose != "act":
        return _judge_text(engine, situation, example)
    tools = {spec.name: PreparedTool(spec, example).as_tool() for spec in situation.tools}
    # This agent takes it as a part of the history.
    told = [("system", situation.told)] if situation.told else []
    history = [{"role": role, "content": content} for role, content in (*told, *example.history)]
    result = CustomAgentGuidance(engine, tools, MAX_STEPS)(example.question, history)
    expected = [(step.tool, step.input) for step in example.steps]
    given = [(step.tool, step.input) for step in result.steps]
    return Verdict(
        example.kind,
        tool=[tool for tool, _ in given] == [tool for tool, _ in expected],
        input=given == expected,
        answer=result.answer == example.answer.strip(),
        shown=f"{example.question!r} -> {given} {result.answer!r}, not {expected} {example.answer!r}",
    )


def _judge_text(engine: GuidedEngine, situation: Situation, example: Example) -> Verdict:
    """Of what an agent other than the default one has the model write."""
    conversation = GuidedConversation(engine, corpus.conversation(situation, example))
    if situation.purpose == "plan":
        try:
            written = corpus.dump(conversation.write_json(plan_schema(0), PLAN_TOKENS))
        except UnreadableReplyError as error:
            written = str(error)
    elif situation.purpose == "choose":
        written = conversation.choose(("chat", "react", "plan_execute")).option
    else:
        written = conversation.write("", 256)
    right = written == example.answer.strip()
    return Verdict(example.kind, right, right, right, f"{example.question!r} -> {written!r}, not {example.answer!r}")


def judge_choice(engine: GuidedEngine, shipped: dict[str, BaseTool], line: dict[str, Any]) -> Verdict:
    choice = Auto(engine, shipped, MAX_STEPS).choose(line["question"])
    right = choice.option == line["agent"]
    return Verdict("auto, by hand", right, right, right, f"{line['question']!r} -> {choice}, not {line['agent']}")


def judge_plan(engine: GuidedEngine, shipped: dict[str, BaseTool], line: dict[str, Any]) -> Verdict:
    result = PlanExecute(engine, shipped, 2 * MAX_STEPS)(line["question"])
    failed = any(step.error is not None for step in result.steps)
    answer = result.answer == "; ".join(line["results"])
    return Verdict(
        "plans, by hand",
        tool=bool(result.steps),
        input=not failed,
        answer=answer,
        shown=f"{line['question']!r} -> {result.details['plan']} {result.answer!r}, not {line['results']}",
    )


def judge_written(engine: GuidedEngine, shipped: dict[str, BaseTool], line: dict[str, Any], kind: str) -> Verdict:
    tools = {tool["name"]: _scripted(tool) for tool in line["tools"]} if "tools" in line else shipped
    result = CustomAgentGuidance(engine, tools, MAX_STEPS)(line["question"])
    used = result.steps[0].tool if result.steps else None
    failing = {tool["name"] for tool in line.get("tools", ()) if "error" in tool}
    return Verdict(
        kind,
        tool=used == line["tool"],
        input=all(step.error is None or step.tool in failing for step in result.steps),
        answer=result.answer == line["answer"],
        shown=f"{line['question']!r} -> {[(s.tool, s.input) for s in result.steps]} {result.answer!r}, "
        f"not {line['tool']} {line['answer']!r}",
    )


def _scripted(tool: dict[str, Any]) -> BaseTool:
    def give(**_: Any) -> str:
        if "error" in tool:
            raise ToolException(tool["error"])
        return str(tool["observation"])

    spec = ToolSpec(tool["name"], tool["description"], tool["args"])
    return StructuredTool(
        name=spec.name, description=spec.description, args_schema={"type": "object", **spec.schema}, func=give
    )


def _lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines()]


def report(verdicts: list[Verdict]) -> None:
    """Print the shares that are right, by kind of question."""
    groups = {"made, all": [verdict for verdict in verdicts if "by hand" not in verdict.kind]}
    for verdict in verdicts:
        groups.setdefault(verdict.kind, []).append(verdict)
    print(f"{'questions':<20} {'n':>5}", *(f"{what:>8}" for what in SCORED))
    for kind, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        shares = [100 * sum(getattr(verdict, what) for verdict in group) / len(group) for what in SCORED]
        print(f"{kind:<20} {len(group):>5}", *(f"{one:6.1f} %" for one in shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded", help="embedded, a folder, or a Hugging Face id")
    parser.add_argument("--number", type=int, default=1000, help="of the questions that are made")
    parser.add_argument("--wrong", action="store_true", help="show the answers that are wrong")
    arguments = parser.parse_args()
    loaded = load_model(
        arguments.model,
        load_in_8bit=False,
        device_map="auto",
        dtype="float32",
        int8_threshold=6.0,
        progress=lambda stage, done, total: None,
    )
    engine = GuidedEngine(loaded.model, loaded.tokenizer)
    shipped = load_tools(ResidentChatModel(get_engine=lambda: engine))
    started = time.perf_counter()
    verdicts = [
        judge_made(engine, *pair) for pair in itertools.islice(made_questions(arguments.number), arguments.number)
    ]
    for kind, file in WRITTEN.items():
        verdicts += [judge_written(engine, shipped, line, kind) for line in _lines(file)]
    verdicts += [judge_choice(engine, shipped, line) for line in _lines(FOR_AUTO)]
    verdicts += [judge_plan(engine, shipped, line) for line in _lines(FOR_PLANS)]
    report(verdicts)
    print(f"{len(verdicts)} questions in {time.perf_counter() - started:.0f} s")
    if arguments.wrong:
        for verdict in verdicts:
            if not (verdict.tool and verdict.input and verdict.answer):
                print(f"{verdict.kind}: {verdict.shown}")


if __name__ == "__main__":
    main()
