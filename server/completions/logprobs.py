"""Log-probabilities of what the model wrote, and of prompts: read once more by the model after the text is complete,
so a request without them pays nothing."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server.errors import InvalidRequestError

if TYPE_CHECKING:
    from server.engine import GuidedEngine
    from server.engine.scored_text import ScoredToken
    from server.sdk.model_call import ModelCall

MOST_ALTERNATIVES = 20


@dataclass(frozen=True)
class TokenLogprob:
    """A token as text and bytes. `logprob`: at temperature 1, among the whole vocabulary; None for a text's very
    first token. `top`: the likeliest tokens there. `offset`: its first character's place in the text."""

    text: str
    data: bytes
    logprob: float | None
    top: "tuple[TokenLogprob, ...]"
    offset: int = 0


@dataclass
class Logprobs:
    """A request for log-probabilities. `alternatives`: the number of the likeliest tokens that are wanted at each
    place. `with_end`: the token that ends a text counts, too.

    `texts` gets those of each text, in the order of the choices. They are no part of a run's record.
    """

    alternatives: int
    with_end: bool = False
    texts: list[list[TokenLogprob]] = field(default_factory=list)


def of_call(
    engine: "GuidedEngine", call: "ModelCall", wanted: Logprobs, begin: int, end: int | None
) -> list[TokenLogprob]:
    """The log-probabilities of the tokens of a model call that make the characters from `begin` to `end` of what it
    wrote; `end` None: all. Raises what `GuidedEngine.score` raises."""
    tokens = engine.score(
        call.prompt, call.bos, call.prompt_tokens, call.tokens, 0, len(call.tokens), wanted.alternatives
    )
    # The first tokens may have characters of the prompt.
    place = -len(engine.prompt_end(call.prompt, call.bos, call.prompt_tokens))
    return _placed(engine, tokens, place, begin, end)


def of_tokens(
    engine: "GuidedEngine", tokens: Sequence[int], after: int, wanted: Logprobs, end: int | None
) -> list[TokenLogprob]:
    """The same for the tokens after the first `after` ones, and their first `end` characters."""
    return _placed(engine, engine.score_tokens(tokens, after, wanted.alternatives), 0, 0, end)


def check(engine: "GuidedEngine", has_images: bool) -> None:
    """Raises `InvalidRequestError` if the model can't read the prompt again."""
    if has_images and engine.takes_images:
        raise InvalidRequestError("Log-probabilities are for prompts without pictures. Leave one of them out.")


def _placed(
    engine: "GuidedEngine", tokens: "Sequence[ScoredToken]", place: int, begin: int, end: int | None
) -> list[TokenLogprob]:
    """The tokens with characters between `begin` and `end`. The first one's first character is at `place`."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found = []
    for one in tokens:
        text, data = _as_text(engine, one.id)
        after = place + len(decoder.decode(data))
        if (begin <= place or begin < after) and (end is None or place < end):
            found.append(TokenLogprob(text, data, one.logprob, _top(engine, one), max(place - begin, 0)))
        place = after
    return found


def _top(engine: "GuidedEngine", token: "ScoredToken") -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(*_as_text(engine, one), logprob, ()) for one, logprob in token.top)


def _as_text(engine: "GuidedEngine", token: int) -> tuple[str, bytes]:
    text, data = engine.token_text(token)
    return text, text.encode() if data is None else data
