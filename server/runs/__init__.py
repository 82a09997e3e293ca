"""Runs: from a question's arrival to its answer.

Rule: nothing here knows HTTP. A run gets what it works with, and counts its usage.
"""

from server.runs.events import Events
from server.runs.record import AgentResult, record_of
from server.runs.run import Run
from server.runs.runs import Runs

__all__ = ["AgentResult", "Events", "Run", "Runs", "record_of"]
