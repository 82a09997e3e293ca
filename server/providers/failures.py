"""What a provider's package raises, as an error of Hearth's that says what the provider said, without the key."""

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
from server.observability.redaction import redacted

LONGEST_SAID = 500

# How OpenAI, Anthropic, Google, vLLM and llama.cpp put it.
TOO_LONG = re.compile(
    r"context.?(length|window|size)|prompt.?(is.)?too.long|input token count|too many tokens", re.IGNORECASE
)
# Waiting brings no money.
NO_CREDIT = re.compile(r"insufficient_quota|credit balance", re.IGNORECASE)
# Google's and Mistral's words for what others answer with 401 and 404.
BAD_KEY = re.compile(r"api key (not (valid|found)|expired)", re.IGNORECASE)
NO_MODEL = re.compile(r"invalid model:", re.IGNORECASE)


class PassingError(Exception):
    """The request may well work when it is sent again. `told` is what to raise if it doesn't, `after` the seconds
    that the provider wants to be left alone, None where it did not say."""

    def __init__(self, told: ProviderError, after: float | None = None) -> None:
        super().__init__(told.message)
        self.told = told
        self.after = after


def explained(error: Exception, model: str, context_length: int) -> HearthError | PassingError:
    """What `error` means, which a package raised while `model` was asked. Whatever isn't known to last, such as a
    connection that breaks, counts as passing."""
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
            return limited if NO_CREDIT.search(said) else PassingError(limited, after)
    if refused and status not in (408, 409):
        return ProviderError(f"The provider of {model} refused the request: {said}")
    return PassingError(ProviderError(f"{model} gave no answer: {said}"), _retry_after(error))


def _said(error: Exception) -> str:
    """What the provider said or, where it said nothing, what is at the bottom of the error: a broken connection is
    wrapped several times."""
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
    """`error`, and each that the one before is wrapped around."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _body(error: BaseException) -> dict[str, Any]:
    """What the provider answered with; empty where that is no JSON. Each package keeps it elsewhere."""
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
    """The HTTP status that the provider answered with; None where it did not answer."""
    for link in _links(error):
        response = getattr(link, "response", None)
        values = [getattr(link, "status_code", None), getattr(response, "status_code", None)]
        if response is not None:
            # Without one it may be aiohttp's code for a connection that broke.
            values.append(getattr(link, "code", None))
        for value in values:
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None


def _retry_after(error: BaseException) -> float | None:
    """Seconds, from the header `Retry-After`, which has them or a date, or from Google's words for it."""
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
