"""Tokenizing for guidance and for the engine, chat templates, and escaping control tokens in untrusted text."""

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import guidance
from guidance.models._engine import Tokenizer
from jinja2 import TemplateError
from llguidance.hf import from_tokenizer

from server.errors import InvalidRequestError
from server.sdk.control_tokens import MARK, ControlTokens

#: Characters, roughly. Bounds how much of a long text is tokenized.
LONGEST_TOKEN = 64
#: Maximum number of cached texts.
REMEMBERED = 32


class EngineTokenizer(Tokenizer):
    """A Transformers fast tokenizer, as guidance and llguidance want it."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        """`tokenizer` is a Transformers fast one. `vocabulary` is the width of the masks.

        Raises ValueError for a tokenizer without a fast form.
        """
        super().__init__(
            ll_tokenizer=from_tokenizer(tokenizer, n_vocab=vocabulary),
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
        # An agent asks for a prompt's length first, and then has it continued.
        self._encoded = lru_cache(maxsize=REMEMBERED)(partial(_encode, tokenizer))

    def protect(self, text: str) -> str:
        """See `ControlTokens.protect`."""
        return self.control.protect(text)

    def reveal(self, text: str) -> str:
        """See `ControlTokens.reveal`."""
        return self.control.reveal(text)

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a prompt. Control tokens are recognised, except in protected text."""
        return list(self._encoded(text))

    def count(self, text: str) -> int:
        return len(self._encoded(text))

    def cut(self, text: str, tokens: int) -> str:
        """`text`, truncated to at most so many tokens."""
        text = text[: tokens * LONGEST_TOKEN]
        while text and (length := self.count(text)) > tokens:
            text = text[: min(len(text) * tokens // length, len(text) - 1)]
        return text

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """The conversation in the model's own chat template, up to the beginning of the assistant's next message.
        Templates that support tools list `tools`.

        Everything except the roles is protected, so text of people and tools can't end a message or open another one.
        If the template has no system message, that text opens the user's first message. Raises `InvalidRequestError`
        if the template does not accept the conversation.
        """
        marked = [{**self._protected(message), "role": message["role"]} for message in messages]
        try:
            try:
                return self._rendered(marked, self._protected(tools))
            except TemplateError:
                if [message["role"] for message in marked[:2]] != ["system", "user"]:
                    raise
                system, user, *more = marked
                opening = {**user, "content": f"{system['content']}\n\n{user['content']}"}
                return self._rendered([opening, *more], self._protected(tools))
        except TemplateError as error:
            raise InvalidRequestError(f"The model's chat template does not take these messages: {error}.") from error

    def _rendered(self, messages: list[dict[str, Any]], tools: Any) -> str:
        return str(
            self.transformers.apply_chat_template(
                messages,
                tools=tools,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,  # read by templates of models that else begin with a hidden monologue
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


def _encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    parts = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split(MARK))
    return tuple(itertools.chain.from_iterable(parts))
