"""What a call of a tool takes, as a JSON schema."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


def arguments_schema(tool: "BaseTool") -> dict[str, Any]:
    """The JSON schema of the arguments that a caller of `tool` gives, in the tool's own order, and no others.

    What LangChain injects itself is left out. Raises whatever the tool's own types raise when no schema can be
    made of them.
    """
    given: Any = tool.tool_call_schema
    schema: dict[str, Any] = dict(given if isinstance(given, dict) else given.model_json_schema())
    schema.setdefault("additionalProperties", False)
    return schema
