"""A run as the routes show it and as it is kept."""

from dataclasses import asdict
from typing import Any

from server.runs.run import Run


def answer_of(run: Run) -> dict[str, Any]:
    """The answer of a run that is done."""
    assert run.result is not None, "it is done"
    answer = {
        "run_id": run.id,
        "answer": run.result.answer,
        "function": run.result.function,
        "steps": [_step(step) for step in run.result.steps],
        "workspace": run.workspace,
        "generation": run.generation,
        "model": run.model,
        "usage": run.result.usage,
        "seconds": run.seconds,
        "queued_seconds": run.queued_seconds,
        "provenance": run.provenance,
    }
    return answer if run.not_reloaded is None else {**answer, "not_reloaded": run.not_reloaded}


def record_of(run: Run) -> dict[str, Any]:
    """A run in any state: what was asked, how far it is, and its answer or its error where there is one."""
    record = {
        "run_id": run.id,
        "state": run.state,
        "asked": run.asked,
        "question": run.question,
        "agent": run.agent,
        "max_steps": run.max_steps,
        "workspace": run.workspace,
        "generation": run.generation,
        "model": run.model,
        "seconds": run.seconds,
        "queued_seconds": run.queued_seconds,
    }
    if run.result is not None:
        record |= answer_of(run)
    if run.error is not None:
        record["error"] = run.error
    return record


def _step(step: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(step).items() if name != "error" or value is not None}
