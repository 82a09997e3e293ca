"""Reading a page of the web, where the server's owner allows it."""

from typing import Annotated

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, tool
from pydantic import Field

from server.sdk import need_internet, read_web_page


def build_tool(llm: BaseChatModel) -> BaseTool:
    """The tool. Raises `ToolAbsentError` where no pages may be loaded."""
    need_internet("page", "read_page")

    @tool
    def read_page(
        url: Annotated[str, Field(min_length=1, max_length=2048)], part: Annotated[int, Field(ge=1, le=1000)] = 1
    ) -> str:
        """Read the text of a web page, a PDF or a text by its URL. Long ones have several parts."""
        return str(read_web_page(url, part))

    return read_page
