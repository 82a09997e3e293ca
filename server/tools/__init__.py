"""The tools that agents may use. One file for each tool, also in sub-folders; reloadable.

A file's tools are the `BaseTool` objects at its top level (made by `@tool`), those in lists there, and the result of
its function `build_tool(llm)`, if it has one. A file with none of them is code that tools share. A tool that fails
raises `ToolException` with a sentence that the model reads. A `build_tool` that this server can't serve raises
`ToolAbsentError`.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool

from server.sdk.tool_absent import ToolAbsentError, leave_out


class DuplicateToolError(ValueError):
    """Two different tools have one name."""


def load_tools(llm: BaseChatModel) -> dict[str, BaseTool]:
    """Build the tools of every file in this folder and below it, by name.

    `llm`: the model for tools that need one. Raises `DuplicateToolError` with both files if two tools have the same
    name, `TypeError` if a `build_tool` returns something else than a tool, and what importing a file raises.
    """
    tools: dict[str, BaseTool] = {}
    files: dict[str, str] = {}
    for path in _files():
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module("." + name, __package__)
        file = f"server/tools/{path.as_posix()}"
        for tool in _tools_of(module, file, llm):
            other = tools.setdefault(tool.name, tool)
            if other is not tool:
                raise DuplicateToolError(
                    f"{files[tool.name]} and {file} both have a tool named {tool.name!r}; rename one of them"
                )
            # A tool that another file only imports belongs to its own file.
            files.setdefault(tool.name, file)
    return tools


def _files() -> list[Path]:
    """The modules beside and below this one, in order. A name that can't be imported is no module."""
    folder = Path(__file__).parent
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    return [path for path in paths if path != Path("__init__.py") and _is_module(path)]


def _is_module(path: Path) -> bool:
    return all(part.isidentifier() for part in path.with_suffix("").parts)


def _tools_of(module: ModuleType, file: str, llm: BaseChatModel) -> Iterator[BaseTool]:
    for name, value in vars(module).items():
        is_list = isinstance(value, list | tuple) and not name.startswith("_")
        yield from (one for one in (value if is_list else [value]) if isinstance(one, BaseTool))
    build = vars(module).get("build_tool")
    if build is not None:
        try:
            built = build(llm)
        except ToolAbsentError as absent:
            leave_out(absent)
            return
        if not isinstance(built, BaseTool):
            raise TypeError(f"build_tool in {file} must return a LangChain tool, it returned {built!r}")
        yield built
