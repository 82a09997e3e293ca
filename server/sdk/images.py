"""Pictures of the run, for agents: those of its question, and those of its session."""

from dataclasses import dataclass
from typing import Any

from server.errors import ImageRefusedError, InvalidRequestError, NotFoundError, TooLargeError
from server.sdk import context
from server.sdk.tool_error import ToolFailedError


@dataclass(frozen=True)
class LookedAt:
    """A picture. `mark`: stands for it in a text; a model that takes images sees the picture there. `seen`: whether
    the run's model is one. `text`: otherwise, what was read and measured of it."""

    mark: str
    seen: bool
    text: str


def has_images() -> bool:
    """Whether there are pictures that the run's agent may look at."""
    return context.current().has_images


def image_names() -> list[str]:
    """Their names, those of the question first."""
    names: list[str] = _ask("names")["names"]
    return names


def look_at(name: str) -> LookedAt:
    """Make the picture of that name one of the run's. Raises `ToolFailedError` if there is none, or if it can't be
    decoded, and what the sandbox raises."""
    try:
        reply = _ask("look", name=name)
    except (NotFoundError, ImageRefusedError, InvalidRequestError, TooLargeError) as error:
        raise ToolFailedError(error.message) from None
    return LookedAt(reply["mark"], reply["seen"], reply["text"])


def _ask(do: str, **given: Any) -> dict[str, Any]:
    listener = context.current().listener
    if listener is None:
        raise RuntimeError("Pictures belong to a run, and this code runs outside of one.")
    return listener.ask("images", do, given)
