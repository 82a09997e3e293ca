"""Tokenizing for guidance and for the engine, chat templates, and escaping control tokens in untrusted text."""

from array import array
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import signature
from types import MappingProxyType
from typing import Any

import guidance
from guidance.models._engine import Tokenizer
from jinja2 import TemplateError
from llguidance import LLTokenizer
from transformers import PreTrainedTokenizerFast

from server.engine.images import OPENING, ImageReader, PreparedImage
from server.errors import InvalidRequestError, PromptTooLongError
from server.grammar_check.checker import Vocabulary
from server.images.image_part import ImagePart, split
from server.sdk import context
from server.sdk.control_tokens import MARK, ControlTokens

#: Characters, roughly. Bounds how much of a long text is tokenized.
LONGEST_TOKEN = 64
#: Maximum number of cached texts.
REMEMBERED = 32
#: A text with more characters for each token of the context length is measured in blocks before it is tokenized.
CHARACTERS_PER_TOKEN = 8
#: Characters that are tokenized at once to measure a long text.
BLOCK = 32_768
#: Maximum number of tokens by which the tokens of two blocks exceed those of the same text without the cut between.
CUT_TOKENS = 64
#: A content that no template writes by itself.
PROBE = "~hearth-content~"
NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})
#: Names that templates get from Transformers, or from the environment that it renders them in.
OF_RENDERING = ("messages", "conversations", "raise_exception", "strftime_now", "self", "args", "kwargs")


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it; a picture has a placeholder for each of its tokens.

    `tail`: the number of its last tokens that may be tokenized anew, together with what a grammar forces. They come
    after the last protected control token: anew, its characters would become the token.
    """

    tokens: list[int]
    tail: int
    images: list[PreparedImage]


class EngineTokenizer(Tokenizer):
    """A Transformers fast tokenizer, as guidance and llguidance want it."""

    def __init__(self, tokenizer: Any, vocabulary: int, context_length: int) -> None:
        """`tokenizer` is a Transformers fast one. `vocabulary` is the width of the masks. `context_length`: tokens.

        Raises ValueError for a tokenizer without a fast form.
        """
        self.vocabulary = _vocabulary(tokenizer, vocabulary)
        """Of which llguidance makes its tokenizer, in this process and in the one that checks grammars."""
        super().__init__(
            ll_tokenizer=LLTokenizer(**self.vocabulary),
            # Never used (see GuidedEngine.get_chat_template); without it guidance would look for one, and warn.
            chat_template=guidance.chat.ChatMLTemplate,  # type: ignore[arg-type]
            bos_token_id=tokenizer.bos_token_id,
        )
        self.transformers = tokenizer
        added = tokenizer.get_added_vocab()
        self.control_tokens = {name: token for name, token in added.items() if self.is_special_token(token)}
        """Ids of the tokens that no plain text is made of, by name."""
        names = {str(token) for token in added} | set(tokenizer.all_special_tokens)
        self.control = ControlTokens(names)
        """The control tokens that `protect` escapes."""
        self.images: ImageReader | None = None
        """For a model that takes images; see `take_images`."""
        self._wants_parts = False
        """Whether the chat template takes a message's content as a list of parts, and not as a text."""
        # An agent asks for a prompt's length first, and then has it continued.
        self._encoded = lru_cache(maxsize=REMEMBERED)(partial(_encode, tokenizer, context_length))

    def protect(self, text: str) -> str:
        """See `ControlTokens.protect`."""
        return self.control.protect(text)

    def reveal(self, text: str) -> str:
        """See `ControlTokens.reveal`."""
        return self.control.reveal(text)

    def take_images(self, reader: ImageReader) -> None:
        """Let prompts have pictures from now on: those of the context's run, whose marks are in its messages."""
        self.images = reader
        self.control = ControlTokens({*self.control.names, OPENING})
        try:
            self._wants_parts = PROBE not in self._rendered([{"role": "user", "content": PROBE}], None)
        except (TemplateError, TypeError):
            self._wants_parts = True

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a prompt. Control tokens are recognised, except in protected text.

        Raises what `read_prompt` raises.
        """
        return self.read_prompt(text).tokens

    def read_prompt(self, text: str) -> Prompt:
        """The tokens of a prompt, with its pictures.

        Raises `PromptTooLongError` for a long text that exceeds the context length, without reading all of it, and
        what `ImageReader.images_in` raises.
        """
        if self.images is None:
            tokens, tail = self._encoded(text)
            return Prompt(list(tokens), tail, [])
        images = self.images.images_in(text, context.current().images)
        try:
            tokens, tail = self._encoded(self.images.expand(text, images))
        except PromptTooLongError as error:
            of_images = sum(image.length for image in images)
            raise too_long(error.details["tokens"], error.details["limit"], of_images) from None
        return Prompt(list(tokens), tail, images)

    def count(self, text: str) -> int:
        """The number of tokens. An estimate above the context length for a long text that exceeds it."""
        try:
            return len(self.read_prompt(text).tokens)
        except PromptTooLongError as error:
            tokens: int = error.details["tokens"]
            return tokens

    def cut(self, text: str, tokens: int) -> str:
        """`text`, truncated to at most so many tokens."""
        text = text[: tokens * LONGEST_TOKEN]
        while text and (length := self.count(text)) > tokens:
            text = text[: min(len(text) * tokens // length, len(text) - 1)]
        return text

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
    ) -> str:
        """The conversation in the model's own chat template, up to the beginning of the assistant's next message.
        Templates that support tools list `tools`, and get `arguments` as well, JSON values by their names.

        Everything except the roles is protected, so text of people and tools can't end a message or open another one.
        If the template has no system message, that text opens the user's first message. If the model takes images,
        each picture of the context whose mark is in a message stands after the first of its marks. Raises
        `InvalidRequestError` if the template does not accept the conversation, or for an argument that is not the
        template's own.
        """
        shown: dict[str, ImagePart] = {}
        given = self._checked_arguments(arguments)
        marked = [self._marked(message, shown) for message in messages]
        try:
            try:
                text = self._rendered(marked, self._protected(tools), given)
            except TemplateError:
                if [message["role"] for message in marked[:2]] != ["system", "user"]:
                    raise
                system, user, *more = marked
                opening = {**user, "content": _joined(system["content"], user["content"])}
                text = self._rendered([opening, *more], self._protected(tools), given)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # A template does not expect all values of its arguments.
            if not arguments:
                raise
            raise InvalidRequestError(f"The model's chat template does not take these arguments: {error}.") from error
        except TemplateError as error:
            raise InvalidRequestError(f"The model's chat template does not take these messages: {error}.") from error
        return self._with_markers(text, shown) if shown else text

    def _checked_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for the template, protected. Raises `InvalidRequestError` for the names of what Transformers and
        Hearth decide, such as `messages` and `tokenize`, and of special tokens."""
        if not arguments:
            return {}
        taken = {*OF_RENDERING, *signature(self.transformers.apply_chat_template).parameters}
        taken |= {*self.transformers.SPECIAL_TOKENS_ATTRIBUTES, *self.transformers.special_tokens_map}
        if refused := sorted(taken & set(arguments)):
            raise InvalidRequestError(
                f"chat_template_kwargs can't have {', '.join(refused)}: Hearth decides that. They are for what the "
                "model's own chat template reads, like enable_thinking."
            )
        return dict(self._protected(arguments))

    def _marked(self, message: Mapping[str, Any], shown: dict[str, ImagePart]) -> dict[str, Any]:
        """A message as the template gets it. Adds to `shown` the pictures that are in it for the first time."""
        made = {**self._protected(message), "role": message["role"]}
        content = message.get("content")
        if self.images is None or not isinstance(content, str):
            return made
        before, seen = len(shown), set(shown)
        parts = []
        for part in split(content, context.current().images, seen):
            if isinstance(part, ImagePart):
                shown[part.key] = part
                parts.append({"type": "image"})
            else:
                parts.append({"type": "text", "text": self.protect(part)})
        if self._wants_parts or len(shown) > before:
            made["content"] = parts
        return made

    def _with_markers(self, text: str, shown: Mapping[str, ImagePart]) -> str:
        """A conversation with a marker in place of each placeholder that the template has written for a picture."""
        assert self.images is not None and self.images.placeholder_name is not None
        first, *rest = text.split(self.images.placeholder_name)
        if len(rest) != len(shown):
            raise InvalidRequestError(
                f"The model's chat template writes {len(rest)} pictures for the {len(shown)} of these messages. "
                "Leave the pictures out, or use a template that takes them in messages of this role."
            )
        return first + "".join(
            self.images.marker(part) + text for part, text in zip(shown.values(), rest, strict=True)
        )

    def _rendered(
        self, messages: list[dict[str, Any]], tools: Any, arguments: Mapping[str, Any] = NO_ARGUMENTS
    ) -> str:
        # Read by templates of models that else begin with a hidden monologue.
        given = {"enable_thinking": False, **arguments}
        return str(
            self.transformers.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=True, **given
            )
        )

    def _protected(self, value: Any) -> Any:
        """A JSON value with every text in it protected."""
        match value:
            case str():
                return self.protect(value)
            case Mapping():
                return {self.protect(name): self._protected(one) for name, one in value.items()}
            case Sequence():
                return [self._protected(one) for one in value]
        return value


def _joined(one: Any, two: Any) -> Any:
    """The contents of two messages as one."""
    if isinstance(one, str) and isinstance(two, str):
        return f"{one}\n\n{two}"
    parts = [[{"type": "text", "text": part}] if isinstance(part, str) else list(part) for part in (one, two)]
    return [*parts[0], {"type": "text", "text": "\n\n"}, *parts[1]]


def too_long(length: int, limit: int, of_images: int = 0) -> PromptTooLongError:
    """The error for a text that exceeds the context length; all in tokens. `of_images`: those of pictures."""
    pictures, fewer = "", ""
    if of_images:
        pictures, fewer = f", {of_images} of them for pictures", "with fewer pictures, "
    return PromptTooLongError(
        f"The text is {length} tokens long{pictures}, and the model reads at most {limit}. "
        f"Ask a shorter question, {fewer}or load a model with a longer window.",
        tokens=length,
        limit=limit,
    )


def _vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """What `llguidance.hf.from_tokenizer` makes its tokenizer of."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError("The model's tokenizer has no fast form.")
    backend = copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    return {"tokenizer": backend.to_str(), "n_vocab": size, "eos_token": tokenizer.eos_token_id}


def _encode(tokenizer: Any, context_length: int, text: str) -> "tuple[array[int], int]":
    """The tokens of a text, and the number of those after its last mark. Raises `PromptTooLongError`, which is not
    cached, for a long one."""
    if len(text) > CHARACTERS_PER_TOKEN * context_length:
        tokens = 0
        for read in range(BLOCK, len(text) + BLOCK, BLOCK):
            tokens += len(_tokens(tokenizer, text[read - BLOCK : read])[0]) - CUT_TOKENS
            if tokens > context_length:
                raise too_long(max(tokens * len(text) // read, tokens), context_length)
    return _tokens(tokenizer, text)


def _tokens(tokenizer: Any, text: str) -> "tuple[array[int], int]":
    tokens, part = array("I"), list[int]()
    # One call, in which other threads may run.
    for part in tokenizer(text.split(MARK), add_special_tokens=False, verbose=False)["input_ids"]:
        tokens.extend(part)
    return tokens, len(part)
