"""Searching the web, where the server's owner has set up a search engine."""

from typing import Annotated

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, tool
from pydantic import Field

from server.sdk import need_internet, search_web


def build_tool(llm: BaseChatModel) -> BaseTool:
    """The tool. Raises `ToolAbsentError` without a search engine."""
    need_internet("search", "web_search")

    @tool
    def web_search(
        query: Annotated[str, Field(min_length=1, max_length=400)],
        limit: Annotated[int, Field(ge=1, le=20)] = 5,
        domains: Annotated[list[str], Field(max_length=20)] = [],  # noqa: B006 - a schema's default
    ) -> str:
        """Search the web for pages. Domains such as example.org restrict it to them."""
        return str(search_web(query, limit, domains))

    return web_search
