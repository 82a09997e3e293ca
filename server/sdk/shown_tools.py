"""Which tools an agent shows the model, where there are more than it should read."""

from collections.abc import Iterable, Sequence

from server.sdk import context

FIND_TOOLS = "find_tools"
"""The name of the tool by which a model finds those that it is not shown. No tool of a workspace may have it."""


def most() -> int | None:
    """Maximum number of tools to show the model, as HEARTH_TOOLS_SHOWN says; None outside of a run."""
    return context.current().most_tools


def of_session() -> tuple[str, ...]:
    """The names of the tools that earlier questions of the run's session called, the latest first. Some of them may
    not exist any more."""
    return context.current().session_tools


def similarities(queries: Sequence[str], texts: Sequence[str]) -> list[float] | None:
    """For each text the mean cosine of its vector and each query's, by the server's embedding model. None: there is
    no such model, or no run."""
    if (listener := context.current().listener) is None:
        return None
    given = {"queries": list(queries), "texts": list(texts)}
    found: list[float] | None = listener.ask("tools", "compare", given)["similarities"]
    return found


def tell(names: Iterable[str]) -> None:
    """For agents that show the model some of the tools: report which, for the answer's `tools_shown`. Outside of a
    run it does nothing."""
    if (listener := context.current().listener) is not None:
        listener.tools_shown(list(names))
