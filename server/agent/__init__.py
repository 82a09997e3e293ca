"""Agents, which lead a question to its answer with the model and tools. One file for each agent; reloadable.

An agent is a subclass of `Agent` in a file of this folder; it needs no registration. `CustomAgentGuidance` is the
default agent. The prompts are in prompts.py. Code here runs in a worker, and of the server it imports only
`server.sdk`.
"""

import importlib
import inspect
import pkgutil

from .agent import Agent
from .react import CustomAgentGuidance

__all__ = ["CustomAgentGuidance", "load_agents"]


class DuplicateAgentError(ValueError):
    """Two different agents have one name."""


class NamelessAgentError(TypeError):
    """An agent has no name, so no request can choose it."""


def load_agents() -> dict[str, type[Agent]]:
    """The agents of every file in this folder, by name.

    Raises `DuplicateAgentError` with both files if two have the same name, `NamelessAgentError` for an agent without
    one, and what importing a file raises.
    """
    # The default agent need not be a subclass of `Agent`.
    agents: dict[str, type[Agent]] = {"react": CustomAgentGuidance}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module("." + found.name, __package__)
        for value in vars(module).values():
            if not inspect.isclass(value) or value.__module__ != module.__name__:
                continue
            if not issubclass(value, Agent) or inspect.isabstract(value):
                continue
            if not isinstance(getattr(value, "name", None), str):
                raise NamelessAgentError(f'{value.__name__} in {_file(value)} needs a name, like name = "brief"')
            other = agents.setdefault(value.name, value)
            if other is not value:
                raise DuplicateAgentError(
                    f"{_file(other)} and {_file(value)} both have an agent named {value.name!r}; rename one of them"
                )
    return agents


def _file(agent: type[Agent]) -> str:
    return f"server/agent/{agent.__module__.rpartition('.')[2]}.py"
