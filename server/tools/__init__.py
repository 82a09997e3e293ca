"""The tools that agents may use. One tool a file; reloadable.

A file's tools are the `BaseTool` objects at its top level (what `@tool` makes), and the one that its function
`build_tool(llm)` gives, if it has such a function. A file that has neither is code that the tools share.
A tool that fails raises `ToolException` with a sentence: it is text for the model.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool


class DuplicateToolError(ValueError):
    """Two different tools have one name."""


def load_tools(llm: BaseChatModel) -> dict[str, BaseTool]:
    """Build the tools of every file in this folder, by name.

    `llm` is the model for the tools that need one. Raises `DuplicateToolError` naming both files when two
    tools share a name, `TypeError` when a file's `build_tool` gives something else than a tool, and whatever
    a file raises while it is imported.
    """
    tools: dict[str, BaseTool] = {}
    files: dict[str, str] = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module("." + found.name, __package__)
        file = f"server/tools/{found.name}{'/__init__' if found.ispkg else ''}.py"
        for tool in _tools_of(module, file, llm):
            other = tools.setdefault(tool.name, tool)
            if other is not tool:
                raise DuplicateToolError(
                    f"{files[tool.name]} and {file} both have a tool named {tool.name!r}; rename one of them"
                )
            # A tool that a second file merely imports stays the first file's.
            files.setdefault(tool.name, file)
    return tools


def _tools_of(module: ModuleType, file: str, llm: BaseChatModel) -> Iterator[BaseTool]:
    yield from (value for value in vars(module).values() if isinstance(value, BaseTool))
    build = vars(module).get("build_tool")
    if build is not None:
        built = build(llm)
        if not isinstance(built, BaseTool):
            raise TypeError(f"build_tool in {file} must return a LangChain tool, it returned {built!r}")
        yield built
