"""Forking a run: its first steps are taken from the record, one thing is changed, and the agent continues."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.errors import GenerationNotFoundError, InvalidRequestError, RunNotEndedError, RunNotFoundError
from server.models.resident import ResidentModel, ResidentModels
from server.reload import MAIN, Workspaces
from server.runs.fork import Fork
from server.runs.questions import Questions
from server.runs.run import Run
from server.runs.runs import Runs
from server.runs.same_model import model_of
from server.runs.trace import TracedCall, with_prompts
from server.runs.traces import no_step
from server.store import RunStore
from server.store.traces import SavedStep, TraceStore

LIVE = "live"
"""Instead of a generation: the workspace's live one."""


@dataclass(frozen=True)
class ContinueFrom:
    """Where the agent's first model call is cut off: before the token with that index in the model call with that
    number. `text`: what stands there instead."""

    call: int
    token: int
    text: str = ""


@dataclass(frozen=True)
class Changes:
    """What is different in a fork; None: as in the run. `observation`, `thought` and `input` are those of the last
    step that is replayed, whose tool is called again with `rerun_tool`. `generation`: `LIVE`, or a hash."""

    observation: str | None = None
    thought: str | None = None
    input: dict[str, Any] | None = None
    rerun_tool: bool = False
    question: str | None = None
    history: list[dict[str, str]] | None = None
    agent: str | None = None
    workspace: str | None = None
    generation: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    continue_from: ContinueFrom | None = None

    @property
    def names(self) -> list[str]:
        """The names of what is changed."""
        return [name for name, value in vars(self).items() if value not in (None, False, {})]


class Forks:
    """Forks runs. Safe for any number of threads."""

    def __init__(
        self,
        questions: Questions,
        runs: Runs,
        store: RunStore,
        traces: TraceStore,
        models: ResidentModels,
        workspaces: Workspaces,
    ) -> None:
        self._questions = questions
        self._runs = runs
        self._store = store
        self._traces = traces
        self._models = models
        self._workspaces = workspaces

    def start(
        self,
        run_id: str,
        step: int | None,
        changes: Changes,
        owner_in: Callable[[str], str] = lambda workspace: workspace,
        key: str = "",
    ) -> Run:
        """Start a run that continues an ended one at `step`; None: at the step of `changes.continue_from`.
        `owner_in`: whose the new run is, by its workspace. `key`: the API key that asks.

        Raises `RunNotFoundError`, `RunNotEndedError`, `StepNotFoundError`, `GenerationNotFoundError` if it was
        answered without any code, `ModelChangedError` if its model isn't resident, `InvalidRequestError` for changes
        that don't fit, `ImageNotFoundError`, and what `Questions.start` raises. The run ends with
        `InvalidRequestError` if its agent can't replay steps, or if a grammar does not allow a text.
        """
        record = self._record(run_id)
        call = None
        if changes.continue_from is not None:
            call = self._call(run_id, changes.continue_from)
            step = call[0].step if step is None else step
        if step is None:
            raise _refused("step", "Say at which step the run is to continue")
        count, _ = self._traces.lines(run_id, 0, 0)
        if step > count + 1:
            raise no_step(run_id, step, count)
        replayed = self._replayed(run_id, step, changes)
        prompt, first = self._prompt(run_id, step)
        model: ResidentModel | str = record["model"]
        if "provenance" in record:
            model = model_of(record, self._models)
        beginning = ""
        if call is not None:
            if call[0].number != first:
                raise _refused("continue_from", f"The first model call of step {step} has the number {first}")
            beginning = self._beginning(call, changes.continue_from, model)
        if changes.sampling and isinstance(model, ResidentModel) and model.own_engine is None:
            raise _refused("sampling", f"{model.name} is behind an API, and takes no other sampling parameters here")
        run = self._run(record, changes, owner_in)
        run.key = key
        run.fork = Fork(run_id, step, replayed, changes.names, beginning, dict(changes.sampling), prompt)
        generation = changes.generation or record["generation"]
        self._questions.start(run, None if generation == LIVE else generation, model)
        return run

    def _record(self, run_id: str) -> dict[str, Any]:
        try:
            record = self._store.head(run_id)
        except RunNotFoundError:
            if any(run.id == run_id for run in self._runs.in_flight()):
                raise RunNotEndedError(f"Run {run_id} has not ended. Cancel it, or wait for its end.") from None
            raise
        if record["generation"] is None:
            raise GenerationNotFoundError(
                f"Run {run_id} was answered without any code, or ended before any was chosen for it. Ask it anew."
            )
        if record["model"] is None:
            raise _refused("run_id", f"Run {run_id} ended before it had a model. Ask it anew")
        return record

    def _run(self, record: Mapping[str, Any], changes: Changes, owner_in: Callable[[str], str]) -> Run:
        """The new run, which has not started."""
        workspace = changes.workspace
        if workspace is None:
            workspace = record["workspace"] if record["workspace"] in self._workspaces.names() else MAIN
        run = self._questions.as_asked(record, workspace, owner_in(workspace))
        run.question = run.question if changes.question is None else changes.question
        run.history = run.history if changes.history is None else changes.history
        run.agent = changes.agent or run.agent
        return run

    def _replayed(self, run_id: str, step: int, changes: Changes) -> list[dict[str, Any]]:
        """The steps before `step`, as `ReplayedStep` has them, with the changes of the last one."""
        edits = {"observation": changes.observation, "thought": changes.thought, "input": changes.input}
        edited = [name for name, value in edits.items() if value is not None]
        edited += ["rerun_tool"] if changes.rerun_tool else []
        if step == 1:
            if edited:
                raise _refused(edited[0], "It is about the step before, and there is none before step 1")
            return []
        if changes.rerun_tool and changes.observation is not None:
            raise _refused("observation", "Give either a result, or rerun_tool, which gets one")
        steps = [_replayed(saved) for saved in self._traces.steps(run_id, 1, step - 1)]
        last = steps[-1]
        if changes.thought is not None or changes.input is not None:
            last["written"] = ""
            last["thought"] = last["thought"] if changes.thought is None else changes.thought
            last["input"] = last["input"] if changes.input is None else changes.input
        if changes.observation is not None:
            last |= {"observation": changes.observation, "error": None, "traceback": None}
        last["runs_again"] = changes.rerun_tool
        for number, one in enumerate(steps, 1):
            if one["written"] is None:
                raise _refused(
                    "step",
                    f"Step {number} of run {run_id} can't be replayed: the record does not have the one text by "
                    f"which the model made it. Fork at step {number} or before",
                )
        return steps

    def _prompt(self, run_id: str, step: int) -> tuple[str | None, int | None]:
        """The prompt of the agent's first model call in a step, and its number; None if there is none."""
        numbers = self._traces.calls_of(run_id, step)
        if numbers:
            for call, prompt in with_prompts(self._traces.calls(run_id, numbers[0], numbers[-1])):
                if call.step == step and call.tool is None:
                    return None if call.is_cut else prompt, call.number
        return None, None

    def _call(self, run_id: str, wanted: ContinueFrom) -> tuple[TracedCall, str]:
        for found, prompt in with_prompts(self._traces.calls(run_id, wanted.call, wanted.call)):
            if found.number == wanted.call:
                if not found.tokens:
                    raise _refused("continue_from", f"The tokens of model call {wanted.call} are not recorded")
                if wanted.token > len(found.tokens):
                    raise _refused("continue_from", f"Model call {wanted.call} has {len(found.tokens)} tokens")
                return found, prompt
        raise _refused("continue_from", f"Run {run_id} has no model call {wanted.call}")

    def _beginning(
        self, call: tuple[TracedCall, str], wanted: ContinueFrom | None, model: ResidentModel | str
    ) -> str:
        assert wanted is not None, "there is a call"
        found, prompt = call
        with self._models.use(model) as used:
            engine = used.own_engine
            assert engine is not None, "a remote model has no tokens"
            kept = found.tokens[: wanted.token]
            return engine.beginning(prompt, found.details["bos"], found.details["prompt_tokens"], kept) + wanted.text


def _replayed(saved: SavedStep) -> dict[str, Any]:
    step = saved.step
    names = ("thought", "tool", "input", "observation")
    optional = {"error": step.get("error"), "traceback": step.get("traceback")}
    return {**{name: step[name] for name in names}, **optional, "written": saved.written, "runs_again": False}


def _refused(field_name: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The request is not valid: {field_name}: {problem}.",
        details=[{"type": "value_error", "loc": [field_name], "msg": problem}],
    )
