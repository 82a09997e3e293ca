"""Sessions: questions that know what was said before them.

The rule of this folder: what is kept of a turn is copied from its run, so that it is right whatever a model writes; a
model only adds to it, later and in the background. What is said to a model, and how much of a session a question is
shown, is reloadable code: `server/agent/notes.py`.
"""

from server.sessions.note_taker import NoteTaker
from server.sessions.sessions import Sessions

__all__ = ["NoteTaker", "Sessions"]
