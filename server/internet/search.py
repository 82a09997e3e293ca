"""Search engines: Tavily by its API, SearXNG by its own."""

import email.utils
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from server.errors import FetchFailedError, FetchRefusedError, SearchFailedError, SearchLimitedError
from server.internet.addresses import AllowList
from server.internet.fetch import Fetcher, Reply
from server.observability import metrics
from server.sandbox.inside.hidden_text import without_invisible

SECONDS = 20.0
MOST_BYTES = 4 * 1024 * 1024
MOST_RESULTS = 20
LONGEST_QUERY = 400
"""Characters: Tavily takes no more."""
MOST_DOMAINS = 20
LONGEST_TITLE, LONGEST_EXTRACT = 300, 1500
TAVILY = "https://api.tavily.com"
OVERSAMPLED = 3
"""So many times the results are asked for where some may be filtered out."""


class SearchResult(BaseModel):
    """One result. Hostile: a page has written title and extract."""

    title: str
    url: str
    extract: str
    date: str | None = None


class Searcher(Protocol):
    """A search engine. Safe for any number of threads."""

    @property
    def name(self) -> Literal["tavily", "searxng"]:
        """For messages and metrics."""

    def search(self, query: str, limit: int, domains: Sequence[str]) -> list[SearchResult]:
        """Its results, as it sends them. Raises `SearchFailedError`, `FetchFailedError`."""


class WebSearch:
    """A search engine whose results are bounded, and are of the domains that were asked for. Safe for any number of
    threads."""

    def __init__(self, engine: Searcher) -> None:
        self._engine = engine

    def search(self, query: str, limit: int, domains: Sequence[str]) -> list[SearchResult]:
        """At most `limit` results, of these domains and those below them; no domains: of all. Raises
        `SearchFailedError`, `SearchLimitedError`."""
        outcome = "failed"
        try:
            wanted = limit * OVERSAMPLED if domains else limit
            found = self._engine.search(query, min(wanted, MOST_RESULTS), domains)
            outcome = "succeeded"
        except SearchLimitedError:
            outcome = "limited"
            raise
        except (FetchFailedError, FetchRefusedError) as error:
            raise SearchFailedError(f"{self._engine.name} can't be asked: {error.message}") from error
        finally:
            metrics.SEARCHES.labels(self._engine.name, outcome).inc()
        kept: dict[str, SearchResult] = {}
        for one in found:
            if _is_link(one.url) and (not domains or is_within(one.url, domains)):
                kept.setdefault(one.url, _bounded(one))
        return list(kept.values())[:limit]


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Entry(_Read):
    title: str = ""
    url: str
    content: str = ""
    published_date: str | None = Field(None, alias="publishedDate")

    @field_validator("title", "content", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return "" if value is None else value


class _Results(_Read):
    results: list[Any]


class Tavily:
    """See https://docs.tavily.com/documentation/api-reference/endpoint/search. Not by langchain-tavily's wrapper: it
    has no time limit, and of an error it gives no status."""

    name: Literal["tavily"] = "tavily"

    def __init__(self, key: str, url: str = TAVILY, verify: bool | str = True) -> None:
        self._key = key
        self._url = url
        self._fetcher = _fetcher_of(url, verify)

    def search(self, query: str, limit: int, domains: Sequence[str]) -> list[SearchResult]:
        """See `Searcher`."""
        body: dict[str, Any] = {"query": query, "max_results": limit, "search_depth": "basic"}
        if domains:
            body["include_domains"] = list(domains)
        reply = self._fetcher.ask(f"{self._url}/search", body, {"Authorization": f"Bearer {self._key}"})
        if reply.status != 200:
            raise _refusal("Tavily", reply, _TAVILY_REFUSALS)
        return _results("Tavily", reply)


class SearXNG:
    """See https://docs.searxng.org/dev/search_api.html. The server must allow the format json."""

    name: Literal["searxng"] = "searxng"

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._fetcher = _fetcher_of(url)

    def search(self, query: str, limit: int, domains: Sequence[str]) -> list[SearchResult]:
        """See `Searcher`."""
        sites = " OR ".join(f"site:{domain}" for domain in domains)
        asked = {"q": f"{query} ({sites})" if len(domains) > 1 else f"{query} {sites}".strip(), "format": "json"}
        reply = self._fetcher.ask(f"{self._url}/search?{urlencode(asked)}")
        if reply.status != 200:
            raise _refusal("SearXNG", reply, _SEARXNG_REFUSALS)
        return _results("SearXNG", reply)


_TAVILY_REFUSALS = {
    400: "The query is not taken: make it shorter and plainer.",
    401: "TAVILY_API_KEY is wrong, or no longer valid.",
    403: "TAVILY_API_KEY may not do this.",
    429: "It takes no more requests for now. Try again later.",
    432: "The plan's limit of searches is reached.",
    433: "The limit of pay-as-you-go is reached.",
}
_SEARXNG_REFUSALS = {
    403: "It does not allow the format json: its owner adds it to search.formats of settings.yml.",
    429: "Its limiter takes no more requests for now. Try again later.",
}
_LIMITED = (429, 432, 433)


def is_within(url: str, domains: Sequence[str]) -> bool:
    """Whether the URL's host is one of the domains, or below one."""
    try:
        host = (urlsplit(url).hostname or "").lower().removesuffix(".")
    except ValueError:
        return False
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _is_link(url: str) -> bool:
    return url.startswith(("http://", "https://")) and len(url) <= 2048 and url.isprintable() and " " not in url


def _fetcher_of(url: str, verify: bool | str = True) -> Fetcher:
    """Loads from this server alone, wherever the owner has put it."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname or ""
    allowed = AllowList([f"[{host}]:{port}" if ":" in host else f"{host}:{port}"])
    return Fetcher(allowed, SECONDS, MOST_BYTES, verify)


def _results(name: str, reply: Reply) -> list[SearchResult]:
    try:
        given = _Results.model_validate(json.loads(reply.content)).results[:MOST_RESULTS]
    except (ValueError, RecursionError) as error:  # pydantic's errors are ValueErrors
        raise SearchFailedError(f"{name} replied what is no list of results: {type(error).__name__}.") from error
    found = []
    for one in given:
        try:
            entry = _Entry.model_validate(one)
        except ValidationError:
            continue  # one that is not readable; the others are
        date = entry.published_date or (one.get("published_date") if isinstance(one, dict) else None)
        found.append(
            SearchResult(
                title=entry.title,
                url=entry.url,
                extract=entry.content,
                date=date[:40] if isinstance(date, str) else None,
            )
        )
    if given and not found:
        raise SearchFailedError(f"{name} replied {len(given)} results, none of which can be read.")
    return found


def _refusal(name: str, reply: Reply, sentences: Mapping[int, str]) -> SearchFailedError:
    """The error of a reply that has no results. Its text may be anything, and is not shown."""
    said = sentences.get(reply.status, "Try again later." if reply.status >= 500 else "")
    message = f"{name} replied {reply.status}. {said}".rstrip()
    if reply.status not in _LIMITED:
        return SearchFailedError(message)
    seconds = _retry_after(reply.headers.get("retry-after", ""))
    return SearchLimitedError(message) if seconds is None else SearchLimitedError(message, retry_after=seconds)


def _retry_after(text: str) -> int | None:
    """Seconds, of a number or a date."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), 86_400)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return int(min(max(moment - time.time(), 0), 86_400))


def _bounded(one: SearchResult) -> SearchResult:
    return SearchResult(
        title=" ".join(without_invisible(one.title).split())[:LONGEST_TITLE],
        url=one.url,
        extract=without_invisible(one.extract).strip()[:LONGEST_EXTRACT],
        date=one.date,
    )
