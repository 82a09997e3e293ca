"""`POST /v1/completions`."""

from collections.abc import Sequence
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from server.completions.logprobs import Logprobs, TokenLogprob
from server.completions.types import Completion
from server.host import Host
from server.http.access import access
from server.http.openai.chat_schemas import MOST_TEXTS, CompletionRequest
from server.http.openai.errors import invalid
from server.http.openai.run_answers import answer_to, events_to
from server.http.openai.run_factory import most_tokens, names_agent, start_run
from server.http.openai.schemas import OpenAIAnswer
from server.http.openai.serializers import REFUSED, TextSerializer, sampling_of
from server.http.openai.structured_outputs import answer_of

DEFAULT_TOKENS = 16
"""OpenAI's default for `max_tokens`."""


def blueprint(host: Host) -> APIBlueprint:
    """The route, over `host`."""
    routes = APIBlueprint("openai_completions", __name__)

    @routes.post(
        "/v1/completions",
        summary="OpenAI: the end of a text, by the model; or an agent's answer to it",
        responses={200: OpenAIAnswer, **REFUSED},
    )
    @access("ask", "session")
    def completions(body: CompletionRequest) -> dict[str, Any] | Response:
        count = body.n or 1
        texts = count * len(body.prompt)
        if texts > MOST_TEXTS:
            raise invalid(f"These are {texts} texts; one request may ask for {MOST_TEXTS} at most.", "n")
        default = None if names_agent(body) else DEFAULT_TOKENS
        completion = Completion(
            tuple(one if isinstance(one, str) else tuple(one) for one in body.prompt),
            most_tokens(host, default if body.max_tokens is None else body.max_tokens, texts),
            count,
            tuple(body.stop or ()),
            sampling_of(body, body.seed),
            logprobs=None if body.logprobs is None else Logprobs(body.logprobs, with_end=True),
            echo=bool(body.echo),
            answer=answer_of(body),
        )
        run = start_run(host, body, completion)
        serializer = CompletionSerializer(run, body, completion.logprobs)
        if body.stream:
            return events_to(run, serializer.chunks)
        return serializer.answer(answer_to(run))

    return routes


class CompletionSerializer(TextSerializer):
    """The names of completions for the parts of a choice."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def shown(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {"text": choice["content"]}

    def logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        return {
            "tokens": [one.text for one in tokens],
            "token_logprobs": [one.logprob for one in tokens],
            "top_logprobs": [_by_text(one) for one in tokens],
            "text_offset": [one.offset for one in tokens],
        }

    def delta(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def ended(self) -> dict[str, Any]:
        return {"text": ""}


def _by_text(token: TokenLogprob) -> dict[str, float] | None:
    """The likeliest tokens, and the token itself; None for a text's very first one."""
    if token.logprob is None:
        return None
    found = {one.text: one.logprob for one in reversed(token.top) if one.logprob is not None}
    return {**found, token.text: token.logprob}
