"""`tools/list`: the tools of the live generation, in pages."""

from mcp_types import INVALID_PARAMS, ListToolsResult, Tool, ToolAnnotations

from server.http.mcp.messages import Request, refuse
from server.reload import Generation
from server.reload.changes import ToolInfo

PAGE = 200
"""Tools."""


def tools_page(request: Request, generation: Generation) -> ListToolsResult:
    """A page of the tools. A cursor holds for one generation. Raises `McpRequestError` for one of another."""
    tools = list((generation.tools or {}).values())
    begin = _begin(request.params.get("cursor"), generation.hash)
    end = begin + PAGE
    return ListToolsResult(
        tools=[_shown(tool) for tool in tools[begin:end]],
        next_cursor=f"{generation.hash}.{end}" if end < len(tools) else None,
    )


def _begin(cursor: object, generation: str) -> int:
    if cursor is None:
        return 0
    of, _, place = str(cursor).partition(".")
    if of != generation or not (place.isascii() and place.isdigit() and len(place) < 7):
        refuse(INVALID_PARAMS, "The cursor is not of this list: the tools have changed. List them from the start.")
    return int(place)


def _shown(tool: ToolInfo) -> Tool:
    return Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=dict(tool.args_schema),
        annotations=ToolAnnotations.model_validate(tool.annotations) if tool.annotations else None,
    )
