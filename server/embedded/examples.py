"""What one example is: the tools on offer, a question, the steps that answer it, the answer."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ToolSpec:
    """A tool as the model sees it. `arguments` maps a name to `string`, `number`, `integer` or `boolean`, to a
    tuple of the choices of an enumeration; a trailing `?` on the name makes it optional."""

    name: str
    description: str
    arguments: dict[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that pydantic gives for such arguments, as far as the prompt shows it."""
        return {
            "properties": {
                name.rstrip("?"): {"enum": list(kind)} if isinstance(kind, tuple) else {"type": kind}
                for name, kind in self.arguments.items()
            },
            "required": [name for name in self.arguments if not name.endswith("?")],
        }


@dataclass(frozen=True)
class Step:
    """One call of a tool. `failed` tells that the observation is an error's message."""

    thought: str
    tool: str
    input: dict[str, Any]
    observation: str
    failed: bool = False


@dataclass(frozen=True)
class Example:
    """`thought` is the last one, before the answer; `kind` names the sort of question in the scores; `wanted` is
    the tool that the model would have called next where its steps are used up; `history` has the role and the content
    of the turns before."""

    question: str
    answer: str
    steps: tuple[Step, ...] = ()
    thought: str = "Now I know the answer."
    kind: str = "direct"
    wanted: str = ""
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Situation:
    """Several examples over one list of tools, all behind one system message: `purpose` names it; behind it stands
    what is `told` besides, by somebody's own system message."""

    tools: tuple[ToolSpec, ...]
    examples: tuple[Example, ...] = field(default=())
    purpose: Literal["act", "plan", "choose", "conclude", "chat", "none"] = "act"
    told: str = ""


def one_call(need: str, tool: ToolSpec) -> str:
    """What the model thinks before the one call that answers: what is needed, in the words of question and
    description, and then who gives it. Put into words first, the choice of a tool is learned far sooner."""
    return f"I need {need}: {tool.name}."


def first_call(need: str, tool: ToolSpec, next_need: str, next_tool: ToolSpec) -> str:
    """The same before the first of two calls."""
    return f"I need {need}: {tool.name}, then {next_need}: {next_tool.name}."


def second_call(need: str, tool: ToolSpec) -> str:
    """The same before the second."""
    return f"Now {need}: {tool.name}."
