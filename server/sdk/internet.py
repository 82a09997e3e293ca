"""The web, for tools and agents. The server loads and searches; a worker holds no keys.

Everything here that comes from outside may be wrong or hostile. `str()` of it is what a model may read: it is marked.
"""

from dataclasses import dataclass, field
from typing import Any

from server.errors import HearthError, RunCancelledError
from server.sdk import context
from server.sdk.tool_absent import ToolAbsentError
from server.sdk.untrusted import marked


@dataclass(frozen=True)
class WebPage:
    """A part of a page's text. `url`: after redirects. `part` of `parts`: from 1. `age`: seconds since it was loaded.
    `skipped`: what was left out. `hash`: SHA-256 of the page's bytes."""

    url: str
    title: str | None
    text: str
    part: int
    parts: int
    age: float
    hash: str
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """What a model reads of it."""
        lines = [f"URL: {self.url}", *([f"Title: {self.title}"] if self.title else []), "", self.text]
        notes = f"Part {self.part} of {self.parts}." if self.parts > 1 else ""
        more = f" Read part {self.part + 1} for more." if self.part < self.parts else ""
        return "\n".join(one for one in (marked("\n".join(lines), "a web page"), notes + more) if one)


@dataclass(frozen=True)
class WebResult:
    """A result of a search. `extract`: some sentences of the page. `date`: as the search engine writes it."""

    title: str
    url: str
    extract: str
    date: str | None = None


class WebResults(list[WebResult]):
    """The results of a search."""

    def __str__(self) -> str:
        """What a model reads of them."""
        if not self:
            return "The search has no results."
        lines = []
        for number, one in enumerate(self, 1):
            date = f" ({one.date})" if one.date else ""
            lines.append(f"{number}. {one.title}{date}\n{one.url}\n{one.extract}")
        return marked("\n\n".join(lines), "search results")


def search_web(query: str, limit: int = 5, domains: list[str] | None = None) -> WebResults:
    """Search the web. At most `limit` results, up to 20, of these domains alone if there are any. Raises
    `ToolException` with a sentence for the model."""
    reply = _ask("search", query=query, limit=limit, domains=domains or [])
    return WebResults(WebResult(**one) for one in reply["results"])


def read_web_page(url: str, part: int = 1) -> WebPage:
    """The text of a page, a PDF or a text, as a person sees it: hidden text is left out. Raises `ToolException` with
    a sentence for the model."""
    return WebPage(**_ask("page", url=url, part=part))


def need_internet(what: str, tool: str) -> None:
    """For `build_tool`: raises `ToolAbsentError` for that tool if this server can't do `what`, `search` or `page`."""
    absent = context.current().absent_internet
    if absent is None:
        raise ToolAbsentError(tool, "this code does not run in a server")
    if what in absent:
        raise ToolAbsentError(tool, absent[what])


def _ask(do: str, **given: Any) -> dict[str, Any]:
    from langchain_core.tools import ToolException

    listener = context.current().listener
    if listener is None:
        raise RuntimeError("The web is asked in a run, and this code runs outside of one.")
    try:
        return listener.ask("internet", do, given)
    except RunCancelledError:
        raise
    except HearthError as error:
        raise ToolException(error.message) from None
