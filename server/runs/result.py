"""What an agent gives back. Agents are reloadable; this is all that the rest of the server asks of them."""

from typing import Any, Protocol


class AgentResult(Protocol):
    """An answer and how it came about."""

    answer: str
    function: str | None
    """The name of the tool that was called last."""
    steps: list[Any]
    """Dataclasses with `thought`, `tool`, `input`, `observation` and `error`, in order."""
    usage: dict[str, int]
    # It may have `details` as well: what else there is to tell, as JSON has it.
