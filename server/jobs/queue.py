"""The order of waiting jobs: fair between people; of one person's, by priority, and then in the order of arrival."""

from collections.abc import Mapping

from server.jobs.job import Job


class JobQueue:
    """Not safe for several threads: its owner has a lock."""

    def __init__(self) -> None:
        self._waiting: dict[str, Job] = {}
        """In the order of their arrival."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._waiting

    def put(self, job: Job) -> None:
        """Let it wait behind those of its owner with the same priority."""
        self._waiting[job.id] = job

    def of(self, owner: str) -> int:
        """How many jobs of a person wait."""
        return sum(job.owner == owner for job in self._waiting.values())

    def take(self, running: Mapping[str, int], only_new: bool = False) -> Job | None:
        """The next job, of the person with the fewest `running` ones, which it gives by owner; None if none waits.
        `only_new`: only of a person who has none that runs."""
        waiting = [one for one in self._waiting.values() if not (only_new and running.get(one.owner))]
        if not waiting:
            return None
        # `min` takes the first of equals.
        job = min(waiting, key=lambda one: (running.get(one.owner, 0), -one.priority))
        del self._waiting[job.id]
        return job

    def remove(self, job_id: str) -> bool:
        """Take a job out. Returns whether it waited."""
        return self._waiting.pop(job_id, None) is not None
