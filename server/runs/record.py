"""A run as the routes show it and as the database saves it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from server.bounds import bounded
from server.runs.run import Run

LONGEST_LISTED = 1000
"""Maximum length of a text in a list of runs, in characters."""
MOST_LISTED_STEPS = 32
"""Maximum number of a run's steps in a list of runs, as many as a question may have tool calls."""


class Citation(Protocol):
    """What an answer cites of a document."""

    def model_dump(self) -> dict[str, Any]:
        """As the routes show it."""


class AgentResult(Protocol):
    """An answer and its steps, in plain values."""

    @property
    def answer(self) -> str: ...

    @property
    def function(self) -> str | None:
        """The name of the last tool that was called."""

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Each with `thought`, `tool`, `input`, `observation`; where it failed, `error` and perhaps `traceback`."""

    @property
    def usage(self) -> dict[str, int]: ...

    @property
    def details(self) -> Mapping[str, Any]:
        """Anything else that the agent reports."""

    @property
    def citations(self) -> Sequence[Citation]:
        """What the answer cites of documents."""


def answer_of(run: Run, result: AgentResult) -> dict[str, Any]:
    """The answer of a run, from its agent's result and the current times."""
    answer: dict[str, Any] = {
        "run_id": run.id,
        "answer": result.answer,
        "function": result.function,
        "steps": result.steps,
        "workspace": run.workspace,
        "generation": run.generation,
        "model": run.model,
        "usage": result.usage,
        "seconds": run.seconds,
        "queued_seconds": run.queued_seconds,
        "provenance": run.provenance,
    }
    if run.session_id is not None:
        answer["session_id"] = run.session_id
    if run.fork is not None:
        answer["forked_from"] = run.fork.as_json()
    if result.details:
        answer["details"] = result.details
    if run.images:
        answer["images"] = run.images_as_json()
    if result.citations:
        answer["citations"] = [one.model_dump() for one in result.citations]
    if run.tools_shown:
        answer["tools_shown"] = run.tools_shown
    if run.not_reloaded is not None:
        answer["not_reloaded"] = run.not_reloaded
    return answer


def record_of(run: Run, saved: bool = True) -> dict[str, Any]:
    """A run in any state: the question, the progress, and the answer or the error if there is one. Until it is
    `saved`, the run counts as running, because no answer is reported that a crash could lose."""
    # Before the answer: it is set after it.
    state = run.state
    ended = run.answer is not None or run.error is not None
    record = {
        "run_id": run.id,
        "state": "running" if ended and not saved else state,
        "asked": run.asked,
        "question": run.question,
        "agent": run.agent,
        "max_steps": run.max_steps,
        "priority": run.priority,
        "workspace": run.workspace,
        "generation": run.generation,
        "model": run.model,
        "seconds": run.seconds,
        "queued_seconds": run.queued_seconds,
    }
    if run.session_id is not None:
        record["session_id"] = run.session_id
    if run.fork is not None:
        record["forked_from"] = run.fork.as_json()
    # System messages among the recalled ones summarise exchanges that are not shown themselves.
    recalled = [{**one, "summary": True} if one["role"] == "system" else one for one in run.recalled]
    if run.history or recalled:
        record["history"] = [*run.history, *recalled]
    if state == "queued" and run.position is not None:
        record["position"] = run.position
    if run.answer is not None and saved:
        return {**record, **run.answer}
    if run.images:
        record["images"] = run.images_as_json()
    if run.provenance:
        record["provenance"] = run.provenance
    if run.tools_shown:
        record["tools_shown"] = run.tools_shown
    if run.steps:
        record |= {"steps": list(run.steps), "usage": run.usage}
    if run.error is not None and saved:
        record["error"] = {"type": run.error.code, "message": run.error.message}
    return record


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as lists show it: without its history, and with its texts shortened."""
    summary: dict[str, Any] = bounded(
        {name: one for name, one in record.items() if name != "history"}, LONGEST_LISTED
    )
    if "steps" in summary:
        summary["steps"] = summary["steps"][:MOST_LISTED_STEPS]
    return summary
