"""Sessions: conversations of several questions, and their notepads.

The rule of this folder: an exchange is copied from its run, so that it is right whatever a model writes. A model only
adds to its note, later and in the background. Prompts, and the selection of what a question is shown of its session,
are reloadable code: `server/agent/notes.py`.
"""

from server.sessions.notepad import NoteTaker
from server.sessions.sessions import Sessions

__all__ = ["NoteTaker", "Sessions"]
