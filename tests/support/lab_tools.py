"""300 written tools of a lab, with questions for them: `benchmarks/lab_tools/`.

A tool there is a table of its name: `does` is its description, `takes` its arguments (a type, and perhaps a
description after a semicolon; `?` marks an optional one), `asks` the questions. Calling one returns its name.
"""

import tomllib
from collections.abc import Collection
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from tests.support.server_process import REPOSITORY

FOLDER = REPOSITORY / "benchmarks" / "lab_tools"
LATER = "later_questions.toml"
"""One question for each of some tools, written after the ranker."""
TYPES: dict[str, dict[str, Any]] = {
    **{kind: {"type": kind} for kind in ("string", "integer", "number", "boolean")},
    "list of numbers": {"type": "array", "items": {"type": "number"}},
}

# The file of a workspace that has the tools.
SOURCE = """
from langchain_core.tools import StructuredTool

def made(name, description, schema):
    return StructuredTool(name=name, description=description, args_schema=schema, func=lambda **given: name)

tools = [made(*one) for one in {specs!r}]
"""


def specs() -> list[tuple[str, str, dict[str, Any]]]:
    """Name, description and JSON schema of each tool."""
    return [(name, tool["does"], _schema(tool["takes"])) for name, tool in _written().items()]


def build() -> dict[str, BaseTool]:
    """The tools by name."""

    def made(name: str, description: str, schema: dict[str, Any]) -> BaseTool:
        return StructuredTool(name=name, description=description, args_schema=schema, func=lambda **given: name)

    return {name: made(name, description, schema) for name, description, schema in specs()}


def source(but: Collection[str] = ()) -> str:
    """A Python file with all tools but these."""
    return SOURCE.format(specs=[one for one in specs() if one[0] not in but])


def questions() -> list[tuple[str, str]]:
    """Questions that were written together with the tools, each with the name of its tool."""
    return [(question, name) for name, tool in _written().items() for question in tool["asks"]]


def later_questions() -> list[tuple[str, str]]:
    """Questions that were written after the ranker."""
    return [(question, name) for name, question in _read(LATER).items()]


def _written() -> dict[str, Any]:
    files = sorted(file.name for file in FOLDER.glob("*.toml") if file.name != LATER)
    return {name: tool for file in files for name, tool in _read(file).items()}


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / name).read_text("utf-8"))


def _schema(takes: dict[str, str]) -> dict[str, Any]:
    properties = {}
    for argument, said in takes.items():
        kind, _, description = said.partition("; ")
        properties[argument.rstrip("?")] = {**TYPES[kind], **({"description": description} if description else {})}
    required = [argument for argument in takes if not argument.endswith("?")]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
