"""The two kinds of model that an agent gets.

In a worker both are stand-ins for the model in the server's process: see `server/workers/inside/models.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from guidance.models import Model


class TextTools(Protocol):
    """A model's tokenizer, as agents use it."""

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """The conversation in the model's own chat template, up to the beginning of the assistant's message. Raises
        `InvalidRequestError` if the template does not accept it."""

    def count(self, text: str) -> int:
        """Tokens of `text`."""

    def cut(self, text: str, tokens: int) -> str:
        """`text`, truncated to at most so many tokens."""

    def protect(self, text: str) -> str:
        """Untrusted `text`, marked so that nothing in it acts as a control token."""

    def reveal(self, text: str) -> str:
        """Protected text without its marks."""


class GuidedModel(Protocol):
    """The resident model, which supports guidance's grammars."""

    guided: ClassVar[Literal[True]]

    @property
    def context_length(self) -> int:
        """The maximum tokens of a prompt and its completion."""

    @property
    def tokenizer(self) -> TextTools: ...

    def program(self) -> Model:
        """A fresh guidance model object: `lm = model.program(); lm += gen(...)`.

        Adding to it raises `PromptTooLongError`, `RunCancelledError`, `OutOfMemoryError`, `OutOfTokensError`, and
        ValueError for an invalid grammar."""

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        stop: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> str:
        """The assistant's next message: free text up to the first of the `stop` sequences, or JSON by `schema`."""


class ApiModel(Protocol):
    """A remote model, behind an API."""

    guided: ClassVar[Literal[False]]
    name: str

    @property
    def context_length(self) -> int:
        """The maximum tokens of a prompt and its completion."""

    @property
    def takes_schema(self) -> bool:
        """Whether its provider supports replies by a JSON schema."""

    def count(self, text: str) -> int:
        """An estimate of the tokens of `text`."""

    def cut(self, text: str, tokens: int) -> str:
        """`text`, truncated to about so many tokens."""

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        stop: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        when_cut: Callable[[], None] = ...,
    ) -> str:
        """The assistant's next message. `when_cut` is called if it was cut off at its limit. Raises a
        `ProviderError`; `SchemaRefusedError` if the schema may be the reason."""
