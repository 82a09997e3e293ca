"""Serializing the answers of chat and of completions, whole or in chunks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from server.completions.logprobs import Logprobs, TokenLogprob
from server.http.openai.chat_schemas import AskedForTexts
from server.http.openai.errors import shape
from server.http.openai.run_answers import (
    choices_of,
    events_of,
    hearth_fields,
    image_tokens,
    reasoning_tokens,
    token_counts,
)
from server.http.openai.run_factory import model_of
from server.http.openai.schemas import Asked, OpenAIError, RunRequest
from server.http.sse import ServerSentEvent
from server.runs import Run

REFUSED: dict[int | str | HTTPStatus, Any] = dict.fromkeys((400, 401, 404, 408, 409, 413, 429, 499, 503), OpenAIError)


SAMPLING = ("top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
"""Parameters that have the same names in the engine."""


def sampling_of(asked: RunRequest, seed: int | None = None) -> dict[str, Any]:
    """The sampling parameters of a request; see `Completion`. An API need not have all of them."""
    # top_p of 0 leaves only the likeliest token.
    temperature = 0.0 if asked.top_p == 0 else asked.temperature
    wanted = {"temperature": temperature, "seed": seed, **{name: getattr(asked, name, None) for name in SAMPLING}}
    if asked.top_k is not None:
        wanted["top_k"] = max(asked.top_k, 0)
    if isinstance(asked, Asked) and asked.logit_bias is not None:
        wanted["logit_bias"] = {int(token): bias for token, bias in asked.logit_bias.items()}
    return {name: value for name, value in wanted.items() if value is not None}


class TextSerializer(ABC):
    """Serializes the answer of a run. Subclasses have the names that chat and completions give the parts of a
    choice."""

    prefix: ClassVar[str]
    """The prefix of the answer's id."""
    whole: ClassVar[str]
    chunk: ClassVar[str]

    def __init__(self, run: Run, asked: AskedForTexts, logprobs: Logprobs | None = None) -> None:
        """`logprobs`: has those of the texts that are complete; None: nobody wants them."""
        self._run = run
        self._logprobs = logprobs
        self._asked = asked
        self._index = 0
        """The index of the next text in a stream."""
        self._begun = False

    @abstractmethod
    def shown(self, choice: dict[str, Any]) -> dict[str, Any]:
        """The fields of a whole text."""

    @abstractmethod
    def logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        """The log-probabilities of a text."""

    def begun(self) -> dict[str, Any] | None:
        """The fields of the chunk that opens a text; None: there is none."""
        return None

    @abstractmethod
    def delta(self, text: str) -> dict[str, Any]:
        """The fields of a chunk of text."""

    def beside(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        """The fields of the chunks after the text of a choice, such as its tool calls."""
        return []

    @abstractmethod
    def ended(self) -> dict[str, Any]:
        """The fields of the last chunk of a text, besides its finish reason."""

    def answer(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The whole answer, from that of the run."""
        choices = choices_of(self._run, answer)
        shown = [
            _choice(choice["index"], self.shown(choice), choice["finish_reason"], self._logprobs_of(choice["index"]))
            for choice in choices
        ]
        return {
            **self._head(self.whole, shown),
            "usage": self._usage(choices),
            "x_hearth": hearth_fields(self._run, answer),
        }

    def chunks(self, event: ServerSentEvent) -> list[ServerSentEvent]:
        """The chunks of the stream for one event of the run."""
        return [message for one in events_of(self._run, event) for message in self._chunks(*one)]

    def _chunks(self, number: int | None, kind: str | None, data: Any) -> list[ServerSentEvent]:
        if kind == "token":
            return [*self._begin(), self._chunk([_choice(self._index, self.delta(data["text"]))])]
        if kind == "choice":
            messages = [*self._begin(), *(self._chunk([_choice(self._index, part)]) for part in self.beside(data))]
            # They are known when the text is complete.
            if (logprobs := self._logprobs_of(self._index)) is not None:
                messages.append(self._chunk([_choice(self._index, self.delta(""), logprobs=logprobs)]))
            self._index, self._begun = self._index + 1, False
            return messages
        if kind in ("step", "plan"):
            # A field beside the standard ones. Clients look at the first choice of every chunk but the last one.
            return [*self._begin(), self._chunk([_choice(self._index, self.ended())], x_hearth={kind: data})]
        if kind == "answer":
            return self._end(data)
        if kind == "error":
            assert self._run.error is not None, "its error is known"
            return [(None, None, shape(self._run.error)[0])]
        return []

    def _logprobs_of(self, index: int) -> dict[str, Any] | None:
        return None if self._logprobs is None else self.logprobs(self._logprobs.texts[index])

    def _begin(self) -> list[ServerSentEvent]:
        begun, self._begun = None if self._begun else self.begun(), True
        return [] if begun is None else [self._chunk([_choice(self._index, begun)])]

    def _end(self, answer: dict[str, Any]) -> list[ServerSentEvent]:
        choices = choices_of(self._run, answer)
        ends = [_choice(choice["index"], self.ended(), choice["finish_reason"]) for choice in choices]
        messages = [self._chunk([end]) for end in ends[:-1]]
        messages.append(self._chunk(ends[-1:], x_hearth=hearth_fields(self._run, answer)))
        if self._asked.stream_options is not None and self._asked.stream_options.include_usage:
            messages.append(self._chunk([], usage=self._usage(choices)))
        return [*messages, (None, None, "[DONE]")]

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> ServerSentEvent:
        return (None, None, {**self._head(self.chunk, choices), **more})

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head = {
            "id": f"{self.prefix}-{self._run.id}",
            "object": kind,
            "created": int(self._run.asked),
            "model": model_of(self._run, self._asked),
            "choices": choices,
        }
        # The client of a new session learns its name here.
        return head if self._run.session_id is None else {**head, "x_session_id": self._run.session_id}

    def _usage(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        prompt, cached, written = token_counts(choices, self._asked.n or 1)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached, **image_tokens(self._run)},
            "completion_tokens_details": {"reasoning_tokens": reasoning_tokens(choices)},
        }


def _choice(
    index: int, part: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": index, **part, "logprobs": logprobs, "finish_reason": finish}


def logprob_of(token: TokenLogprob) -> dict[str, Any]:
    """A token of a message, as chat and responses have it."""
    return {**_token(token), "top_logprobs": [_token(one) for one in token.top]}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "bytes": list(token.data), "logprob": token.logprob}
