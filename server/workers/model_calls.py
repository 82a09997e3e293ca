"""The model calls of people's code, done in the server's process."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import HearthError, InvalidRequestError, OutOfTokensError, as_hearth_error
from server.sdk import logprobs, usage
from server.workers.messages import UnknownGrammarError

if TYPE_CHECKING:
    from guidance._schema import EngineResponse

    from server.engine import GuidedEngine
    from server.providers import RemoteModel

PART_SECONDS = 0.05
"""Minimum interval between two chunks of text to the worker. Each message costs both processes some 0.1 ms."""
MOST_GRAMMARS = 256
MOST_GRAMMAR_BYTES = 32 * 1024 * 1024
"""Maximum number of grammars that are remembered for a worker, and of their bytes."""

T = TypeVar("T", bound=BaseModel)
Messages = list[dict[str, Any]]
Count = Annotated[int, Field(ge=0, le=100_000_000)]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Sampling(_Given):
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


class _Continue(_Given):
    prompt: str
    grammar: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    grammar_text: str | None = None
    bos: bool
    sampling: _Sampling
    log_probability: bool


class _Count(_Given):
    text: str


class _Cut(_Given):
    text: str
    tokens: Count


class _Render(_Given):
    messages: Messages
    tools: list[dict[str, Any]] | None


class _Complete(_Given):
    messages: list[dict[str, str]]
    max_tokens: Count
    stop: list[str] | None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")]


class _Note(_Given):
    messages: list[dict[str, str]] = Field(min_length=1)
    max_tokens: Count
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")]
    words: str


class Caller(Protocol):
    """The caller of the model, which reads the answer."""

    @property
    def left(self) -> bool:
        """Whether the caller no longer reads the answer."""

    def send_part(self, value: dict[str, Any]) -> None:
        """Send a part of the answer, before the answer is complete."""


class Grammars:
    """The serialised grammars of one worker, by their hashes. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._bytes = 0

    def text(self, name: str, given: str | None) -> str:
        """The grammar with the hash `name`. `given`: its text, if the worker sent it. Raises
        `UnknownGrammarError`."""
        if given is not None and name not in self._texts:
            self._texts[name] = given
            self._bytes += len(given)
        try:
            self._texts.move_to_end(name)
        except KeyError:
            raise UnknownGrammarError(name) from None
        text = self._texts[name]
        while len(self._texts) > MOST_GRAMMARS or (self._bytes > MOST_GRAMMAR_BYTES and len(self._texts) > 1):
            self._bytes -= len(self._texts.popitem(last=False)[1])
        return text


class ModelCalls:
    """Does a worker's model calls, with the model of the context. Safe for any number of threads."""

    def __init__(self, engine: "Callable[[], GuidedEngine | RemoteModel]", write_note: Callable[..., str]) -> None:
        """`engine` returns the model of this context. `write_note(messages, workspace=..., ...)` lets the background
        model write."""
        self._engine = engine
        self._write_note = write_note

    def do(
        self, what: str, given: Mapping[str, Any], caller: Caller, grammars: Grammars, workspace: str
    ) -> dict[str, Any]:
        """The answer of the call `what`. Raises what the model raises, and `InvalidRequestError` for invalid
        arguments."""
        match what:
            case "continue":
                return self._continue(_read(_Continue, given), caller, grammars)
            case "count":
                counter = self._text_tools()
                return {"tokens": counter.count(_read(_Count, given).text)}
            case "cut":
                cut = _read(_Cut, given)
                return {"text": self._text_tools().cut(cut.text, cut.tokens)}
            case "render":
                render = _read(_Render, given)
                tokenizer = self._guided().tokenizer
                text = tokenizer.render_chat(render.messages, render.tools)
                return {"text": text, "tokens": tokenizer.count(text)}
            case "chat":
                return self._chat(given, caller)
            case "complete":
                return self._complete(_read(_Complete, given))
            case _:
                note = _read(_Note, given)
                text = self._write_note(
                    note.messages,
                    workspace=workspace,
                    max_tokens=note.max_tokens,
                    schema=note.schema_,
                    words=note.words,
                )
                return {"text": text}

    def _guided(self) -> "GuidedEngine":
        engine = self._engine()
        if not engine.guided:
            raise InvalidRequestError(f"{engine.name} is behind an API, and follows no grammars.")
        return engine

    def _text_tools(self) -> Any:
        engine = self._engine()
        return engine.tokenizer if engine.guided else engine

    def _continue(self, given: _Continue, caller: Caller, grammars: Grammars) -> dict[str, Any]:
        from guidance.models._engine import EngineState

        from server.engine.sequence import Sampling

        engine = self._guided()
        grammar = grammars.text(given.grammar, given.grammar_text)
        state = EngineState()
        state.prompt = given.prompt
        sampling = Sampling(**given.sampling.model_dump(exclude_unset=True))  # type: ignore[typeddict-item]
        part, sent, error = _Part(), time.monotonic(), None
        with (
            usage.measured() as used,
            logprobs.measured() if given.log_probability else nullcontext() as counted,
            closing(engine(state, grammar, given.bos, sampling)) as responses,
        ):
            try:
                for response in responses:
                    if caller.left:
                        break
                    part.add(response)
                    if time.monotonic() - sent > PART_SECONDS:
                        caller.send_part(part.take())
                        sent = time.monotonic()
            except (HearthError, ValueError) as raised:
                # With what was written and what it cost.
                error = as_reply(raised)
        return {
            **part.take(),
            "error": error,
            "tokens": engine.tokenizer.count(given.prompt + part.written),
            "usage": asdict(used),
            "log_probability": counted.log_probability if counted is not None else None,
        }

    def _chat(self, given: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        from server.completions.chat import ChatRequest, chat

        request, error, made = _read(ChatRequest, given), None, dict[str, Any]()
        with usage.measured() as used:
            try:
                made = chat(request, self._engine(), lambda text: caller.send_part({"text": text}))
            except (HearthError, ValueError) as raised:
                error = as_reply(raised)
        return {**made, "usage": asdict(used), "error": error}

    def _complete(self, given: _Complete) -> dict[str, Any]:
        engine, cuts, error, text = self._engine(), list[None](), None, ""
        options: dict[str, Any] = {"max_tokens": given.max_tokens, "stop": given.stop, "schema": given.schema_}
        if not engine.guided:
            options["when_cut"] = lambda: cuts.append(None)
        with usage.measured() as used:
            try:
                text = engine.complete(given.messages, **options)
            except (HearthError, ValueError) as raised:
                error = as_reply(raised)
        return {"text": text, "was_cut": bool(cuts), "usage": asdict(used), "error": error}


class _Part:
    """The text that was written since the last part. `written`: the whole text."""

    def __init__(self) -> None:
        self.written = ""
        self._text = ""
        self._captures: list[list[Any]] = []

    def add(self, response: "EngineResponse") -> None:
        self._text += response.new_bytes.decode()
        for name, value in response.capture_groups.items():
            text = [one.decode() for one in value] if isinstance(value, list) else value.decode()
            self._captures.append([name, text, response.capture_group_log_probs[name]])

    def take(self) -> dict[str, Any]:
        taken = {"text": self._text, "captures": self._captures}
        self.written += self._text
        self._text, self._captures = "", []
        return taken


def as_reply(error: BaseException) -> dict[str, Any]:
    """An error as a message, from which `server_end.revived` makes it again in the worker. Bugs in Hearth are
    logged."""
    if isinstance(error, HearthError):
        return {"type": type(error).__name__, "message": error.message, "details": error.details}
    if isinstance(error, UnknownGrammarError | OutOfTokensError | ValueError | TypeError):
        return {"type": type(error).__name__, "message": str(error), "details": {}}
    ours = as_hearth_error(error)
    return {"type": type(ours).__name__, "message": ours.message, "details": ours.details}


def _read(kind: type[T], given: Mapping[str, Any]) -> T:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(f"The model can't be asked this: {place}: {first['msg']}.") from None
