"""What the model saw in a run: its steps, their prompts, and their tokens."""

import difflib
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from server.errors import InvalidRequestError, StepNotFoundError
from server.models.resident import ResidentModels
from server.runs.record import record_of
from server.runs.run import Run
from server.runs.runs import Runs
from server.runs.same_model import model_of
from server.runs.trace import TracedCall, lines, shared_prefix, with_prompts
from server.sdk.control_tokens import ControlTokens
from server.store import RunStore
from server.store.traces import TraceStore

if TYPE_CHECKING:
    from server.engine import GuidedEngine

MOST_CALLS_SHOWN = 50
"""Maximum number of a step's model calls that are shown with their prompts."""
MOST_SHOWN = 2_000_000
"""Maximum number of characters of their prompts and texts; one is shown in any case."""
LONGEST_COMPARED = 40_000
"""Characters of a prompt's changed part. Longer ones are not compared line by line."""
MOST_LINES_COMPARED = 1_000

reveal = ControlTokens.reveal


class Traces:
    """Shows traces. Safe for any number of threads."""

    def __init__(self, runs: Runs, store: RunStore, traces: TraceStore, models: ResidentModels) -> None:
        self._runs = runs
        self._store = store
        self.store = traces
        self._models = models

    def steps(self, run_id: str, after: int, limit: int) -> dict[str, Any]:
        """The number of a run's steps, and the lines of up to `limit` of them after the one with that number. Raises
        `RunNotFoundError`."""
        source = self._source(run_id)
        count, found = source.lines(after, limit)
        first = source.first_made
        shown = [{"step": number, "replayed": number < first, **line} for number, line in enumerate(found, after + 1)]
        return {"run_id": run_id, "state": source.record["state"], "count": count, "steps": shown}

    def step(self, run_id: str, number: int) -> dict[str, Any]:
        """A step with its model calls and their prompts. The step after the last one is the answer. Raises
        `RunNotFoundError`, `StepNotFoundError`."""
        source = self._source(run_id)
        count, found = source.lines(number - 1, 1)
        calls = source.calls_of(number)
        shown: dict[str, Any] = {"run_id": run_id, "step": number, "count": count}
        if number <= count:
            [line], [step] = found, source.steps(number, number)
            shown |= {"replayed": number < source.first_made, **line, **step}
        elif number == count + 1 and (calls or "answer" in source.record or "error" in source.record):
            shown |= {name: source.record[name] for name in ("answer", "error") if name in source.record}
        else:
            raise no_step(run_id, number, count)
        made, left_out = self._calls(source, calls)
        return {**shown, "model_calls": made, "model_calls_left_out": left_out}

    def tokens(self, run_id: str, call: int | None, step: int | None, after: int, limit: int) -> dict[str, Any]:
        """The tokens of a model call, or of the first one of the agent in a step, with their log-probabilities: up to
        `limit` of them after the first `after` ones.

        Raises `RunNotFoundError`, `StepNotFoundError`; `ModelChangedError` if the run's model isn't resident;
        `InvalidRequestError` for a remote model, for pictures, and for calls that were not recorded.
        """
        source = self._source(run_id)
        if call is None:
            call = self._first_call(source, run_id, step or 1)
        found, prompt = _last(source.calls(call, call))
        if found is None or found.number != call:
            raise StepNotFoundError(f"Run {run_id} has no model call {call}. GET /runs/{run_id}/steps/1 shows some.")
        if found.kind == "messages":
            raise InvalidRequestError(
                f"Model call {call} of run {run_id} was made behind an API, which reports no log-probabilities here. "
                "Ask a resident model."
            )
        if found.is_cut:
            raise InvalidRequestError(f"The texts of run {run_id} were too long to record model call {call}.")
        if found.details["has_images"]:
            raise InvalidRequestError(
                f"The prompt of model call {call} has pictures, with which it is not read again."
            )
        with self._models.use(model_of(source.record, self._models)) as model:
            engine = model.own_engine
            assert engine is not None, "a remote model has no text calls"
            scored = engine.score(
                prompt, found.details["bos"], found.details["prompt_tokens"], found.tokens, after, limit
            )
            tokens = [
                {
                    **_token(engine, one.id),
                    "logprob": one.logprob,
                    "forced": place not in found.chosen,
                    "top": [{**_token(engine, id), "logprob": logprob} for id, logprob in one.top],
                }
                for place, one in enumerate(scored, after)
            ]
        return {
            "run_id": run_id,
            "call": call,
            "step": found.step,
            "model": model.name,
            "count": len(found.tokens),
            "tokens": tokens,
        }

    def _first_call(self, source: "_Source", run_id: str, step: int) -> int:
        numbers = source.calls_of(step)
        for one in source.calls(numbers[0], numbers[-1]) if numbers else ():
            if one.step == step and one.tool is None:
                return one.number
        count, _ = source.lines(0, 0)
        if not 1 <= step <= count + 1:
            raise no_step(run_id, step, count)
        raise StepNotFoundError(f"No model call of the agent is recorded for step {step} of run {run_id}.")

    def _calls(self, source: "_Source", numbers: Sequence[int]) -> tuple[list[dict[str, Any]], int]:
        """The model calls with these numbers, and how many of them are left out."""
        shown: list[dict[str, Any]] = []
        characters = 0
        for number in numbers[:MOST_CALLS_SHOWN]:
            call, prompt = _last(source.calls(number, number))
            assert call is not None, "it has just been found"
            characters += len(prompt) + len(call.written or "")
            if shown and characters > MOST_SHOWN:
                break
            shown.append(self._call(source, call, prompt))
        return shown, len(numbers) - len(shown)

    def _call(self, source: "_Source", call: TracedCall, prompt: str) -> dict[str, Any]:
        shown = {
            "call": call.number,
            "step": call.step,
            "tool": call.tool,
            "kind": call.kind,
            "prompt": None if call.is_cut else reveal(prompt),
            "written": None if call.written is None else reveal(call.written),
            "tokens": len(call.tokens),
            **{name: call.details[name] for name in ("seconds", "usage", "sampling")},
        }
        before = None if call.is_cut else source.call_before(call.number, call.tool)
        if before is None:
            return {**shown, "previous_call": None, "shared_prefix": 0, "diff": None}
        _, prompt_before = _last(source.calls(before, before))
        return {**shown, "previous_call": before, **compared(reveal(prompt_before), reveal(prompt))}

    def _source(self, run_id: str) -> "_Source":
        run = self._in_flight(run_id)
        if run is not None:
            live = _Live(run)
            if self._in_flight(run_id) is not None:  # else its trace may have been emptied before it was read
                return live
        return _Saved(self._store.head(run_id), self.store)

    def _in_flight(self, run_id: str) -> Run | None:
        return next((run for run in self._runs.in_flight() if run.id == run_id), None)


class _Source(Protocol):
    """A trace. See `TraceStore` for the methods."""

    record: dict[str, Any]

    @property
    def first_made(self) -> int:
        """The number of the first step that the run has made itself."""
        return int(self.record.get("forked_from", {"step": 1})["step"])

    def lines(self, after: int, limit: int) -> tuple[int, list[dict[str, Any]]]: ...

    def steps(self, first: int, last: int) -> list[dict[str, Any]]: ...

    def calls_of(self, step: int) -> list[int]: ...

    def call_before(self, number: int, tool: str | None) -> int | None: ...

    def calls(self, first: int, last: int) -> list[TracedCall]: ...


class _Saved(_Source):
    """Of a run in the database."""

    def __init__(self, record: dict[str, Any], store: TraceStore) -> None:
        self.record = record
        self._store = store
        self._run: str = record["run_id"]

    def lines(self, after: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        return self._store.lines(self._run, after, limit)

    def calls_of(self, step: int) -> list[int]:
        return self._store.calls_of(self._run, step)

    def call_before(self, number: int, tool: str | None) -> int | None:
        return self._store.call_before(self._run, number, tool)

    def calls(self, first: int, last: int) -> list[TracedCall]:
        return self._store.calls(self._run, first, last)

    def steps(self, first: int, last: int) -> list[dict[str, Any]]:
        return [saved.step for saved in self._store.steps(self._run, first, last)]


class _Live(_Source):
    """Of a run in flight, as it is now."""

    def __init__(self, run: Run) -> None:
        self.record = record_of(run, saved=run.ended.is_set())
        # In the order in which they come: a step after its calls.
        self._steps, self._ends = list(run.steps), list(run.step_ends)
        self._calls = run.trace.calls()

    def lines(self, after: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        found = lines(self._steps, self._ends, self._calls)[after : after + limit]
        return len(self._steps), [line.as_json() for line in found]

    def steps(self, first: int, last: int) -> list[dict[str, Any]]:
        return self._steps[first - 1 : last]

    def calls_of(self, step: int) -> list[int]:
        return [call.number for call in self._calls if call.step == step]

    def call_before(self, number: int, tool: str | None) -> int | None:
        return max((call.number for call in self._calls if call.number < number and call.tool == tool), default=None)

    def calls(self, first: int, last: int) -> list[TracedCall]:
        return self._calls[:last]


def compared(before: str, now: str) -> dict[str, Any]:
    """How a prompt differs from the one before: `shared_prefix` in characters, and a `diff` of the rest by lines, as
    `difflib.unified_diff` writes it; None if that is too long."""
    shared = shared_prefix(before, now)
    old, new = before[shared:].splitlines(keepends=True), now[shared:].splitlines(keepends=True)
    diff = None
    if max(len(before), len(now)) - shared <= LONGEST_COMPARED and max(len(old), len(new)) <= MOST_LINES_COMPARED:
        diff = list(difflib.unified_diff(old, new, n=1))[2:]
    return {"shared_prefix": shared, "diff": diff}


def _last(calls: Sequence[TracedCall]) -> tuple[TracedCall | None, str]:
    """The last call with its prompt; None if there is none."""
    found = deque(with_prompts(calls), maxlen=1)
    return found[0] if found else (None, "")


def _token(engine: "GuidedEngine", token: int) -> dict[str, Any]:
    text, data = engine.token_text(token)
    shown: dict[str, Any] = {"id": token, "text": text}
    return shown if data is None else {**shown, "bytes": data.hex()}


def no_step(run_id: str, number: int, count: int) -> StepNotFoundError:
    """The error for a step that a run with so many steps has not."""
    return StepNotFoundError(
        f"Run {run_id} has no step {number}: it has {count}, from 1 on, and the answer after them."
    )
