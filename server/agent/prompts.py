"""Every word that an agent says to a model. Edit the texts here, reload, ask again.

The embedded model is trained on these very texts (server/embedded), so after a change here it does its
job less well until it is trained again; larger models don't mind.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

SYSTEM = """\
Answer the question. Use a tool when one fits; answer directly when none is needed.

Tools:
{tools}

Write each step as
Thought: what to do next
Action: the name of a tool
Action Input: its arguments as JSON
Observation: what the tool gave
and at the end
Thought: why this is enough
Answer: the answer"""

NO_TOOLS = "(none)"

THOUGHT = "Thought: "
ACTION = "\nAction: "
ACTION_INPUT = "\nAction Input: "
OBSERVATION = "\nObservation: "
NEXT_THOUGHT = "\nThought: "
ANSWER = "\nAnswer: "

#: What the model reads where a tool failed.
FAILED = "Error: {message}"
#: What follows in the model's turn when it wants another tool although all its steps are used.
OUT_OF_STEPS = f"{OBSERVATION}Error: no steps are left.{NEXT_THOUGHT}I answer with what I know.{ANSWER}"
#: What the caller reads behind the answer in that case.
OUT_OF_STEPS_NOTE = " (The agent ran out of steps after {steps}; it was not done.)"
#: What the model reads where a long observation ends early.
CUT = " ... ({characters} more characters)"


def messages(tools: Iterable[tuple[str, str, Mapping[str, Any]]], question: str) -> list[dict[str, str]]:
    """The conversation that opens a run, for a tokenizer's `apply_chat_template`.

    `tools` are (name, description, JSON schema of the arguments).
    """
    listed = "\n".join(describe_tool(*tool) for tool in tools) or NO_TOOLS
    return [
        {"role": "system", "content": SYSTEM.format(tools=listed)},
        {"role": "user", "content": question},
    ]


def describe_tool(name: str, description: str, schema: Mapping[str, Any]) -> str:
    """One line a tool: `- description: name(argument: type, optional?: type)`.

    What it does comes before its name, since a model that looks for who does it then copies what follows: the
    direction that small models learn by far the soonest (induction heads, https://arxiv.org/abs/2209.11895).
    """
    required = schema.get("required", ())
    arguments = ", ".join(
        f"{argument}{'' if argument in required else '?'}: {describe_type(part)}"
        for argument, part in schema.get("properties", {}).items()
    )
    return f"- {' '.join(description.split()).removesuffix('.')}: {name}({arguments})"


def describe_type(schema: Mapping[str, Any]) -> str:
    """The type of an argument in a word, from its JSON schema; the choices where it is an enumeration."""
    if "enum" in schema:
        return " | ".join(json.dumps(choice, ensure_ascii=False) for choice in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(describe_type(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {describe_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
