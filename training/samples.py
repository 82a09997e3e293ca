"""What a training sample is, and the text that the model reads and writes for it."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from server.agent import prompts


@dataclass(frozen=True)
class ToolSpec:
    """A tool as the model sees it. `arguments` maps each name to `string`, `number`, `integer`, `boolean`, or a tuple
    of an enumeration's values. A name that ends in `?` is optional."""

    name: str
    description: str
    arguments: dict[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments, as far as the prompt shows it."""
        return {
            "properties": {
                name.rstrip("?"): {"enum": list(kind)} if isinstance(kind, tuple) else {"type": kind}
                for name, kind in self.arguments.items()
            },
            "required": [name for name in self.arguments if not name.endswith("?")],
        }


@dataclass(frozen=True)
class Step:
    """One tool call. If it `failed`, the observation is the error message."""

    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    failed: bool = False


@dataclass(frozen=True)
class Sample:
    """A question with the tool calls and the answer that the model has to write.

    `thought` is the last one, before the answer. `kind` is the row of the scores that the sample counts in.
    `next_tool` is set where the step limit is reached: the tool that the model would call next. `history` has the
    role and the content of each earlier message.
    """

    question: str
    answer: str
    steps: tuple[Step, ...] = ()
    thought: str = "Now I know the answer."
    kind: str = "no tool"
    next_tool: str = ""
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SampleGroup:
    """Samples that share one system prompt, and so one prefix.

    `purpose` says which of the agents' system prompts it is: of the default agent (`act`), of the planner, of the
    choice of an agent, of the final answer to a plan, of `chat`, or none. `client_system` is a client's own system
    message, which the default agent adds at the end of its system prompt.
    """

    tools: tuple[ToolSpec, ...]
    samples: tuple[Sample, ...]
    purpose: Literal["act", "plan", "choose", "conclude", "chat", "none"] = "act"
    client_system: str = ""


def one_call(need: str, tool: ToolSpec) -> str:
    """The thought before a single call: first what is needed, in the words of question and description, then the
    tool. The model learns the choice of a tool much faster when it writes the need first."""
    return f"I need {need}: {tool.name}."


def first_call(need: str, tool: ToolSpec, next_need: str, next_tool: ToolSpec) -> str:
    """The thought before the first of two calls."""
    return f"I need {need}: {tool.name}, then {next_need}: {next_tool.name}."


def second_call(need: str, tool: ToolSpec) -> str:
    """The thought before the second of two calls."""
    return f"Now {need}: {tool.name}."


def system(group: SampleGroup) -> str | None:
    """The system prompt of a group; None where it has none."""
    listed = prompts.list_tools((tool.name, tool.description, tool.schema) for tool in group.tools)
    added = f"\n\n{group.client_system}" if group.client_system else ""
    return {
        "act": prompts.SYSTEM.format(tools=listed) + added,
        "plan": prompts.PLAN.format(tools=listed),
        "choose": prompts.CHOOSE.format(tools=listed),
        "conclude": prompts.CONCLUDE,
        "chat": prompts.CHAT,
        "none": None,
    }[group.purpose]


def conversation(group: SampleGroup, sample: Sample) -> list[dict[str, str]]:
    """The messages that the model reads: system prompt, history, question."""
    history = [{"role": role, "content": content} for role, content in sample.history]
    messages = prompts.conversation(system(group) or "", sample.question, history)
    return messages[1:] if group.purpose == "none" else messages


def assistant_parts(sample: Sample) -> list[tuple[str, bool]]:
    """The assistant's message in parts: True for what the model writes, False for observations of tools."""
    if sample.kind in ("mood", "plan", "choose", "conclude", "chat"):
        return [(sample.answer, True)]
    parts: list[tuple[str, bool]] = []
    lead = prompts.THOUGHT
    for step in sample.steps:
        call = prompts.ACTION + step.tool + prompts.ACTION_INPUT + to_json(step.input)
        parts.append((lead + step.thought + call, True))
        parts.append((prompts.OBSERVATION + _observation(step), False))
        lead = prompts.NEXT_THOUGHT
    if sample.next_tool:
        parts.append((lead + sample.thought + prompts.ACTION + sample.next_tool, True))
        parts.append((prompts.OUT_OF_STEPS, False))
        parts.append((sample.answer, True))
    else:
        parts.append((lead + sample.thought + prompts.ANSWER + sample.answer, True))
    return parts


def _observation(step: Step) -> str:
    return prompts.FAILED.format(message=step.observation) if step.failed else step.observation


def to_json(value: dict[str, Any]) -> str:
    """JSON as the agents' grammars write it."""
    return json.dumps(value, ensure_ascii=False)
