"""What a provider's package raises, as an error of Hearth's that says what the provider said, without the key."""

import re
import time
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
from server.redaction import redacted

LONGEST_SAID = 500

# How OpenAI, Anthropic, Google, vLLM and llama.cpp put it.
TOO_LONG = re.compile(
    r"context.?(length|window|size)|prompt.?(is.)?too.long|input token count|too many tokens", re.IGNORECASE
)
# Waiting brings no money.
NO_CREDIT = re.compile(r"insufficient_quota|credit balance", re.IGNORECASE)


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
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    if not isinstance(said, str) or not said.strip():
        bottom: BaseException = error
        while _status(error) is None and (below := bottom.__cause__ or bottom.__context__) is not None:
            bottom = below
        said = str(bottom) or type(bottom).__name__
    said = " ".join(redacted(said).split())
    return (said if len(said) <= LONGEST_SAID else said[:LONGEST_SAID] + "...").rstrip(".") + "."


def _status(error: BaseException) -> int | None:
    """The HTTP status that the provider answered with; None where it did not answer."""
    link: BaseException | None = error
    while link is not None:
        for holder in (link, getattr(link, "response", None)):
            for name in ("status_code", "code"):
                value = getattr(holder, name, None)
                if isinstance(value, int) and 400 <= value < 600:
                    return value
        link = link.__cause__ or link.__context__
    return None


def _retry_after(error: BaseException) -> float | None:
    """Seconds, from the header `Retry-After`, which has them or a date."""
    link: BaseException | None = error
    while link is not None:
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
        link = link.__cause__ or link.__context__
    return None
