"""A remote model, behind an API: a conversation in, the next message out.

Over 400 lines: retries, streams and schemas depend on the same connection.
"""

import json
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import ValidationError

from server.engine import stop_sequences
from server.errors import (
    HearthError,
    ModelLoadError,
    ModelNotLoadedError,
    ProviderError,
    ProviderNotInstalledError,
    SchemaRefusedError,
)
from server.images.image_part import ImagePart, tokens_in
from server.observability import metrics, tracing
from server.observability import semantic_conventions as names
from server.observability.logs import redacted
from server.providers import chunks
from server.providers.catalog import NO_KEY, PROVIDERS
from server.providers.content import with_images
from server.providers.failures import RetryableError, explained
from server.providers.schemas import NotStrictError, as_asked, as_object, strict
from server.sdk import context, model_call, usage
from server.sdk.model_call import ModelCall

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk

log = logging.getLogger(__name__)

CONTEXT_LENGTH = 8192
"""The context length of models for which the package knows none."""
TRIES = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Exponential backoff in seconds. A part of it is random, so that requests are not repeated all at once."""
LONGEST_WAIT = 60.0
"""A longer Retry-After in seconds is not waited for."""
SILENT_SECONDS = 300.0
"""Maximum seconds without any data. Some models think before they write."""
BYTES_A_TOKEN = 3.0
"""A low estimate, so that token counts are rather too high, until the provider has counted."""
MOST_BYTES_A_TOKEN = 5.0
"""An upper bound, also if the provider reports fewer tokens."""
LEARNS_FROM = 500
"""Minimum bytes of a conversation for learning the bytes a token from the provider's count. In shorter ones control
tokens weigh too much."""
ENDS = ("finish_reason", "stop_reason", "done_reason", "status")
"""The packages' names for the finish reason. A reply without one was broken off."""
CUT = frozenset(("length", "max_tokens", "model_length", "incomplete", "model_context_window_exceeded"))
"""Finish reasons of a reply that reached its limit."""
WITHHELD = frozenset(
    "refusal content_filter safety recitation language blocklist prohibited_content spii other".split()
)
"""Finish reasons of a reply that the provider withholds, in lower case."""
THINKING_TOKENS = 8192
"""Extra tokens for reasoning models, whose thoughts count towards the limit of a reply."""
PROBE = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}},
    "required": ["ready"],
    "additionalProperties": False,
}
PROBE_TOKENS = 64


class RemoteModel:
    """A remote model. Safe for any number of threads.

    `name`: as in `/load_model`. `context_length`: tokens of a conversation and its reply. `takes_schema`: whether it
    supports replies by a JSON schema. `takes_images`: whether it is sent the pictures whose marks are in a message.
    """

    guided: ClassVar[Literal[False]] = False
    """It supports no grammars; see `server.sdk.ApiModel`."""

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        with_key: bool = True,
        vision: Literal["auto"] | bool = "auto",
    ) -> None:
        """`base_url`: an address instead of the provider's own. `with_key`: whether the provider's key is sent there;
        it may be unset then. `vision`: whether it takes pictures; auto: as the provider's package says.

        Sends a short request, to check that it can be reached, that the key is right, and whether it supports
        schemas. Raises `ProviderNotInstalledError`, `ModelNotFoundError`, a `ProviderError`, or `ModelLoadError`.
        """
        prefix, _, model = name.partition(":")
        self.name = name
        self.context_length = CONTEXT_LENGTH
        self._provider = PROVIDERS[prefix]
        self._closed = threading.Event()
        self._bytes_a_token = BYTES_A_TOKEN
        base_url = base_url or self._provider.base_url
        self._address = None if base_url is None else urlsplit(base_url).hostname
        speaks_openai = self._provider.langchain == "openai"
        # Mistral's package sends strict schemas only: it makes all properties required.
        self._is_strict = self._provider.langchain == "mistralai" or (speaks_openai and base_url is None)
        self._is_compatible = speaks_openai and base_url is not None
        if not with_key:
            key = NO_KEY
        elif base_url is not None and base_url != self._provider.base_url:
            key = self._provider.key() or NO_KEY
        else:
            key = self._provider.needed_key()
        self._chat = self._open(model, base_url, key)
        profile: Mapping[str, Any] = getattr(self._chat, "profile", None) or {}
        self.context_length = profile.get("max_input_tokens") or CONTEXT_LENGTH
        self.takes_images = bool(profile.get("image_inputs")) if vision == "auto" else vision
        self._options: dict[str, Any] = {}
        if profile.get("temperature", base_url is not None or self._provider.is_local):
            # Reasoning models refuse a temperature, and an unknown model may be one.
            self._options["temperature"] = 0
        if self._provider.langchain == "ollama":
            # Otherwise Ollama truncates longer conversations silently.
            self._options["num_ctx"] = self.context_length
        thinks = bool(profile.get("reasoning_output"))
        self._takes_stop = not thinks
        self._thinking = min(THINKING_TOKENS, (profile.get("max_output_tokens") or THINKING_TOKENS) // 2) * thinks
        try:
            self.takes_schema = self._probe(profile)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"RemoteModel({self.name!r})"

    def close(self) -> None:
        """Refuse new calls and end running ones with `ModelNotLoadedError`."""
        self._closed.set()
        chunks.close_later(self._disconnect)

    def image_tokens(self, part: ImagePart) -> int:
        """The maximum number of tokens that a picture takes."""
        return part.tokens

    def count(self, text: str) -> int:
        """An estimate of the tokens of `text`, rather too high, with the maximum of the pictures in it."""
        pictures = tokens_in(text, context.current().images) if self.takes_images else 0
        return int(_bytes(text) / self._bytes_a_token) + 1 + pictures

    def cut(self, text: str, tokens: int) -> str:
        """`text`, truncated to about so many tokens."""
        return text.encode("utf-8", "replace")[: int(tokens * self._bytes_a_token)].decode("utf-8", "ignore")

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        stop: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        when_cut: Callable[[], None] = lambda: None,
    ) -> str:
        """The assistant's next message, at most `max_tokens` long: free text up to the first of the `stop` sequences,
        or JSON by `schema`. `when_cut` is called if it was cut off at the limit. Each picture of this context is sent
        once, after its first mark in the user's messages.

        The text and its usage are sent to the run of this context as they come. Retryable errors (too many requests,
        a broken connection, an overloaded server) are retried, up to 4 tries in all. Raises `PromptTooLongError`, a
        `ProviderError` (`SchemaRefusedError`, if the schema may be the reason), `ModelNotLoadedError` when the model
        is closed, `ImageNotFoundError`, and `RunCancelledError` as soon as the run is cancelled.
        """
        reply = _Reply(sum(self.count(message["content"]) for message in messages))
        number, began, text = 1, time.monotonic(), ""
        error: Exception | None = None
        span = tracing.begin_model_call("chat", self.name, self._provider.traced_as, self._address, max_tokens)
        try:
            while True:
                try:
                    sent = {names.SERVER: self._address, names.RESENT: number - 1 or None}
                    with tracing.span("request", sent, "client", parent=span):
                        text = self._ask(messages, max_tokens, tuple(stop or ()), schema, reply)
                    if reply.was_cut:
                        when_cut()
                    return text
                except RetryableError as retryable:
                    pause = retryable.after
                    if pause is None:
                        pause = random.uniform(0.5, 1.0) * min(FIRST_PAUSE * 2 ** (number - 1), LONGEST_PAUSE)
                    if number == TRIES or pause > LONGEST_WAIT:
                        raise retryable.error from None
                    log.warning("%s Asking again in %.1f s.", retryable.error.message, pause)
                self._wait(pause)
                number += 1
        except Exception as raised:
            error = raised
            raise
        finally:
            metrics.count_tokens(reply.counted)
            usage.record(reply.counted)
            prompt = json.dumps(messages, ensure_ascii=False, indent=1)
            seconds = time.monotonic() - began
            first = None if reply.first_sent is None else reply.first_sent - began
            made = ModelCall("messages", prompt, text or reply.sent, reply.counted, seconds, first_seconds=first)
            model_call.record(made)
            tracing.end_model_call(span, made, reply.was_cut, error)

    def _ask(
        self,
        messages: list[dict[str, str]],
        max_tokens: int,
        stop: tuple[str, ...],
        schema: Mapping[str, Any] | None,
        reply: "_Reply",
    ) -> str:
        """One try. May raise `RetryableError` as well."""
        most = max_tokens + self._thinking
        limit = {"extra_body": {"max_tokens": most}} if self._is_compatible else {self._provider.limit: most}
        chat: Any = self._chat.model_copy(update={**self._options, **limit})
        if schema is None:
            return self._stream(chat, messages, stop, reply)
        chat, is_strict = self._constrained(chat, schema)
        try:
            text = self._stream(chat, messages, (), reply)
        except ProviderError as error:
            if type(error) is not ProviderError:
                raise
            raise SchemaRefusedError(error.message) from None
        return as_asked(text, schema, is_strict)

    def _stream(self, chat: Any, messages: list[dict[str, str]], stop: tuple[str, ...], reply: "_Reply") -> str:
        text, end = "", ""
        reply.begin()
        sent_stop = list(stop) if stop and self._takes_stop else None

        images = context.current().images if self.takes_images else {}
        sent = with_images(messages, images)

        def stream() -> "AsyncIterator[AIMessageChunk]":
            made: AsyncIterator[AIMessageChunk] = chat.astream(sent, stop=sent_stop)
            return made

        try:
            for chunk in chunks.read(stream, SILENT_SECONDS, self._check):
                said = chunk.response_metadata
                end = next((str(said[key]) for key in ENDS if said.get(key)), end)
                if blocked := (said.get("prompt_feedback") or {}).get("block_reason"):
                    raise ProviderError(f"The provider of {self.name} refused the conversation: {blocked.name}.")
                text += chunk.text
                whole = stop_sequences.cut(text, stop)
                stopped = whole != text
                sendable = whole if stopped else stop_sequences.settled(text, stop)
                reply.grow(sendable, self.count(text), chunk.usage_metadata)
                if stopped:
                    return whole
        except HearthError:
            raise
        except chunks.SilentError:
            raise ProviderError(f"Nothing came of {self.name} for {SILENT_SECONDS:g} seconds.") from None
        except Exception as error:  # boundary: a provider's package, and its server
            # Some packages raise for a reply at its limit after all of it has come.
            if not end:
                raise explained(error, self.name, self.context_length) from None
        if end.lower() in WITHHELD:
            raise ProviderError(f"The provider of {self.name} withheld the rest of the reply: {end}.")
        if not end or end == "error":
            raise RetryableError(ProviderError(f"The reply of {self.name} was broken off."))
        reply.was_cut = end.lower() in CUT
        reply.grow(text, self.count(text), None)
        read = sum(_bytes(message["content"]) for message in messages)
        if read >= LEARNS_FROM and reply.prompt_tokens and sent is messages:
            self._bytes_a_token = min(read / reply.prompt_tokens, MOST_BYTES_A_TOKEN)
        # Some servers send lone surrogates.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _open(self, model: str, base_url: str | None, key: str) -> "BaseChatModel":
        """The package's own chat model."""
        from langchain.chat_models import init_chat_model

        provider = self._provider
        if find_spec(provider.module) is None:
            raise ProviderNotInstalledError(
                f"{self.name} needs a package that isn't installed. Where the server runs: pip install "
                f"{provider.requirement}"
            )
        options = dict(provider.options)
        if provider.langchain == "ollama":
            # Without this header it would send the key of the environment to any address.
            options["client_kwargs"] = {"headers": {"Authorization": f"Bearer {key}"}}
        else:
            options["api_key"] = key
        if base_url is not None:
            options["base_url"] = base_url
        try:
            made: BaseChatModel = init_chat_model(model, model_provider=provider.langchain, **options)
            return made
        except ValidationError as error:
            # Without the input: pydantic would show a part of the key.
            wrong = "; ".join(one["msg"] for one in error.errors(include_input=False, include_url=False))
            raise ModelLoadError(f"{self.name} can't be used: {redacted(wrong)}") from None
        except Exception as error:  # boundary: a provider's package
            raise ModelLoadError(
                f"{self.name} can't be used: {type(error).__name__}: {redacted(str(error))}"
            ) from None

    async def _disconnect(self) -> None:
        """Close its own connections; the packages of OpenAI and Anthropic share theirs."""
        chat: Any = self._chat
        match self._provider.langchain:
            case "google_genai":
                await chat.aclose()
            case "mistralai":
                await chat.async_client.aclose()
            case "ollama":
                await chat._async_client.close()

    def _probe(self, profile: Mapping[str, Any]) -> bool:
        """Whether it supports schemas. Raises what a request raises."""
        from jsonschema import Draft202012Validator

        # Only the schema asks for JSON, so a reply in JSON shows that it was enforced.
        messages = [{"role": "user", "content": "Are you ready?"}]
        try:
            text = self.complete(messages, max_tokens=PROBE_TOKENS, schema=PROBE)
        except SchemaRefusedError:
            self.complete(messages, max_tokens=PROBE_TOKENS)
            return False
        try:
            return bool(Draft202012Validator(PROBE).is_valid(json.loads(text)))
        except ValueError:
            # Perhaps it only had tokens for its thoughts.
            return not text and bool(profile.get("structured_output"))

    def _constrained(self, chat: Any, schema: Mapping[str, Any]) -> tuple[Any, bool]:
        """`chat` with replies constrained to `schema`, and whether a strict schema was sent."""
        sent = as_object(schema)
        if self._is_compatible:
            # In the form of the HTTP API: the package would add a parser of its own, which supports OpenAI only.
            form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": sent}}
            return chat.model_copy(update={"extra_body": {**chat.extra_body, "response_format": form}}), False
        is_strict = self._is_strict
        try:
            if is_strict:
                sent = strict(sent)
        except NotStrictError:
            is_strict = False
        try:
            options = {"strict": True} if is_strict else {}
            made = chat.with_structured_output({"title": "reply", **sent}, method="json_schema", **options)
        except Exception as error:  # boundary: a provider's package, which may not know such schemas, or any
            raise SchemaRefusedError(f"{self.name} can't be held to the schema: {redacted(str(error))}") from None
        # The model with its provider's form of the schema, without the package's parser.
        return made.first, is_strict

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            self._closed.wait(min(left, chunks.NOTICE_SECONDS))

    def _check(self) -> None:
        """Raises if the run was cancelled or the model closed."""
        context.check_cancelled()
        if self._closed.is_set():
            raise ModelNotLoadedError(f"The model {self.name} was unloaded or replaced meanwhile. Ask again.")


class _Reply:
    """The text of a reply that was sent to its run, over all tries, and their usage."""

    def __init__(self, prompt_tokens: int) -> None:
        self.counted = usage.Usage(prompt_tokens=prompt_tokens)
        self.prompt_tokens = self._cached_tokens = self._completion_tokens = 0
        """The provider's counts of this try; 0: none yet."""
        self._lost = 0
        """Tokens of earlier tries."""
        self.sent = ""
        self.first_sent: float | None = None
        """When its first text came, by the monotonic clock."""
        self.was_cut = False
        """Whether it reached its limit."""

    def begin(self) -> None:
        """Begin another try."""
        self._lost = self.counted.completion_tokens
        self.prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    def grow(self, text: str, tokens: int, counted: Mapping[str, Any] | None) -> None:
        """Update: the reply is `text` so far, about so many `tokens`; `counted`: the provider's counts, if any."""
        if counted is not None:
            self.prompt_tokens += counted["input_tokens"]
            self._completion_tokens += counted["output_tokens"]
            self._cached_tokens += (counted.get("input_token_details") or {}).get("cache_read") or 0
        self.counted.completion_tokens = self._lost + (self._completion_tokens or tokens)
        self.counted.prompt_tokens = self.prompt_tokens or self.counted.prompt_tokens
        self.counted.cached_tokens = self._cached_tokens
        if self.sent.startswith(text):
            # This try repeats text that an earlier one has sent.
            context.send_text(b"", self.counted)
            return
        fresh = text.removeprefix(self.sent) if text.startswith(self.sent) else "\n" + text
        self.sent = text
        self.first_sent = self.first_sent or time.monotonic()
        context.send_text(fresh.encode("utf-8", "replace"), self.counted)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
