"""Text to tokens and back, for guidance and for the engine; and how text from outside is kept plain text."""

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

#: Characters, give or take: what spares long texts from being read to their end.
LONGEST_TOKEN = 64
#: Texts whose tokens are remembered.
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
        """What `protect` knows."""
        # An agent asks how long a prompt is, and then has it continued.
        self._encoded = lru_cache(maxsize=REMEMBERED)(partial(_encode, tokenizer))

    def protect(self, text: str) -> str:
        """See `ControlTokens.protect`."""
        return self.control.protect(text)

    def reveal(self, text: str) -> str:
        """See `ControlTokens.reveal`."""
        return self.control.reveal(text)

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a prompt, control tokens recognised except in protected text."""
        return list(self._encoded(text))

    def count(self, text: str) -> int:
        return len(self._encoded(text))

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of `text`, at most so many tokens long."""
        text = text[: tokens * LONGEST_TOKEN]
        while text and (length := self.count(text)) > tokens:
            text = text[: min(len(text) * tokens // length, len(text) - 1)]
        return text

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """The conversation in the model's own chat template, up to where the assistant's turn begins. `tools` are
        listed as the template has it, if it does that.

        All but the roles is protected: what people and tools wrote can't end a turn or open another. Where the
        template knows no system message, the user's first turn begins with it. Raises `InvalidRequestError` where the
        template does not take such a conversation.
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
        """JSON's `value` with every text in it protected."""
        match value:
            case str():
                return self.protect(value)
            case Mapping():
                return {self.protect(name): self._protected(one) for name, one in value.items()}
            case Sequence():
                return [self._protected(one) for one in value]
        return value


def _encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    pieces = (tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in text.split(MARK))
    return tuple(itertools.chain.from_iterable(pieces))
