"""Questions: asked, answered, saved, shown, and asked again.

The way of a question begins here. `server/host.py` makes what this needs.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from constants import Settings
from server import VERSION
from server.errors import (
    AgentNotFoundError,
    GenerationNotFoundError,
    InvalidRequestError,
    ReloadFailedError,
    RunCancelledError,
    RunNotFoundError,
    StoreError,
    TooLargeError,
)
from server.images.pictures import Pictures
from server.models.resident import ResidentModel, ResidentModels
from server.quotas.quotas import Quotas
from server.reload import MAIN, CodeLoader, Generation, Workspace, Workspaces
from server.runs.record import AgentResult, record_of, summary_of
from server.runs.run import Run
from server.runs.run_span import run_span
from server.runs.runs import Runs
from server.runs.same_model import model_of
from server.runs.trace import lines, with_replayed
from server.sdk import context
from server.sessions import NoteTaker, Sessions
from server.sessions.feed import SessionFeeds
from server.store import GenerationStore, RunStore
from server.store.jobs import reported
from server.store.runs import RunFilter
from server.store.usage import Used, adding

if TYPE_CHECKING:
    from server.engine import GuidedEngine

Read = TypeVar("Read")


class Questions:
    """Answers questions with the agents of a workspace, or with the model alone. Safe for any number of threads."""

    def __init__(
        self,
        settings: Settings,
        runs: Runs,
        models: ResidentModels,
        workspaces: Workspaces,
        code_loader: CodeLoader,
        generations: GenerationStore,
        sessions: Sessions,
        store: RunStore,
        note_taker: NoteTaker,
        feeds: SessionFeeds,
        pictures: Pictures,
        quotas: Quotas,
    ) -> None:
        self._settings = settings
        self._runs = runs
        self._models = models
        self._workspaces = workspaces
        self._code_loader = code_loader
        self._generations = generations
        self._sessions = sessions
        self._store = store
        self._note_taker = note_taker
        self._feeds = feeds
        self._pictures = pictures
        self._quotas = quotas

    # Answering

    def start(self, run: Run, generation: str | None = None, model: ResidentModel | str | None = None) -> None:
        """Start `run`: the live code answers its question on a thread of its own, and its record is saved.
        `run.events` report its progress; in the end it has an `answer` or an `error`.

        `generation`, a hash or the beginning of one, replaces the live code, `model` the default model. Raises
        `WorkspaceNotFoundError`, `QuotaReachedError`, `QueueFullError`, `ShuttingDownError`. Before it waits for
        anything, a run may end with what `ResidentModels.use` raises, `GenerationNotFoundError`,
        `AgentNotFoundError`, `ToolsNotLoadedError` or `ReloadFailedError`; later with `PromptTooLongError`,
        `OutOfMemoryError`, or the reason that stopped it."""
        space = self._workspaces.get(run.workspace)
        most = self._admitted(run)
        with self._sessions.joined(run):
            self._runs.begin(run, partial(self._answer, run, space, generation, model), self._save, most)

    def _admitted(self, run: Run) -> int | None:
        """The maximum number of runs of the run's owner. Raises `QuotaReachedError` if there are no tokens left."""
        limits = self._quotas.limits_of(run.owner)
        self._quotas.check_tokens(run.owner, limits)
        return limits.runs_at_once

    def _answer(
        self, run: Run, space: Workspace, generation: str | None, wanted: ResidentModel | str | None
    ) -> AgentResult:
        """The agent's result. Called on the run's own thread."""
        with ExitStack() as held:
            held.enter_context(run_span(run))
            # Tools may call the model while they are built.
            with self._models.use(wanted):
                pinned = held.enter_context(self._code(run, space, generation))
            run.generation = pinned.hash
            if run.agent not in pinned.agents:
                raise AgentNotFoundError(
                    f"There is no agent {run.agent!r} in the workspace {run.workspace!r}. "
                    f"There are: {', '.join(sorted(pinned.agents))}."
                )
            self._sessions.wait_for(run)
            if run.wake is not None:
                run.question = run.wake()
            self._show_images(run, wanted)
            model = held.enter_context(self._turn(run, wanted))
            settings = self._settings
            turns = self._sessions.exchanges(run)
            return pinned.answer(run, model, turns, settings.TOOL_TIMEOUT, settings.TOOLS_SHOWN)

    def start_completion(
        self, run: Run, work: Callable[["GuidedEngine"], AgentResult], model: str | None = None
    ) -> None:
        """Start `run` like `start`, with `work` instead of an agent. It uses no code of the workspace.

        Raises `WorkspaceNotFoundError`, `QuotaReachedError`, `QueueFullError`, `ShuttingDownError`. The run may end
        with what `ResidentModels.use` raises, `InvalidRequestError` for a remote model, and with what `work` raises.
        """
        self._workspaces.get(run.workspace)
        self._runs.begin(run, partial(self._complete, run, work, model), self._save, self._admitted(run))

    def read(self, run: Run, work: Callable[["GuidedEngine"], Read], model: str | None = None) -> Read:
        """What `work` returns. It may read with the model's tokenizer and the run's pictures, without a turn; `run`
        never starts. Raises what a run of `start_completion` may end with, and `WorkspaceNotFoundError`."""
        self._workspaces.get(run.workspace)
        with self._models.use(model) as resident:
            engine = _engine(resident)
            self._show_images(run, model)
            with context.scope(images=run.images):
                return work(engine)

    def _complete(self, run: Run, work: Callable[["GuidedEngine"], AgentResult], wanted: str | None) -> AgentResult:
        with run_span(run, invokes_agent=False):
            with self._models.use(wanted) as model:
                _engine(model)  # fail before waiting in the queue
            self._show_images(run, wanted)
            with self._turn(run, wanted) as model:
                return work(_engine(model))

    @contextmanager
    def pinned(
        self, workspace: str, generation: str | None = None, model: str | None = None
    ) -> Iterator[tuple[Generation, str]]:
        """The code, and the name of the model, that would answer a question now. The code stays loaded until the
        block ends. Raises what a run of `start` may end with before it waits for its turn, and
        `WorkspaceNotFoundError`."""
        run, space = Run("", workspace, max_steps=0), self._workspaces.get(workspace)
        with ExitStack() as held:
            with self._models.use(model) as resident:
                name, code = resident.name, held.enter_context(self._code(run, space, generation))
            yield code, name

    @contextmanager
    def _code(self, run: Run, space: Workspace, generation: str | None) -> Iterator[Generation]:
        """The generation of a run, pinned."""
        if generation is not None:
            # Set before it is loaded, so that it can't be deleted meanwhile.
            run.generation = wanted = self._generations.find(generation)
            with space.pin_earlier(wanted, run.check) as pinned:
                yield pinned
            return
        if self._settings.RELOAD != "explicit":
            self._catch_up(space, run)
        if space.name != MAIN:
            # A person's workspace is loaded on first use; `main` at the start or by a request.
            if space.live is None:
                self._code_loader.catch_up(space, run.check)
            space.build_tools(run.check)
        with space.pin() as pinned:
            yield pinned

    def _catch_up(self, space: Workspace, run: Run) -> None:
        """Load changed files. If that fails, the live code answers, and the answer says so."""
        try:
            self._code_loader.catch_up(space, run.check)
        except (ReloadFailedError, StoreError, TooLargeError) as refusal:
            if space.live is None:
                raise
            run.not_reloaded = {"message": refusal.message, "errors": refusal.details.get("errors", [])}

    def _show_images(self, run: Run, wanted: ResidentModel | str | None) -> None:
        """Make the run's pictures ready for its model. Before its turn: OCR takes seconds, and needs no model."""
        if not run.images:
            return
        with self._models.use(wanted) as model:
            engine = model.engine
            assert engine is not None, "it is in use"
            cut = engine.tokenizer.cut if engine.guided else engine.cut
            for shown in self._pictures.shown(list(run.images.values()), engine, cut, run.check):
                run.add_image(shown)

    @contextmanager
    def _turn(self, run: Run, wanted: ResidentModel | str | None) -> Iterator[ResidentModel]:
        """The model, after `run` has got its turn. Within this block the run is the context's."""
        with self._runs.queue.take(run) as run.turn, self._models.use(wanted) as model:
            run.start(model.name, self._provenance(run, model))
            with context.scope(
                cancelled=run.cancelled,
                on_text=run.on_text,
                on_model_call=run.on_model_call,
                beginning=None if run.fork is None else run.fork.take_beginning,
                sampling={} if run.fork is None else run.fork.sampling,
                images=run.images,
            ):
                yield model

    def _provenance(self, run: Run, model: ResidentModel) -> dict[str, Any]:
        return {
            "hearth": VERSION,
            "agent": run.agent,
            "max_steps": run.max_steps,
            "max_tokens": run.max_tokens,
            "tool_timeout": self._settings.TOOL_TIMEOUT,
            "model": model.identity(),
        }

    def _save(self, run: Run) -> None:
        """Save the record of a run that has ended, and its exchange. Called before its answer is sent."""
        try:
            record = record_of(run)
            exchange = self._sessions.adding(run, record)
            changes = [adding(Used(run.owner, run.key, run.model or "", run.tokens_used, run.written, runs=1))]
            if exchange is not None:
                changes.append(exchange)
            if run.answer is not None and run.reported_jobs:
                changes.append(reported(run.reported_jobs))
            calls = run.trace.calls()
            step_lines = lines(record.get("steps", []), run.step_ends, calls)
            if run.fork is not None:
                step_lines = with_replayed(step_lines, run.fork.replayed)
            self._store.add(record, run.owner, changes, step_lines, calls)
            if exchange is not None:
                self._feeds.on_exchange(run)
        finally:
            self._sessions.leave(run)
        if exchange is not None:
            self._note_taker.add(record)

    # Showing and stopping

    def records(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        """Summaries of the last runs: runs in flight, then the latest first. Raises `RunNotFoundError`."""
        flying = [run for run in reversed(self._runs.in_flight()) if wanted.shows(run.owner)]
        records = [record_of(run, saved=run.ended.is_set()) for run in flying]
        ids = [record["run_id"] for record in records]
        if wanted.before in ids:
            records = records[ids.index(wanted.before) + 1 :]
            wanted = replace(wanted, before=None)
        summaries = {record["run_id"]: summary_of(record) for record in records if wanted.matches(record)}
        # A run that has just ended may be among both.
        ended = [record for record in self._store.latest(wanted, limit) if record["run_id"] not in summaries]
        return [*summaries.values(), *ended][:limit]

    def record(self, run_id: str, steps: bool = True) -> dict[str, Any]:
        """The record of a run, in flight or ended; perhaps without its steps. Raises `RunNotFoundError`."""
        run = self._in_flight(run_id)
        if run is None:
            record = self._store.get(run_id) if steps else self._store.head(run_id)
        else:
            record = record_of(run, saved=run.ended.is_set())
        return record if steps else {**record, "steps": []}

    def cancel(self, run_id: str) -> None:
        """Stop a run in flight: at the model's next token, or at once while it waits. Raises `RunNotFoundError` if it
        isn't in flight."""
        run = self._in_flight(run_id)
        if run is None or not run.stop(
            RunCancelledError("The run was cancelled before it had an answer. Ask again.")
        ):
            raise RunNotFoundError(f"No run {run_id!r} is in flight; it has ended, or never was.")

    def _in_flight(self, run_id: str) -> Run | None:
        return next((run for run in self._runs.in_flight() if run.id == run_id), None)

    # Repeating

    def ask_again(
        self, run_id: str, owner_in: Callable[[str], str] = lambda workspace: workspace, key: str = ""
    ) -> tuple[Run, dict[str, Any]]:
        """Repeat an earlier run with the same code and the same model; if it has no answer, with a model of the same
        name, if it had one. `owner_in`: whose the new run is, by its workspace. `key`: the API key that asks. Returns
        the new run, which has started, and the old record.

        Raises `RunNotFoundError`, `ModelChangedError` if that model isn't resident, `GenerationNotFoundError` if it
        ended before it had any code, `ImageNotFoundError`, and what `start` raises.
        """
        record = self._store.get(run_id)
        if (fork := record.get("forked_from")) is not None:
            raise InvalidRequestError(
                f"Run {run_id} continues run {fork['run_id']} at step {fork['step']}. Fork that run once more "
                "instead."
            )
        if record["generation"] is None:
            raise GenerationNotFoundError(
                f"Run {run_id} was answered without any code, or ended before any was chosen for it. Ask it anew."
            )
        workspace = record["workspace"] if record["workspace"] in self._workspaces.names() else MAIN
        run = self.as_asked(record, workspace, owner_in(workspace))
        run.key = key
        # Of a run without an answer, the name is enough.
        model = model_of(record, self._models) if "answer" in record and "provenance" in record else record["model"]
        self.start(run, record["generation"], model)
        return run, record

    def as_asked(self, record: Mapping[str, Any], workspace: str, owner: str) -> Run:
        """A new run like an earlier one, with the history of that time, and without later exchanges of its session.
        Raises `ImageNotFoundError`."""
        run = Run(record["question"], workspace, record["max_steps"], record["agent"], owner=owner)
        run.history = [{"role": one["role"], "content": one["content"]} for one in record.get("history", ())]
        run.max_tokens, run.timeout = self._settings.MAX_TOKENS, self._settings.RUN_TIMEOUT
        run.add_images(
            self._pictures.store.find(record["workspace"], record.get("session_id"), one["sha256"], one["name"])
            for one in record.get("images", ())
        )
        return run


def _engine(model: ResidentModel) -> "GuidedEngine":
    if model.own_engine is None:
        raise InvalidRequestError(
            f"{model.name} is behind an API itself: ask it there, or ask one of the agents here, like hearth/react."
        )
    return model.own_engine
