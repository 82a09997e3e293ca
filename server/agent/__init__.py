"""Agents: how a question is put to the model and walked to its answer. One agent a file; reloadable.

An agent is a class like those here, below `Agent`, and a file that defines one is found without being registered
elsewhere. `CustomAgentGuidance` is the default one; prompts are text in prompts.py. Of the server, code here imports
`server.sdk` alone; it runs in a worker.
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
    """An agent has no name to ask for it by."""


def load_agents() -> dict[str, type[Agent]]:
    """The agents of every file in this folder, by name.

    Raises `DuplicateAgentError` naming both files when two share a name, `NamelessAgentError` for one without, and
    whatever a file raises while it is imported.
    """
    # The default one need not be below `Agent`.
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
