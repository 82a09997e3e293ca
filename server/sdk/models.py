"""The two kinds of model that an agent gets.

In a worker both are stand-ins for the model in the server's process: see `server/workers/inside/models.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from guidance.models import Model


class TextTools(Protocol):
    """What an agent asks of a model's tokenizer."""

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """The conversation in the model's own chat template, up to where the assistant's message begins. Raises
        `InvalidRequestError` where the template does not take it."""

    def count(self, text: str) -> int:
        """Tokens of `text`."""

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of `text`, so many tokens long at most."""

    def protect(self, text: str) -> str:
        """`text` from outside, so marked that nothing in it acts as a control token."""

    def reveal(self, text: str) -> str:
        """Protected text as it was."""


class GuidedModel(Protocol):
    """The resident model, which follows guidance's grammars."""

    guided: ClassVar[Literal[True]]

    @property
    def context_length(self) -> int:
        """Tokens that the model reads and writes at most."""

    @property
    def tokenizer(self) -> TextTools: ...

    def program(self) -> Model:
        """A fresh guidance model object: `lm = model.program(); lm += gen(...)`.

        Adding to it raises `PromptTooLongError`, `RunCancelledError`, `OutOfMemoryError`, `OutOfTokensError`, and
        ValueError for a grammar that can't be followed."""

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        stop: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> str:
        """The assistant's next message: free text that ends before any of `stop`, or JSON that fits `schema`."""


class ApiModel(Protocol):
    """A model behind an API."""

    guided: ClassVar[Literal[False]]
    name: str

    @property
    def context_length(self) -> int:
        """Tokens that the model reads and writes at most."""

    @property
    def takes_schema(self) -> bool:
        """Whether its provider holds a reply to a JSON schema."""

    def count(self, text: str) -> int:
        """About how many tokens `text` has."""

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of `text`, about so many tokens long at most."""

    def complete(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        stop: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        when_cut: Callable[[], None] = ...,
    ) -> str:
        """The assistant's next message. `when_cut` is called where it was cut off at its limit. Raises a
        `ProviderError`; `SchemaRefusedError` if that may be the schema's fault."""
