"""A run as the routes show it and as it is kept."""

from collections.abc import Mapping
from typing import Any, Protocol

from server.runs.run import Run


class AgentResult(Protocol):
    """An answer and how it came about, in plain values."""

    @property
    def answer(self) -> str: ...

    @property
    def function(self) -> str | None:
        """The name of the tool that was called last."""

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Each with `thought`, `tool`, `input`, `observation` and, where it failed, `error`."""

    @property
    def usage(self) -> dict[str, int]: ...

    @property
    def details(self) -> Mapping[str, Any]:
        """What else there is to say."""


def answer_of(run: Run, result: AgentResult) -> dict[str, Any]:
    """The answer that an agent's result makes, with the times of this moment."""
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
    if result.details:
        answer["details"] = result.details
    if run.not_reloaded is not None:
        answer["not_reloaded"] = run.not_reloaded
    return answer


def record_of(run: Run, kept: bool = True) -> dict[str, Any]:
    """A run in any state: what was asked, how far it is, and its answer or its error where there is one. Until that
    is `kept`, the run counts as running: nobody is told what might be lost."""
    ended = run.answer is not None or run.error is not None
    record = {
        "run_id": run.id,
        "state": "running" if ended and not kept else run.state,
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
    # Of what was recalled, messages of the system stand for turns that are not shown themselves.
    recalled = [{**one, "summary": True} if one["role"] == "system" else one for one in run.recalled]
    if run.history or recalled:
        record["history"] = [*run.history, *recalled]
    if run.state == "queued" and run.position is not None:
        record["position"] = run.position
    if run.answer is not None and kept:
        return {**record, **run.answer}
    if run.steps:
        record |= {"steps": list(run.steps), "usage": run.usage}
    if run.error is not None and kept:
        record["error"] = {"type": run.error.code, "message": run.error.message}
    return record
