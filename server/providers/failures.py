"""Translating the errors of providers' packages into Hearth's, with the provider's message and without the key."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from server.errors import (
    HearthError,
    ModelNotFoundError,
    PromptTooLongError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderUnauthorizedError,
)
from server.observability.logs import redacted

LONGEST_SAID = 500

# The messages of OpenAI, Anthropic, Google, vLLM and llama.cpp.
TOO_LONG = re.compile(
    r"context.?(length|window|size)|prompt.?(is.)?too.long|input token count|too many tokens", re.IGNORECASE
)
# Not retryable: waiting does not add credit.
NO_CREDIT = re.compile(r"insufficient_quota|credit balance", re.IGNORECASE)
# Messages of Google and Mistral for what others answer with 401 and 404.
BAD_KEY = re.compile(r"api key (not (valid|found)|expired)", re.IGNORECASE)
NO_MODEL = re.compile(r"invalid model:", re.IGNORECASE)


class RetryableError(Exception):
    """The request may succeed when it is sent again. `error`: what to raise if it doesn't. `after`: the provider's
    Retry-After in seconds; None if it sent none."""

    def __init__(self, error: ProviderError, after: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.code = error.code
        self.after = after


def explained(error: Exception, model: str, context_length: int) -> HearthError | RetryableError:
    """The Hearth error for `error`, which a package raised during a request to `model`. Errors that are not known to
    be permanent, such as a broken connection, are retryable."""
    from langchain_core import exceptions

    said, status = _said(error), _status(error)
    refused = status is not None and 400 <= status < 500
    if isinstance(error, exceptions.ContextOverflowError) or (refused and TOO_LONG.search(said)):
        return PromptTooLongError(f"The conversation is too long for {model}: {said}", limit=context_length)
    if status == 400 and BAD_KEY.search(said):
        status = 401
    if status == 400 and NO_MODEL.match(said):
        status = 404
    match status:
        case 401 | 403:
            return ProviderUnauthorizedError(
                f"The provider of {model} refused the key: {said} The key is read from the server's environment or "
                "its file .env when the model is loaded."
            )
        case 404:
            return ModelNotFoundError(f"The provider of {model} does not know it: {said}")
        case 429:
            after = _retry_after(error)
            details = {} if after is None else {"retry_after": max(1, round(after))}
            limited = ProviderRateLimitedError(f"The provider of {model} answers no more for now: {said}", **details)
            return limited if NO_CREDIT.search(said) else RetryableError(limited, after)
    if refused and status not in (408, 409):
        return ProviderError(f"The provider of {model} refused the request: {said}")
    return RetryableError(ProviderError(f"{model} gave no answer: {said}"), _retry_after(error))


def _said(error: Exception) -> str:
    """The provider's message; without one, that of the innermost error, since a broken connection is wrapped several
    times."""
    body = _body(error)
    said = body.get("error") or body
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail") or ""
    if not isinstance(said, str):
        said = json.dumps(said, ensure_ascii=False)
    if not said.strip():
        *_, bottom = (error,) if _status(error) is not None else _links(error)
        said = str(bottom) or type(bottom).__name__
    said = " ".join(redacted(said).split())
    return (said if len(said) <= LONGEST_SAID else said[:LONGEST_SAID] + "...").rstrip(".") + "."


def _links(error: BaseException) -> Iterator[BaseException]:
    """`error` and its chain of causes."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _body(error: BaseException) -> dict[str, Any]:
    """The JSON body of the provider's response; empty if it is not JSON. Each package stores it elsewhere."""
    for link in _links(error):
        found = getattr(link, "body", None) or getattr(link, "details", None)
        if found is None:
            with suppress(ValueError, RuntimeError):  # It is no JSON, or was never read.
                text = getattr(getattr(link, "response", None), "text", None)
                found = json.loads(text) if isinstance(text, str) else None
        if isinstance(found, dict):
            return found
        if isinstance(said := getattr(link, "error", None), str):
            return {"error": said}
    return {}


def _status(error: BaseException) -> int | None:
    """The HTTP status of the provider's response; None without a response."""
    for link in _links(error):
        response = getattr(link, "response", None)
        values = [getattr(link, "status_code", None), getattr(response, "status_code", None)]
        if response is not None:
            # Without a response it may be aiohttp's code for a broken connection.
            values.append(getattr(link, "code", None))
        for value in values:
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None


def _retry_after(error: BaseException) -> float | None:
    """Seconds, from the header `Retry-After` (seconds or a date) or from Google's `retryDelay`."""
    for link in _links(error):
        headers: Any = getattr(getattr(link, "response", None), "headers", None)
        value = headers.get("retry-after") if headers is not None else None
        if value:
            try:
                return max(0.0, float(value))
            except ValueError:
                pass
            try:
                return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
            except ValueError:
                return None
    found = re.search(r'"retryDelay": "(\d+(\.\d+)?)s"', json.dumps(_body(error)))
    return float(found[1]) if found else None
