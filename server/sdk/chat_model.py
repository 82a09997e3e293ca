"""The model as a LangChain chat model, for tools that need one."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, Protocol

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ChatMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from server.sdk.tool_result import as_text

NAME = "hearth"
"""What the model is called in the metadata of its replies: whichever model answers the run."""
ANY_OBJECT: dict[str, Any] = {"type": "object"}
_ROLES = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool"}
_OF_THE_MODEL = frozenset(
    "function_call input_json_delta invalid_tool_call non_standard reasoning redacted_thinking thinking tool_call "
    "tool_call_chunk tool_use".split()
)
"""Content blocks of a model's own messages that are no text: thoughts, and calls, which LangChain has elsewhere."""


class AnswersChats(Protocol):
    """A model that calls tools, and writes JSON."""

    def chat(self, request: Mapping[str, Any]) -> Generator[str, None, dict[str, Any]]:
        """The assistant's next message. `request` has the fields of `server.completions.chat.ChatRequest`.

        Yields chunks of its content; returns all of it: `content`, `tool_calls`, `finish_reason`, `usage`. Its usage
        counts for the run of the context.
        """

    def count(self, text: str) -> int:
        """Tokens of `text`."""


class CompletesChats(Protocol):
    """A model in the same process, which writes text alone."""

    def complete(self, messages: list[dict[str, str]], *, max_tokens: int, stop: Sequence[str] | None = None) -> str:
        """The assistant's next message. Its usage counts for the run of the context."""
        ...


class ResidentChatModel(BaseChatModel):
    """Answers with the model that answers the run at the time of a call, so a tool may hold it as long as it likes.

    Greedy decoding unless there is a `temperature`, and at most `max_tokens`; both, `stop`, `top_p` and `seed` may be
    given for a call as well. A call's usage counts for the run of the calling tool. The model reads text alone.
    Raises what `get_engine` raises while no model is loaded, and ValueError for an image.
    """

    get_engine: Callable[[], AnswersChats | CompletesChats]
    max_tokens: int = 512
    temperature: float = 0.0
    stop: list[str] | None = None

    @property
    def _llm_type(self) -> str:
        return "hearth-resident"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": NAME, "max_tokens": self.max_tokens, "temperature": self.temperature}

    def _resolve_model_profile(self) -> ModelProfile:
        """What LangChain's agents may ask of it."""
        return ModelProfile(
            tool_calling=True, tool_choice=True, structured_output=True, text_inputs=True, image_inputs=False
        )

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        return LangSmithParams(**{"ls_model_name": NAME, **params, "ls_provider": NAME})

    def get_num_tokens(self, text: str) -> int:
        """Tokens of `text`, by the model's own tokenizer."""
        engine: Any = self.get_engine()
        return int(engine.count(text) if hasattr(engine, "count") else engine.tokenizer.count(text))

    def get_token_ids(self, text: str) -> list[int]:
        """Raises `NotImplementedError`: only the server knows the ids of tokens."""
        raise NotImplementedError("The model's tokens have no ids here: get_num_tokens counts them.")

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools that it may call. `tool_choice`: "auto", "none", "any", or a tool's name."""
        shown = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        return self.bind(tools=shown, tool_choice=_tool_choice(tool_choice), **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model with answers that fit a schema. A grammar makes them fit, unless `max_tokens` ends them; this
        holds for "json_mode", too."""
        if kwargs:
            raise ValueError(f"with_structured_output takes no {', '.join(kwargs)}.")
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw)
        llm = self.bind(
            response_format={"schema": convert_to_json_schema(schema), "strict": bool(strict)},
            ls_structured_output_format={"kwargs": {"method": method}, "schema": schema},
        )
        parser: Runnable[Any, Any] = JsonOutputParser()
        if isinstance(schema, type) and is_basemodel_subclass(schema):
            parser = PydanticOutputParser(pydantic_object=schema)
        if not include_raw:
            return llm | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=llm) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chunks = self._chat(self._request(messages, stop, kwargs))
        while True:
            try:
                next(chunks)
            except StopIteration as end:
                reply: dict[str, Any] = end.value
                break
        calls, invalid = list[Any](), list[Any]()
        for call in reply["tool_calls"]:
            try:
                calls.append({"id": call["id"], "name": call["name"], "args": json.loads(call["arguments"])})
            except ValueError as error:  # cut off at max_tokens
                unread = {"id": call["id"], "name": call["name"], "args": call["arguments"], "error": str(error)}
                invalid.append({"type": "invalid_tool_call", **unread})
        message = AIMessage(
            reply["content"],
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage_metadata=_usage_metadata(reply["usage"]),
            response_metadata=_response_metadata(reply),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunks, sent = self._chat(self._request(messages, stop, kwargs)), ""
        while True:
            try:
                text = next(chunks)
            except StopIteration as end:
                reply: dict[str, Any] = end.value
                break
            sent += text
            yield _chunk(AIMessageChunk(content=text), run_manager)
        calls = [
            tool_call_chunk(name=call["name"], args=call["arguments"], id=call["id"], index=number)
            for number, call in enumerate(reply["tool_calls"])
        ]
        last = AIMessageChunk(
            content=reply["content"].removeprefix(sent),
            tool_call_chunks=calls,
            usage_metadata=_usage_metadata(reply["usage"]),
            response_metadata=_response_metadata(reply),
            chunk_position="last",
        )
        yield _chunk(last, run_manager)

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The fields of a `ChatRequest`. Raises ValueError for what the model can't read or do."""
        request: dict[str, Any] = {
            "messages": [_message(one) for one in messages],
            "max_tokens": options.get("max_tokens") or options.get("max_completion_tokens") or self.max_tokens,
            "temperature": float(self.temperature if options.get("temperature") is None else options["temperature"]),
            "stop": list(stop or self.stop or ()),
        }
        request |= {name: options[name] for name in ("top_p", "seed") if options.get(name) is not None}
        if tools := options.get("tools"):
            request["tools"] = [_tool(one) for one in tools]
            request["tool_choice"] = _tool_choice(options.get("tool_choice"))
            request["several_calls"] = options.get("parallel_tool_calls") is not False
        if (form := _response_form(options.get("response_format"))) is not None:
            request |= form
        return request

    def _chat(self, request: dict[str, Any]) -> Generator[str, None, dict[str, Any]]:
        engine: Any = self.get_engine()
        if hasattr(engine, "chat"):
            reply: dict[str, Any] = yield from engine.chat(request)
            return reply
        if request.keys() & {"tools", "schema"}:
            raise NotImplementedError("This model writes text alone, and calls no tools.")
        plain = [{"role": one["role"], "content": one["content"]} for one in request["messages"]]
        text = engine.complete(plain, max_tokens=request["max_tokens"], stop=request["stop"])
        return {"content": text, "tool_calls": [], "finish_reason": "stop", "usage": None}


def _chunk(message: AIMessageChunk, run_manager: CallbackManagerForLLMRun | None) -> ChatGenerationChunk:
    chunk = ChatGenerationChunk(message=message)
    if run_manager is not None:
        run_manager.on_llm_new_token(message.text, chunk=chunk)
    return chunk


def _message(message: BaseMessage) -> dict[str, Any]:
    role = _ROLES.get(message.type)
    if isinstance(message, ChatMessage) and message.role in _ROLES.values():
        role = message.role
    if role is None:
        raise ValueError(f"The model reads no message of the type {message.type!r}.")
    shown: dict[str, Any] = {"role": role}
    if isinstance(message, ToolMessage):
        return {**shown, "content": as_text(message), "call_id": message.tool_call_id}
    shown["content"] = _text(message)
    if isinstance(message, AIMessage) and message.tool_calls:
        shown["calls"] = [
            {"id": call["id"] or "", "name": call["name"], "arguments": json.dumps(call["args"], ensure_ascii=False)}
            for call in message.tool_calls
        ]
    return shown


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    texts = []
    for block in message.content:
        kind = "text" if isinstance(block, str) else str(block.get("type"))
        if kind == "text":
            texts.append(block if isinstance(block, str) else str(block.get("text", "")))
        elif not (isinstance(message, AIMessage) and kind in _OF_THE_MODEL):
            raise ValueError(f"The model reads text alone, and this message has a part of the type {kind!r}.")
    return "\n".join(texts)


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = convert_to_openai_tool(tool)["function"]
    return {
        "name": function["name"],
        "description": function.get("description") or "",
        "parameters": function.get("parameters") or {"type": "object", "properties": {}},
        "strict": bool(function.get("strict")),
    }


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, Mapping):
        choice = choice.get("function", choice).get("name") or choice.get("type")
    if choice in (None, False):
        return "auto"
    return "required" if choice is True or choice == "any" else str(choice)


def _response_form(form: Any) -> dict[str, Any] | None:
    """The `schema` of a response format, our own or OpenAI's."""
    if form is None or form.get("type") == "text":
        return None
    form = form.get("json_schema", form)
    return {"schema": form.get("schema", ANY_OBJECT), "strict": bool(form.get("strict"))}


def _usage_metadata(used: Mapping[str, int] | None) -> Any:
    if used is None:
        return None
    written = used["completion_tokens"] + used["forced_tokens"]
    return {
        "input_tokens": used["prompt_tokens"],
        "output_tokens": written,
        "total_tokens": used["prompt_tokens"] + written,
        "input_token_details": {"cache_read": used["cached_tokens"]},
    }


def _response_metadata(reply: Mapping[str, Any]) -> dict[str, Any]:
    return {"finish_reason": reply["finish_reason"], "model_name": NAME, "model_provider": NAME}
