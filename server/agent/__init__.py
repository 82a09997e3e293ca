"""Agents: how a question is put to the model and walked to its answer. Reloadable.

`CustomAgentGuidance` is the default agent; prompts are text in prompts.py. Code here may import the persistent
parts of the server; they reach it only through the live generation.
"""

from .react import CustomAgentGuidance

__all__ = ["CustomAgentGuidance"]
