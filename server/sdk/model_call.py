"""A model call: what the model was given, and what it wrote. A run records each one, for people to read later."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from server.sdk import context
from server.sdk.usage import Usage


@dataclass(frozen=True)
class ModelCall:
    """A call that has ended. `kind`: the prompt is a `text` that the model continues, or the JSON of the `messages`
    of a remote model.

    `tokens`: the ids of what was written, after the first `prompt_tokens` tokens of the prompt. They may begin with
    the prompt's end: a grammar may have its last characters tokenized anew. `chosen`: the places among them that the
    model chose; the others are the prompt's, or the grammar forced them. Both are empty for a remote model.
    """

    kind: Literal["text", "messages"]
    prompt: str
    written: str
    usage: Usage
    seconds: float
    sampling: Mapping[str, Any] = field(default_factory=dict)
    bos: bool = False
    """Whether the beginning-of-sequence token was put before the prompt, and counts among `prompt_tokens`."""
    has_images: bool = False
    prompt_tokens: int = 0
    tokens: tuple[int, ...] = ()
    chosen: frozenset[int] = frozenset()
    first_seconds: float | None = None
    """Seconds until its first text; None: there was none."""


def record(call: ModelCall) -> None:
    """Add a call that has ended to the run of this context."""
    if (on_call := context.current().on_model_call) is not None:
        on_call(call)
