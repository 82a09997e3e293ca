"""Jobs, seen from people's code: reports of progress, the values that a session shares, and calls in a process of
their own."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from server.errors import HearthError, RunCancelledError
from server.sdk import context
from server.sdk.tool_error import ToolFailedError

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


RESOURCES = ("num_cpus", "num_gpus", "memory")
"""Processors, GPUs, and bytes of memory."""


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Report how far this tool is: `done` of `total`. It is shown with the job, and the agent reads it. Does nothing
    outside of a job. Raises `ValueError` for a number that is not finite."""
    numbers = _finite(done), None if total is None else _finite(total)
    now = context.current()
    if now.listener is not None and now.is_alone:
        now.listener.progress(*numbers, str(message)[:1000])


def _finite(number: float) -> float:
    try:
        converted = float(number)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise ValueError(f"progress() takes finite numbers, and {converted} is none")
    return converted


class _Shared:
    """A dictionary of the session. Tools, agents and jobs see the same values; each call is atomic. Values are JSON.

    The calls raise `InvalidRequestError` outside of a session, for a value that is too long, and for one too many.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """The value."""
        value = ask("get", key=key)["value"]
        return default if value is None else value

    def set(self, key: str, value: Any) -> None:
        """Set the value; None deletes it."""
        ask("set", key=key, value=value)

    def increment(self, key: str, by: float = 1) -> Any:
        """Add to a number, which is 0 at first, and return the sum."""
        return ask("increment", key=key, by=by)["value"]

    def update(self, key: str, function: Callable[[Any], Any]) -> Any:
        """Set the value that `function` makes of the old one (None: there is none), and return it. `function` is
        called again if another one has changed the value meanwhile."""
        while True:
            was = ask("get", key=key)["value"]
            value = function(was)
            if ask("replace", key=key, was=was, value=value)["replaced"]:
                return value


shared = _Shared()


class SessionJobs:
    """The names of the jobs that an agent may wait for, cancel, and ask after: those of its session, and those that
    it has started itself."""

    def __init__(self, names: list[str], may_begin: bool) -> None:
        """`may_begin`: whether there are tools that start jobs."""
        self.names = list(names)
        self.may_begin = may_begin
        self.started: list[str] = []
        """Those that the agent has started itself."""


def is_background(tool: "BaseTool") -> bool:
    """Whether an agent's call of `tool` returns at once."""
    return _says(tool, "background")


def is_idempotent(tool: "BaseTool") -> bool:
    """Whether a job of `tool` may be started twice."""
    return _says(tool, "idempotent")


def resources(tool: "BaseTool") -> dict[str, float]:
    """What a job of `tool` needs on a cluster, of `RESOURCES`: only what its `extras` say. Raises `ValueError` for
    what is no amount."""
    found = {name: (tool.extras or {})[name] for name in RESOURCES if (tool.extras or {}).get(name) is not None}
    for name, amount in found.items():
        is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
        if not is_number or not 0 <= amount < math.inf or (amount > 1 and amount != int(amount)):
            raise ValueError(f"{name} is {amount!r}; it takes a number from 0 on, above 1 a whole one")
    return {name: float(amount) for name, amount in found.items()}


def runs_as_job(tool: "BaseTool") -> bool:
    """Whether a call of `tool` gets a process of its own: if an agent calls it, and it says so in its `extras`."""
    now = context.current()
    return now.listener is not None and not now.is_alone and (is_background(tool) or _says(tool, "isolated"))


def call_as_job(tool: "BaseTool", arguments: Mapping[str, Any]) -> str:
    """What the model reads of a call in a process of its own: the name of its job, or, if the tool is not for the
    background, its result. Raises `ToolFailedError` if that fails."""
    in_background = is_background(tool)
    reply = ask_for_model(
        "start",
        tool=tool.name,
        input=dict(arguments),
        in_background=in_background,
        idempotent=is_idempotent(tool),
    )
    if in_background:
        if (jobs := context.current().jobs) is not None:
            jobs.names.insert(0, reply["job"])
            jobs.started.append(reply["job"])
        return f"Started as the background job {reply['job']}."
    if reply["state"] != "succeeded":
        raise ToolFailedError(reply.get("error") or f"the job {reply['job']} was {reply['state']}.")
    return str(reply["result"])


def ask(do: str, **given: Any) -> dict[str, Any]:
    """Ask the server about jobs; see `server.jobs.calls`. Raises what it replies."""
    listener = context.current().listener
    if listener is None:
        raise RuntimeError("Jobs and shared values belong to a run, and this code runs outside of one.")
    return listener.ask("jobs", do, given)


def ask_for_model(do: str, **given: Any) -> dict[str, Any]:
    """The same, where the model should read why it can't be done: then raises `ToolFailedError`."""
    try:
        return ask(do, **given)
    except RunCancelledError:
        raise
    except HearthError as error:
        raise ToolFailedError(error.message) from None


def _says(tool: "BaseTool", name: str) -> bool:
    return bool((tool.extras or {}).get(name))
