"""The host, the one mutable object: the resident models, the workspaces, the runs, and the stores."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from constants import MAY_HOLD_SECRETS, PREFIX, Settings
from server import VERSION
from server.engine import text_stream
from server.errors import (
    AgentNotFoundError,
    GenerationInUseError,
    GenerationNotFoundError,
    HearthError,
    InternalError,
    InvalidRequestError,
    ModelChangedError,
    ReloadFailedError,
    RunCancelledError,
    RunNotFoundError,
    StoreError,
    TooLargeError,
)
from server.models.background import BackgroundModel
from server.models.loading import background_model, by_recipe, check_options, remote_model
from server.models.preload import import_engine
from server.models.resident import Build, ModelRequest, Report, ResidentModel, ResidentModels
from server.providers import PROVIDERS, is_remote
from server.reload import (
    MAIN,
    CodeFolders,
    CodeRunner,
    Generation,
    ReloadReport,
    Snapshot,
    Workspace,
    Workspaces,
    watched,
)
from server.runs import AgentResult, Run, Runs, record_of
from server.sdk import cancellation
from server.sessions import NoteTaker, Sessions
from server.store import Database, GenerationStore, RunStore, SessionStore
from server.workers.model_calls import ModelCalls
from server.workers.pool import Workers

if TYPE_CHECKING:
    from server.engine import GuidedEngine

log = logging.getLogger(__name__)

T = TypeVar("T")

SECRETS = frozenset(
    [PREFIX + name for name in MAY_HOLD_SECRETS] + [key for provider in PROVIDERS.values() for key in provider.keys]
)
"""Environment variables that people's code does not get."""
NOTE_SECONDS = 600.0
"""Time limit for a session's note, waiting included."""


class Host:
    """The state of the process between requests. Safe for any number of threads; idle until the first call."""

    def __init__(self, settings: Settings) -> None:
        """Raises `StoreError` when the data folder or the database can't be used."""
        self.settings = settings
        self.models = ResidentModels()
        self.runs = Runs(settings.MAX_RUNS, settings.MAX_CONCURRENT_RUNS, self._save_record)
        self.database = Database(settings.DATA_DIR, settings.DATABASE_URL)
        self.generations = GenerationStore(self.database)
        self.records = RunStore(self.database)
        self.session_store = SessionStore(self.database)
        self.sessions = Sessions(self.session_store)
        self.background = BackgroundModel(
            partial(background_model, settings) if settings.BACKGROUND_MODEL else None, self.models, self.runs.queue
        )
        self.workers = Workers(
            ModelCalls(self.models.engine, self.background.complete),
            niceness=settings.WORKER_NICENESS,
            memory_bytes=None if settings.WORKER_MEMORY_GB is None else int(settings.WORKER_MEMORY_GB * 2**30),
            idle_seconds=settings.WORKER_IDLE,
            lasting=[MAIN],
            hidden=SECRETS,
            method=None if settings.WORKER_START == "auto" else settings.WORKER_START,
        )
        self.code_folders = CodeFolders(settings.DATA_DIR / "generations")
        self.workspaces = Workspaces(
            Path(__file__).parent,
            settings.WORKSPACES_DIR or settings.DATA_DIR / "workspaces",
            CodeRunner(
                self.workers,
                self.code_folders,
                self.generations,
                settings.DATA_DIR / "kept",
                settings.RELOAD_TIMEOUT,
            ),
        )
        self.note_taker = NoteTaker(self.session_store, self._write_note)
        self._closing = threading.Event()
        self._had_model = False
        """Whether a model was ready once. Only then tools are built, because they may call the model."""
        self.autoload_error: HearthError | None = None
        """Why loading at the start failed; None if it did not. Reported while `main` has no tools."""

    def load_model(
        self,
        model: str | None = None,
        load_in_8bit: bool | None = None,
        device_map: str | None = None,
        dtype: str | None = None,
        quantizer: str | None = None,
        replace: bool = True,
        base_url: str | None = None,
        report: Report = lambda *_: None,
    ) -> ResidentModel:
        """Load a model in place of the default or, without `replace`, beside the others, and wait until it is ready.
        Parameters that are None come from the settings. `report` gets its progress.

        A local model is built by the live recipe of `main`; a remote one is at `base_url` or at its provider's own
        address. Raises what `ResidentModels.load` raises, `InvalidRequestError` for options that don't apply, and
        `ReloadFailedError` if no code is live yet and the code on disk can't be loaded.
        """
        name = model or self.settings.MODEL
        check_options(name, base_url, (load_in_8bit, device_map, dtype, quantizer))
        if is_remote(name):
            return self._load(*remote_model(self.settings, name, base_url), report, replace)
        import_engine()
        main = self.workspaces.main
        if main.live is None:
            self._reload(main)
        with main.pin(with_tools=False) as live:
            wanted = by_recipe(self.settings, live, name, load_in_8bit, device_map, dtype, quantizer)
            return self._load(*wanted, report, replace)

    def _load(self, request: ModelRequest, build: Build, report: Report, replace: bool) -> ResidentModel:
        model = self.models.load(request, build, report, replace)
        self._had_model = True
        return model

    def load_tools(self, workspace: str = MAIN) -> None:
        """Build the tools of the workspace's live code, if they aren't built.

        Raises `ModelNotLoadedError` without a model, and `ReloadFailedError`.
        """
        space = self.workspaces.get(workspace)
        with self.models.use():
            if space.live is None:
                self._reload(space)
            space.build_tools()

    def reload(self, workspace: str = MAIN, dry_run: bool = False, generation: str | None = None) -> ReloadReport:
        """Load the code on disk, or with `dry_run` only try it.

        `generation`, a hash or the beginning of one, makes an earlier generation live instead; the files don't
        change. If broken code has stopped the loading at the start, that continues now. Raises `ReloadFailedError`,
        `WorkspaceNotFoundError`, `GenerationNotFoundError`, `StoreError`.
        """
        space = self.workspaces.get(workspace)
        with self._resuming_autoload():
            return self._reload(space, dry_run, self._saved(generation) if generation is not None else None)

    def _reload(self, space: Workspace, dry_run: bool = False, snapshot: Snapshot | None = None) -> ReloadReport:
        return space.reload(self._had_model, dry_run, snapshot)

    def _saved(self, generation: str) -> Snapshot:
        return Snapshot(self.generations.files(generation))

    def delete_generation(self, generation: str) -> str:
        """Delete a generation, by its hash or the beginning of one. Returns its hash.

        Raises `GenerationNotFoundError`, and `GenerationInUseError` if it is live or a run names it.
        """
        found = self.generations.find(generation)
        users = self.workspaces.using(found)
        if users:
            raise GenerationInUseError(f"Generation {found} is live in {', '.join(users)}. It can't be deleted.")
        if any(run.generation == found for run in self.runs.in_flight()):
            raise GenerationInUseError(f"A run is using generation {found}. It can't be deleted.")
        self.generations.delete(found)
        self.code_folders.remove(found)
        return found

    def ask(self, run: Run, generation: str | None = None, model: ResidentModel | str | None = None) -> None:
        """Start `run`: the live code answers its question on a thread of its own, and its record is saved.
        `run.events` report its progress; in the end it has an `answer` or an `error`.

        `generation`, a hash or the beginning of one, replaces the live code, `model` the default model. Raises
        `WorkspaceNotFoundError`, `QueueFullError`, `ShuttingDownError`. Before it waits for anything, a run may end
        with what `ResidentModels.use` raises, `GenerationNotFoundError`, `AgentNotFoundError`, `ToolsNotLoadedError`
        or `ReloadFailedError`; later with `PromptTooLongError`, `OutOfMemoryError`, or the reason that stopped it.
        """
        space = self.workspaces.get(run.workspace)
        with self.sessions.joined(run):
            self.runs.begin(run, lambda: self._answer(run, space, generation, model))

    def complete(self, run: Run, work: Callable[["GuidedEngine"], AgentResult], model: str | None = None) -> None:
        """Start `run` like `ask`, with `work` instead of an agent. It uses no code of the workspace.

        Raises `WorkspaceNotFoundError`, `QueueFullError`, `ShuttingDownError`. The run may end with what
        `ResidentModels.use` raises, `InvalidRequestError` for a remote model, and with what `work` raises.
        """
        self.workspaces.get(run.workspace)

        def find_answer() -> AgentResult:
            with self.models.use(model) as used:
                _engine(used)  # fail before waiting in the queue
            return self._in_turn(run, lambda used: work(_engine(used)), model)

        self.runs.begin(run, find_answer)

    def _answer(
        self, run: Run, space: Workspace, generation: str | None, wanted: ResidentModel | str | None
    ) -> AgentResult:
        """The agent's result. Called in the run's own thread."""
        with ExitStack() as held:
            # Tools may call the model while they are built.
            with self.models.use(wanted):
                pinned = held.enter_context(self._code(run, space, generation))
            run.generation = pinned.hash
            if run.agent not in pinned.agents:
                raise AgentNotFoundError(
                    f"There is no agent {run.agent!r} in the workspace {run.workspace!r}. "
                    f"There are: {', '.join(sorted(pinned.agents))}."
                )
            self.sessions.wait_for(run)
            return self._in_turn(
                run,
                lambda model: pinned.answer(run, model, self.sessions.exchanges(run), self.settings.TOOL_TIMEOUT),
                wanted,
            )

    def _in_turn(self, run: Run, work: Callable[[ResidentModel], T], wanted: ResidentModel | str | None = None) -> T:
        """The result of `work` with the model, after `run` has got its turn, and within its limits."""
        with self.runs.queue.take(run), self.models.use(wanted) as model:
            run.start(model.name, self._provenance(run, model))
            with cancellation.scope(run.cancelled), text_stream.scope(run.on_text):
                return work(model)

    def _write_note(self, record: Mapping[str, Any]) -> Any:
        """The note of a record, by the live code of its workspace and the background model."""
        with self.workspaces.get(record["workspace"]).pin(with_tools=False) as code:
            return code.write_note(record, NOTE_SECONDS)

    @contextmanager
    def _code(self, run: Run, space: Workspace, generation: str | None) -> Iterator[Generation]:
        """The generation of a run, pinned."""
        if generation is not None:
            # Set before it is loaded, so that it can't be deleted meanwhile.
            run.generation = wanted = self.generations.find(generation)
            with space.pin_earlier(wanted, run.check) as pinned:
                yield pinned
            return
        if self.settings.RELOAD != "explicit":
            self._catch_up(space, run)
        if space.name != MAIN:
            # A person's workspace is loaded on first use; `main` at the start or by a request.
            if space.live is None:
                space.catch_up(self._had_model, run.check)
            space.build_tools(run.check)
        with space.pin() as pinned:
            yield pinned

    def _catch_up(self, space: Workspace, run: Run) -> None:
        """Load changed files. If that fails, the live code answers, and the answer says so."""
        try:
            space.catch_up(self._had_model, run.check)
        except (ReloadFailedError, StoreError, TooLargeError) as refusal:
            if space.live is None:
                raise
            run.not_reloaded = {"message": refusal.message, "errors": refusal.details.get("errors", [])}

    def _provenance(self, run: Run, model: ResidentModel) -> dict[str, Any]:
        return {
            "hearth": VERSION,
            "agent": run.agent,
            "max_steps": run.max_steps,
            "max_tokens": run.max_tokens,
            "tool_timeout": self.settings.TOOL_TIMEOUT,
            "model": model.identity(),
        }

    def _save_record(self, run: Run) -> None:
        try:
            record = record_of(run)
            exchange = self.sessions.adding(run, record)
            self.records.add(record, exchange)
        finally:
            self.sessions.leave(run)
        if exchange is not None:
            self.note_taker.add(record)

    def runs_of(self, workspace: str | None, limit: int) -> list[dict[str, Any]]:
        """The records of the last runs, of one workspace or of all: runs in flight, then the latest first."""
        flying = {
            run.id: record_of(run, saved=run.ended.is_set())
            for run in reversed(self.runs.in_flight())
            if workspace in (None, run.workspace)
        }
        # A run that has just ended may be among both.
        ended = [record for record in self.records.latest(workspace, limit) if record["run_id"] not in flying]
        return [*flying.values(), *ended][:limit]

    def run_record(self, run_id: str) -> dict[str, Any]:
        """The record of a run, in flight or ended. Raises `RunNotFoundError`."""
        flying = next((run for run in self.runs.in_flight() if run.id == run_id), None)
        return self.records.get(run_id) if flying is None else record_of(flying, saved=flying.ended.is_set())

    def cancel(self, run_id: str) -> None:
        """Stop a run in flight: at the model's next token, or at once while it waits. Raises `RunNotFoundError` if it
        isn't in flight."""
        run = next((run for run in self.runs.in_flight() if run.id == run_id), None)
        if run is None or not run.stop(
            RunCancelledError("The run was cancelled before it had an answer. Ask again.")
        ):
            raise RunNotFoundError(f"No run {run_id!r} is in flight; it has ended, or never was.")

    def replay(self, run_id: str) -> tuple[Run, dict[str, Any]]:
        """Repeat an earlier run with the same code and the same model; if it has no answer, with a model of the same
        name, if it had one. Returns the new run, which has started, and the old record.

        Raises `RunNotFoundError`, `ModelChangedError` if that model isn't resident, `GenerationNotFoundError` if it
        ended before it had any code, and what `ask` raises.
        """
        record = self.records.get(run_id)
        if record["generation"] is None:
            raise GenerationNotFoundError(
                f"Run {run_id} was answered without any code, or ended before any was chosen for it. Ask it anew."
            )
        model: ResidentModel | str | None = record["model"]
        if "provenance" in record:
            was, there = record["provenance"]["model"], self.models.all
            model = next((one for one in there if one.identity() == was), None)
            if model is None:
                resident = "; ".join(_shown(one.identity()) for one in there) or "none"
                raise ModelChangedError(
                    f"Run {run_id} was answered with {_shown(was)}. Resident is: {resident}. Load that model first."
                )
        workspace = record["workspace"] if record["workspace"] in self.workspaces.names() else MAIN
        run = Run(record["question"], workspace, record["max_steps"], record["agent"])
        # The history of that time, without later exchanges of its session.
        run.history = [{"role": one["role"], "content": one["content"]} for one in record.get("history", ())]
        run.max_tokens, run.timeout = self.settings.MAX_TOKENS, self.settings.RUN_TIMEOUT
        self.ask(run, record["generation"], model)
        return run, record

    def autoload(self) -> None:
        """Load code, model and tools, in this order. A failure is logged and reported, and the server continues. If
        the code fails, the rest is loaded as soon as there is code."""
        self.models.expected = self.settings.MODEL
        self.autoload_error = None
        try:
            # In parallel with the template, which imports the packages of workers.
            threading.Thread(target=import_engine, name="imports", daemon=True).start()
            if self.workspaces.main.live is None:
                self._reload(self.workspaces.main)
            self.load_model()
            self.load_tools()
        except HearthError as error:
            log.error("loading at the start failed: %s", error.message)
            self.autoload_error = error
        except Exception:  # boundary: the thread's end
            log.exception("loading at the start failed")
            self.autoload_error = InternalError("Loading at the start failed. The server's log says why.")
        finally:
            self.models.expected = None

    @contextmanager
    def _resuming_autoload(self) -> Iterator[None]:
        """Repeat `autoload` if it failed for want of code, and `main` gets its first code within this context."""
        stuck = self.autoload_error is not None and self.workspaces.main.live is None
        yield
        if stuck and self.workspaces.main.live is not None:
            threading.Thread(target=self.autoload, name="autoload", daemon=True).start()

    def watch(self) -> None:
        """Reload files as soon as they are saved, until `close`. Blocks. Failures are logged."""
        for changed in watched(self.workspaces.folders(), self._closing):
            log.debug("saved: %s", changed)
            for space in self.workspaces.in_use():
                try:
                    with self._resuming_autoload():
                        report = space.catch_up(self._had_model)
                except HearthError as error:
                    log.warning("%s: %s", space.name, error.message)
                except Exception:  # boundary: the watcher must continue
                    log.exception("%s can't be reloaded", space.name)
                else:
                    if report is not None:
                        log.info("%s: generation %s is live", space.name, report.generation)

    def close(self) -> None:
        """Refuse new runs, let runs in flight end within the grace period, cancel the rest, and save all of them."""
        self._closing.set()
        self.background.close()
        self.models.close()
        self.note_taker.close()
        self.runs.drain(self.settings.SHUTDOWN_GRACE)
        self.workers.close()
        self.database.close()


def _engine(model: ResidentModel) -> "GuidedEngine":
    if model.own_engine is None:
        raise InvalidRequestError(
            f"{model.name} is behind an API itself: ask it there, or ask one of the agents here, like hearth/react."
        )
    return model.own_engine


def _shown(identity: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in identity.items() if value is not None)
