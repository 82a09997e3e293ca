"""A question's life, from its arrival to its answer.

Rule: nothing here knows HTTP. A run is handed what it works with, and counts what it uses.
"""

from server.runs.events import LAST
from server.runs.record import AgentResult, record_of
from server.runs.run import Run
from server.runs.runs import Runs

__all__ = ["LAST", "AgentResult", "Run", "Runs", "record_of"]
