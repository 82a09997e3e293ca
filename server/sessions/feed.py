"""What happens in a session, for those who follow it: messages, and changes of its jobs."""

import threading
import time
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

from server.jobs.job import Job
from server.runs.events import Events, Kind
from server.runs.run import Run

MOST_CHARACTERS = 400_000
"""Maximum length of the events of a session that are kept; the last one stays in any case."""
MOST_SESSIONS = 256
"""Maximum number of sessions whose events are kept, in addition to those that somebody follows."""


class SessionFeeds:
    """The events of sessions, in memory. Safe for any number of threads."""

    def __init__(self) -> None:
        self._followed: WeakValueDictionary[tuple[str, str], Events] = WeakValueDictionary()
        self._recent: OrderedDict[tuple[str, str], Events] = OrderedDict()
        self._changing = threading.Lock()

    def events(self, workspace: str, session: str) -> Events:
        """The events of a session, which need not exist yet. They don't end."""
        key = (workspace, session)
        with self._changing:
            found = self._followed.get(key)
            if found is None:
                # Numbers that are higher than those before a restart, so that Last-Event-ID stays meaningful.
                first = int(time.time() * 1000)
                found = Events(last=(), first=first, longest=MOST_CHARACTERS)
                self._followed[key] = found
            self._recent[key] = found
            self._recent.move_to_end(key)
            while len(self._recent) > MOST_SESSIONS:
                self._recent.popitem(last=False)
        return found

    def publish(self, workspace: str, session: str, kind: Kind, data: dict[str, Any]) -> None:
        """Add an event."""
        self.events(workspace, session).publish(kind, data)

    def on_exchange(self, run: Run) -> None:
        """A question of a session was answered, and both are saved."""
        if run.session_id is None or run.answer is None:
            return
        now = time.time()
        asker = "user" if run.wake is None else "system"
        for role, content in ((asker, run.question), ("assistant", run.answer["answer"])):
            data = {"role": role, "content": content, "run_id": run.id, "time": now}
            self.publish(run.workspace, run.session_id, "message", data)

    def on_job(self, job: Job, is_progress: bool) -> None:
        """A job has changed, or reports its progress."""
        if job.session_id is None:
            return
        if is_progress:
            self.publish(job.workspace, job.session_id, "progress", {"job_id": job.id, **(job.progress or {})})
        else:
            self.publish(job.workspace, job.session_id, "job", job.shown())
