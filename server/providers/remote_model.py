"""A model behind an API: a conversation in, the next message out."""

import json
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError

from server.engine import text_stream
from server.errors import (
    HearthError,
    ModelLoadError,
    ModelNotLoadedError,
    ProviderError,
    ProviderNotInstalledError,
    SchemaRefusedError,
)
from server.observability import metrics
from server.observability.redaction import redacted
from server.providers import chunks
from server.providers.catalog import NO_KEY, PROVIDERS
from server.providers.failures import PassingError, explained
from server.providers.schemas import NotStrictError, as_asked, as_object, strict
from server.sdk import cancellation, usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk

log = logging.getLogger(__name__)

CONTEXT_LENGTH = 8192
"""Tokens that a model is taken to have room for whose package doesn't know it."""
TRIES = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before a request is sent again, which double each time; a part of them is random, so that not all come back
at once."""
LONGEST_WAIT = 60.0
"""A provider that wants to be left alone for more seconds than this is not waited for."""
SILENT_SECONDS = 300.0
"""How long nothing may come: some models think before they write."""
BYTES_A_TOKEN = 3.0
"""Fewer than most texts have, so that what is reckoned with it is rather too long; until a provider has counted."""
MOST_BYTES_A_TOKEN = 5.0
"""A server that counts fewer tokens than this has them reckoned all the same."""
LEARNS_FROM = 500
"""Bytes of a conversation of which the provider's count says how long a token is; in shorter ones its own marks weigh
too much."""
ENDS = ("finish_reason", "stop_reason", "done_reason", "status")
"""How the packages say that a reply is at its end; one that stops without it was broken off."""
CUT = frozenset(("length", "max_tokens", "model_length", "incomplete", "model_context_window_exceeded"))
"""Of those, that the reply was cut off at its limit."""
WITHHELD = frozenset(
    "refusal content_filter safety recitation language blocklist prohibited_content spii other".split()
)
"""Ends that say that the provider gives no more of the reply away; in small letters."""
THINKING_TOKENS = 8192
"""What a model that thinks may write above the most of a reply, since its thoughts count as well."""
PROBE = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}},
    "required": ["ready"],
    "additionalProperties": False,
}
PROBE_TOKENS = 64


class RemoteModel:
    """Any number of threads may ask it at once.

    `name`: as `/load_model` takes it. `context_length`: tokens of a conversation and the reply to it. `takes_schema`:
    whether it holds a reply to a JSON schema.
    """

    guided: ClassVar[Literal[False]] = False
    """It follows no grammars; see `server.sdk.ApiModel`."""

    def __init__(self, name: str, base_url: str | None = None, with_key: bool = True) -> None:
        """`base_url`: where it is asked, in place of its provider's own address, and `with_key`: whether the
        provider's key is sent there; it need not be set then.

        Asks it a few words, to see that it can be reached, that the key is right, and whether it takes a schema.
        Raises `ProviderNotInstalledError`, `ModelNotFoundError`, a `ProviderError`, or `ModelLoadError`.
        """
        prefix, _, model = name.partition(":")
        self.name = name
        self.context_length = CONTEXT_LENGTH
        self._provider = PROVIDERS[prefix]
        self._closed = threading.Event()
        self._bytes_a_token = BYTES_A_TOKEN
        base_url = base_url or self._provider.base_url
        speaks_openai = self._provider.langchain == "openai"
        # Mistral's package sends no others: it makes all properties required.
        self._is_strict = self._provider.langchain == "mistralai" or (speaks_openai and base_url is None)
        self._is_compatible = speaks_openai and base_url is not None
        if not with_key:
            key = NO_KEY
        elif base_url is not None and base_url != self._provider.base_url:
            key = self._provider.key() or NO_KEY
        else:
            key = self._provider.needed_key()
        self._chat = self._opened(model, base_url, key)
        profile: Mapping[str, Any] = getattr(self._chat, "profile", None) or {}
        self.context_length = profile.get("max_input_tokens") or CONTEXT_LENGTH
        self._options: dict[str, Any] = {}
        if profile.get("temperature", base_url is not None or self._provider.is_local):
            # Models that think by themselves refuse it, and of a vendor's unknown one nobody knows.
            self._options["temperature"] = 0
        if self._provider.langchain == "ollama":
            # It would cut longer conversations without a word.
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
        """It answers nothing any more, and what is under way ends with `ModelNotLoadedError`."""
        self._closed.set()
        chunks.let_go(self._disconnect)

    def count(self, text: str) -> int:
        """About how many tokens `text` has, rather too many than too few."""
        return int(_bytes(text) / self._bytes_a_token) + 1

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of `text`, about so many tokens long at most."""
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
        """The assistant's next message, `max_tokens` long at most: free text that ends before any of `stop`, or JSON
        that fits `schema`. `when_cut` is called where it was cut off at the limit.

        It is told to the run of this context as it comes, and its cost counted there. What may pass (too many
        requests, a broken connection, a server that is overloaded) is tried again, up to 4 times in all. Raises
        `PromptTooLongError`, a `ProviderError` (`SchemaRefusedError`, if it may be the schema's fault),
        `ModelNotLoadedError` when the model is closed, and `RunCancelledError` as soon as the run is cancelled.
        """
        reply = _Reply(sum(self.count(message["content"]) for message in messages))
        number = 1
        try:
            while True:
                try:
                    text = self._ask(messages, max_tokens, tuple(stop or ()), schema, reply)
                    if reply.was_cut:
                        when_cut()
                    return text
                except PassingError as passing:
                    pause = passing.after
                    if pause is None:
                        pause = random.uniform(0.5, 1.0) * min(FIRST_PAUSE * 2 ** (number - 1), LONGEST_PAUSE)
                    if number == TRIES or pause > LONGEST_WAIT:
                        raise passing.told from None
                    log.warning("%s Asking again in %.1f s.", passing.told.message, pause)
                self._wait(pause)
                number += 1
        finally:
            metrics.count_tokens(reply.counted)
            usage.record(reply.counted)

    def _ask(
        self,
        messages: list[dict[str, str]],
        max_tokens: int,
        stop: tuple[str, ...],
        schema: Mapping[str, Any] | None,
        reply: "_Reply",
    ) -> str:
        """One try. Raises `PassingError` as well."""
        most = max_tokens + self._thinking
        limit = {"extra_body": {"max_tokens": most}} if self._is_compatible else {self._provider.limit: most}
        chat: Any = self._chat.model_copy(update={**self._options, **limit})
        if schema is None:
            return self._stream(chat, messages, stop, reply)
        chat, is_strict = self._held_to(chat, schema)
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

        def stream() -> "AsyncIterator[AIMessageChunk]":
            made: AsyncIterator[AIMessageChunk] = chat.astream(messages, stop=sent_stop)
            return made

        try:
            for chunk in chunks.read(stream, SILENT_SECONDS, self._check):
                said = chunk.response_metadata
                end = next((str(said[key]) for key in ENDS if said.get(key)), end)
                if blocked := (said.get("prompt_feedback") or {}).get("block_reason"):
                    raise ProviderError(f"The provider of {self.name} refused the conversation: {blocked.name}.")
                text += chunk.text
                found = [at for at in map(text.find, stop) if at >= 0]
                reply.grow(
                    text[: min(found)] if found else _surely(text, stop), self.count(text), chunk.usage_metadata
                )
                if found:
                    return text[: min(found)]
        except HearthError:
            raise
        except chunks.SilentError:
            raise ProviderError(f"Nothing came of {self.name} for {SILENT_SECONDS:g} seconds.") from None
        except Exception as error:  # boundary: a provider's package, and whatever answers it
            # Some complain of a reply that was cut off at its limit when all of it has come.
            if not end:
                raise explained(error, self.name, self.context_length) from None
        if end.lower() in WITHHELD:
            raise ProviderError(f"The provider of {self.name} withheld the rest of the reply: {end}.")
        if not end or end == "error":
            raise PassingError(ProviderError(f"The reply of {self.name} was broken off."))
        reply.was_cut = end.lower() in CUT
        reply.grow(text, self.count(text), None)
        read = sum(_bytes(message["content"]) for message in messages)
        if read >= LEARNS_FROM and reply.prompt_tokens:
            self._bytes_a_token = min(read / reply.prompt_tokens, MOST_BYTES_A_TOKEN)
        # Whole characters: some servers send halves of surrogate pairs.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _opened(self, model: str, base_url: str | None, key: str) -> "BaseChatModel":
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
            # Without a header of ours it would send the key of the environment, to any address.
            options["client_kwargs"] = {"headers": {"Authorization": f"Bearer {key}"}}
        else:
            options["api_key"] = key
        if base_url is not None:
            options["base_url"] = base_url
        try:
            made: BaseChatModel = init_chat_model(model, model_provider=provider.langchain, **options)
            return made
        except ValidationError as error:
            # Without what was given: pydantic shows a part of it, and so a part of the key.
            wrong = "; ".join(one["msg"] for one in error.errors(include_input=False, include_url=False))
            raise ModelLoadError(f"{self.name} can't be used: {redacted(wrong)}") from None
        except Exception as error:  # boundary: a provider's package
            raise ModelLoadError(
                f"{self.name} can't be used: {type(error).__name__}: {redacted(str(error))}"
            ) from None

    async def _disconnect(self) -> None:
        """Closes the connections that are its own; the packages of OpenAI and Anthropic share theirs."""
        chat: Any = self._chat
        match self._provider.langchain:
            case "google_genai":
                await chat.aclose()
            case "mistralai":
                await chat.async_client.aclose()
            case "ollama":
                await chat._async_client.close()

    def _probe(self, profile: Mapping[str, Any]) -> bool:
        """Whether it takes a schema. Raises what asking it raises."""
        from jsonschema import Draft202012Validator

        # That it should write JSON only the schema says: who does all the same was held to it.
        messages = [{"role": "user", "content": "Are you ready?"}]
        try:
            text = self.complete(messages, max_tokens=PROBE_TOKENS, schema=PROBE)
        except SchemaRefusedError:
            self.complete(messages, max_tokens=PROBE_TOKENS)
            return False
        try:
            return bool(Draft202012Validator(PROBE).is_valid(json.loads(text)))
        except ValueError:
            # Nothing but thoughts, perhaps.
            return not text and bool(profile.get("structured_output"))

    def _held_to(self, chat: Any, schema: Mapping[str, Any]) -> tuple[Any, bool]:
        """`chat` as it writes nothing but what fits `schema`, and whether it is a strict one that it was given."""
        sent = as_object(schema)
        if self._is_compatible:
            # As it is on the wire: for a schema the package brings a reader of its own, which knows OpenAI only.
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
        # The model with its provider's own words for the schema, without the parser behind it.
        return made.first, is_strict

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            self._closed.wait(min(left, chunks.NOTICE_SECONDS))

    def _check(self) -> None:
        """Raises what ends a call from outside."""
        cancellation.check()
        if self._closed.is_set():
            raise ModelNotLoadedError(f"The model {self.name} was unloaded or replaced meanwhile. Ask again.")


class _Reply:
    """What of a reply its run is told, over all tries, and what they cost."""

    def __init__(self, prompt_tokens: int) -> None:
        self.counted = usage.Usage(prompt_tokens=prompt_tokens)
        self.prompt_tokens = self._cached_tokens = self._completion_tokens = 0
        """Of this try, as the provider counts; 0: it hasn't."""
        self._lost = 0
        """Tokens of the tries before."""
        self._told = ""
        self.was_cut = False
        """Whether it came to its limit."""

    def begin(self) -> None:
        """Another try."""
        self._lost = self.counted.completion_tokens
        self.prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    def grow(self, text: str, tokens: int, counted: Mapping[str, Any] | None) -> None:
        """The reply is `text` so far, about so many `tokens` long, and the provider has `counted` a part of it."""
        if counted is not None:
            self.prompt_tokens += counted["input_tokens"]
            self._completion_tokens += counted["output_tokens"]
            self._cached_tokens += (counted.get("input_token_details") or {}).get("cache_read") or 0
        self.counted.completion_tokens = self._lost + (self._completion_tokens or tokens)
        self.counted.prompt_tokens = self.prompt_tokens or self.counted.prompt_tokens
        self.counted.cached_tokens = self._cached_tokens
        if self._told.startswith(text):
            # A try that repeats what was told of the one before.
            text_stream.send(b"", self.counted)
            return
        fresh = text.removeprefix(self._told) if text.startswith(self._told) else "\n" + text
        self._told = text
        text_stream.send(fresh.encode("utf-8", "replace"), self.counted)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _surely(text: str, stop: Sequence[str]) -> str:
    """`text` without an end that may be the beginning of one of `stop`."""
    for length in range(min(max(map(len, stop), default=1) - 1, len(text)), 0, -1):
        if any(word.startswith(text[-length:]) for word in stop):
            return text[:-length]
    return text
