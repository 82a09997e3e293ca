"""A run as the routes show it and as it is kept."""

import json
from typing import Any

from server.errors import InternalError
from server.runs.result import AgentResult
from server.runs.run import Run
from server.runs.step import as_json


def answer_of(run: Run, result: AgentResult) -> dict[str, Any]:
    """The answer that an agent's result makes, with the times of this moment: plain values only, which keep no
    reloadable code in memory. Raises what a result may raise that is none."""
    if not isinstance(result.answer, str):
        raise InternalError(
            f"The agent {run.agent!r} gave {type(result.answer).__name__} as its answer, and not text. It is "
            "AgentResult's first value."
        )
    answer = {
        "run_id": run.id,
        "answer": result.answer,
        "function": result.function,
        "steps": [as_json(step) for step in result.steps],
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
    if details := getattr(result, "details", None):
        answer["details"] = details
    if run.not_reloaded is not None:
        answer["not_reloaded"] = run.not_reloaded
    plain: dict[str, Any] = json.loads(json.dumps(answer))
    return plain


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
