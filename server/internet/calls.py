"""What agents and tools ask of the web, over the worker's channel: workers hold no keys."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, TypeAdapter

from constants import Settings
from server.errors import InvalidRequestError, SearchFailedError
from server.internet.fetch import MISSING, is_installed
from server.internet.pages import WebPages
from server.internet.search import (
    LONGEST_QUERY,
    MOST_DOMAINS,
    MOST_RESULTS,
    Searcher,
    SearXNG,
    Tavily,
    WebSearch,
)
from server.runs.run import Run
from server.sdk import context
from server.sessions.asked import Asked, read

KEY = "TAVILY_API_KEY"
PART = 8_000
"""Characters of a page that a model reads at once."""


def _domain(text: str) -> str:
    """`https://Example.org/x` is `example.org`."""
    domain = text.strip().lower().partition("://")[2] or text.strip().lower()
    domain = domain.partition("/")[0].removeprefix("*.").removeprefix("www.").strip(".")
    if not domain or len(domain) > 253 or not all(part.isprintable() and part for part in domain.split(".")):
        raise ValueError(f"{text[:100]!r} is no domain such as example.org")
    if any(sign in domain for sign in " \t@:()"):
        raise ValueError(f"{text[:100]!r} is no domain such as example.org")
    return domain


class _Search(Asked):
    do: Literal["search"]
    query: Annotated[str, Field(min_length=1, max_length=LONGEST_QUERY)]
    limit: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 5
    domains: Annotated[list[Annotated[str, AfterValidator(_domain)]], Field(max_length=MOST_DOMAINS)]


class _Page(Asked):
    """A part of a page. `part`: from 1."""

    do: Literal["page"]
    url: Annotated[str, Field(min_length=1, max_length=10_000)]
    part: Annotated[int, Field(ge=1, le=10_000)] = 1


_any_call: TypeAdapter[Any] = TypeAdapter(Annotated[_Search | _Page, Field(discriminator="do")])


class InternetCalls:
    """Safe for any number of threads."""

    def __init__(self, settings: Settings, pages: WebPages) -> None:
        self._pages = pages
        self._search: WebSearch | None = None
        self.absent: dict[str, str] = {}
        """What can't be asked, `search` or `page`, and why."""
        engine = search_engine(settings)
        if not is_installed():
            self.absent = {"search": MISSING, "page": MISSING}
        elif engine is None:
            self.absent["search"] = f"no search engine is set up: set {KEY} or HEARTH_SEARXNG_URL"
        else:
            self._search = WebSearch(engine)
        if settings.FETCH == "off":
            self.absent["page"] = "this server loads no pages from the web: set HEARTH_FETCH=on"
        elif settings.SANDBOX == "off":
            self.absent["page"] = "pages are read in the sandbox, which is off (HEARTH_SANDBOX)"

    def do(self, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """The answer to a call. Raises `InvalidRequestError`, and what `WebSearch.search` and `WebPages.get`
        raise."""
        call, _ = read(_any_call, given, run, "the web")
        match call:
            case _Search():
                return self._results(call)
        return self._part(call)

    def _results(self, call: _Search) -> dict[str, Any]:
        if self._search is None:
            raise SearchFailedError(f"The web can't be searched: {self.absent['search']}.")
        found = self._search.search(call.query, call.limit, call.domains)
        return {"results": [one.model_dump() for one in found]}

    def _part(self, call: _Page) -> dict[str, Any]:
        cancelled = context.current().cancelled
        page = self._pages.get(call.url, lambda: cancelled is not None and cancelled.is_set())
        text = page.page.text
        parts = max(1, -(-len(text) // PART))
        if call.part > parts:
            raise InvalidRequestError(f"The page has {parts} parts, and no part {call.part}.")
        return {
            "url": page.final_url,
            "title": page.page.title,
            "text": text[(call.part - 1) * PART : call.part * PART],
            "part": call.part,
            "parts": parts,
            "skipped": page.page.skipped,
            "age": page.age,
            "hash": page.hash,
        }


def search_engine(settings: Settings) -> Searcher | None:
    """The engine that the owner has set up: SearXNG, else Tavily; None: none."""
    if settings.SEARXNG_URL is not None:
        return SearXNG(settings.SEARXNG_URL)
    key = os.environ.get(KEY) or dotenv_values(".env").get(KEY)
    return Tavily(key) if key else None
