"""Scores the embedded model: `python -m training.evaluate`, with the real agents, engine and tools.

The questions, none of which are in the training corpus:

- made questions, from another seed and the held-out phrasings. Their tools return the sample's observation if they
  are called as expected, and an error otherwise.
- `test_sets/questions.jsonl` and `questions_seen.jsonl`, written by hand, for the default agent. A line is
  `{"question", "tool", "answer", "tools"?}`: the first tool to use (null: none), the final answer, and, for tools
  other than the shipped ones, these tools with their results. The authors of the phrasings had read the second file.
- `test_sets/agent_choice.jsonl`, written by hand: `{"question", "agent"}`, the agent that `auto` has to choose.
- `test_sets/plans.jsonl`, written by hand: `{"question", "results"}`, a task for `plan_execute` with the shipped
  tools, and the results that make up its answer.
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
from server.engine import GuidedEngine
from server.errors import UnreadableReplyError
from server.model import load_model
from server.sdk import ResidentChatModel
from server.tools import load_tools
from training import corpus
from training.samples import Sample, SampleGroup, ToolSpec, conversation, to_json

TEST_SETS = Path(__file__).with_name("test_sets")
HANDWRITTEN = {"by hand": "questions.jsonl", "by hand, seen": "questions_seen.jsonl"}
AGENT_CHOICE, PLANS = "agent_choice.jsonl", "plans.jsonl"
SEED = 20_001
MAX_STEPS = 4
SCORED = ("tool", "input", "answer")


@dataclass(frozen=True)
class Verdict:
    """What was right: the tools, their inputs, the answer. Where no tool can be used, all three are the same."""

    kind: str
    tool: bool
    input: bool
    answer: bool
    shown: str


class ExpectingTool:
    """A tool that returns the sample's observation if it is called as expected, and an error otherwise."""

    def __init__(self, spec: ToolSpec, sample: Sample) -> None:
        self.spec = spec
        self.steps = [step for step in sample.steps if step.tool == spec.name]

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


def made_questions(number: int) -> Iterator[tuple[SampleGroup, Sample]]:
    """One question of each group, so that each has its own list of tools."""
    place = itertools.count()
    for group in itertools.islice(corpus.sample_groups(SEED, held_out=True), 20 * number):
        sample = group.samples[next(place) % len(group.samples)]
        if sample.kind not in ("mood", "step limit"):
            yield group, sample


def judge_made(engine: GuidedEngine, group: SampleGroup, sample: Sample) -> Verdict:
    if group.purpose != "act":
        return _judge_text(engine, group, sample)
    tools = {spec.name: ExpectingTool(spec, sample).as_tool() for spec in group.tools}
    # The agent takes a client's system message as a part of the history.
    system = [("system", group.client_system)] if group.client_system else []
    history = [{"role": role, "content": content} for role, content in (*system, *sample.history)]
    result = CustomAgentGuidance(engine, tools, MAX_STEPS)(sample.question, history)
    expected = [(step.tool, step.input) for step in sample.steps]
    given = [(step.tool, step.input) for step in result.steps]
    return Verdict(
        sample.kind,
        tool=[tool for tool, _ in given] == [tool for tool, _ in expected],
        input=given == expected,
        answer=result.answer == sample.answer.strip(),
        shown=f"{sample.question!r} -> {given} {result.answer!r}, not {expected} {sample.answer!r}",
    )


def _judge_text(engine: GuidedEngine, group: SampleGroup, sample: Sample) -> Verdict:
    """For the other agents: what they have the model write, without running them."""
    model = GuidedConversation(engine, conversation(group, sample))
    if group.purpose == "plan":
        try:
            written = to_json(model.write_json(plan_schema(0), PLAN_TOKENS))
        except UnreadableReplyError as error:
            written = str(error)
    elif group.purpose == "choose":
        written = model.choose(("chat", "react", "plan_execute")).option
    else:
        written = model.write("", 256)
    right = written == sample.answer.strip()
    return Verdict(sample.kind, right, right, right, f"{sample.question!r} -> {written!r}, not {sample.answer!r}")


def judge_choice(engine: GuidedEngine, shipped: dict[str, BaseTool], line: dict[str, Any]) -> Verdict:
    choice = Auto(engine, shipped, MAX_STEPS).choose(line["question"])
    right = choice.option == line["agent"]
    return Verdict(
        "agent choice, by hand", right, right, right, f"{line['question']!r} -> {choice}, not {line['agent']}"
    )


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
    return [json.loads(line) for line in (TEST_SETS / file).read_text(encoding="utf-8").splitlines()]


def report(verdicts: list[Verdict]) -> None:
    """Prints the shares of right tools, inputs and answers, by kind of question."""
    groups = {"made, all": [verdict for verdict in verdicts if "by hand" not in verdict.kind]}
    for verdict in verdicts:
        groups.setdefault(verdict.kind, []).append(verdict)
    print(f"{'questions':<22} {'n':>5}", *(f"{what:>8}" for what in SCORED))
    for kind, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        shares = [100 * sum(getattr(verdict, what) for verdict in group) / len(group) for what in SCORED]
        print(f"{kind:<22} {len(group):>5}", *(f"{one:6.1f} %" for one in shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded", help="embedded, a folder, or a Hugging Face id (embedded)")
    parser.add_argument("--number", type=int, default=1000, help="made questions (1000)")
    parser.add_argument("--wrong", action="store_true", help="print the wrong answers")
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
    for kind, file in HANDWRITTEN.items():
        verdicts += [judge_written(engine, shipped, line, kind) for line in _lines(file)]
    verdicts += [judge_choice(engine, shipped, line) for line in _lines(AGENT_CHOICE)]
    verdicts += [judge_plan(engine, shipped, line) for line in _lines(PLANS)]
    report(verdicts)
    print(f"{len(verdicts)} questions in {time.perf_counter() - started:.0f} s")
    if arguments.wrong:
        for verdict in verdicts:
            if not (verdict.tool and verdict.input and verdict.answer):
                print(f"{verdict.kind}: {verdict.shown}")


if __name__ == "__main__":
    main()
