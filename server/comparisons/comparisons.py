"""All comparisons of the server: accepted, run, stopped, resumed, shown and deleted."""

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from constants import Settings
from server.comparisons.checks import REPLY_TOKENS, WORDS, Check, ModelCheck, TextCheck, ToolCheck, error_of
from server.comparisons.comparison import CheckChoice, Comparison, Row, Side, SideChoice, State
from server.comparisons.running import RunningComparison
from server.comparisons.statistics import summary_of
from server.errors import (
    AgentNotFoundError,
    ComparisonNotFoundError,
    ComparisonStateError,
    InvalidRequestError,
    QueueFullError,
    RunCancelledError,
    ShuttingDownError,
    StoreError,
    as_hearth_error,
)
from server.models.background import BackgroundModel
from server.models.resident import ResidentModels
from server.reload import Generation
from server.runs.events import Events
from server.runs.fair_queue import FairQueue
from server.runs.questions import Questions
from server.store.comparisons import ComparisonStore, Order
from server.store.ownership import Reader

log = logging.getLogger(__name__)

MOST_RUNNING = 8
"""Maximum number of comparisons that run at the same time."""
PERSONS_SHARE = 2
"""One person may have half of them."""
RETRY_SECONDS = 30
RESUMABLE: tuple[State, ...] = ("cancelled", "failed", "interrupted")
END_SECONDS = 15.0
"""Maximum time for the runs of a comparison to end after it was stopped."""
REMEMBERED = 64
"""Maximum number of ended comparisons whose events stay readable."""


class Comparisons:
    """Safe for any number of threads."""

    def __init__(
        self,
        settings: Settings,
        store: ComparisonStore,
        questions: Questions,
        models: ResidentModels,
        background: BackgroundModel,
        queue: FairQueue,
    ) -> None:
        """`background`: the model that judges. `queue`: where the model calls of checks wait."""
        self._models = models
        self._settings = settings
        self._store = store
        self._questions = questions
        self._background = background
        self._queue = queue
        self._running: dict[str, RunningComparison] = {}
        self._remembered: OrderedDict[str, Events] = OrderedDict()
        self._closing = False
        self._changing = threading.Lock()

    # Starting

    def start(
        self,
        name: str,
        workspace: str,
        owner: str,
        rows: Sequence[Row],
        sides: tuple[SideChoice, SideChoice],
        check: CheckChoice | None,
        at_once: int,
    ) -> Comparison:
        """Start a comparison. The code and the models of both sides are those of this moment, whatever is edited or
        loaded later.

        Raises `InvalidRequestError`, `QueueFullError`, `ShuttingDownError`, `AgentNotFoundError`,
        `ToolNotFoundError`, and what `Questions.pinned` raises.
        """
        if check is not None and check.needs_expected and all(row.expected is None for row in rows):
            raise InvalidRequestError(
                f"check: no question has an expected answer, so {check.kind} has nothing to compare with. Send "
                '"expected" with the questions, or choose the check tool or model.'
            )
        with ExitStack() as held:
            a, code = self._pin(held, sides[0])
            b, _ = self._pin(held, sides[1])
            if check is not None and check.kind == "model":
                check = replace(check, judge=self._settings.BACKGROUND_MODEL or self._default_model())
            comparison = Comparison(
                id=secrets.token_hex(8),
                name=name,
                workspace=workspace,
                owner=owner,
                a=a,
                b=b,
                check=check,
                at_once=at_once,
                questions=len(rows),
                created=time.time(),
            )
            running = self._prepare(comparison, code)
            try:
                self._store.add(comparison, rows)
                self._begin(running, held.pop_all())
            except BaseException:
                self._forget(comparison.id)
                raise
        return comparison

    def resume(self, comparison_id: str) -> Comparison:
        """Continue a comparison that was stopped: ask the questions that have no answer, of the same code and models.

        Raises `ComparisonNotFoundError`, `ComparisonStateError` for one that runs or is done, and what `start`
        raises.
        """
        saved = self._store.get(comparison_id)
        found = self._as_it_is(saved)
        if found.state not in RESUMABLE:
            raise ComparisonStateError(
                f"The comparison {comparison_id} is {found.state}. Only one that was stopped before its end can be "
                "resumed."
            )
        with ExitStack() as held:
            _, code = self._pin(held, SideChoice(**asdict(found.a)))
            self._pin(held, SideChoice(**asdict(found.b)))
            comparison = replace(found, state="running", ended=None, error=None)
            running = self._prepare(comparison, code)
            try:
                if not self._store.change_state(comparison_id, [saved.state], "running"):
                    raise ComparisonStateError(f"The comparison {comparison_id} was changed meanwhile. Look again.")
                self._begin(running, held.pop_all())
            except BaseException:
                self._forget(comparison_id)
                raise
        return comparison

    def _default_model(self) -> str:
        with self._models.use() as model:
            return model.name

    def _pin(self, held: ExitStack, choice: SideChoice) -> tuple[Side, Generation]:
        """A side, with its code loaded until `held` ends."""
        code, model = held.enter_context(self._questions.pinned(choice.workspace, choice.generation, choice.model))
        if choice.agent not in code.agents:
            raise AgentNotFoundError(
                f"There is no agent {choice.agent!r} in generation {code.hash} of the workspace {choice.workspace!r}."
                f" There are: {', '.join(sorted(code.agents))}."
            )
        return Side(**{**asdict(choice), "generation": code.hash, "model": model}), code

    def _prepare(self, comparison: Comparison, code: Generation) -> RunningComparison:
        """Take a place for a comparison. `code`: of side a. Raises `QueueFullError`, `ShuttingDownError`,
        `ComparisonStateError`, and what the making of its check raises."""
        check = self._check(comparison, code)
        running = RunningComparison(comparison, self._questions, self._store, self._settings, check)
        with self._changing:
            if self._closing:
                raise ShuttingDownError("The server is shutting down and takes no comparisons. Ask again later.")
            if comparison.id in self._running:
                raise ComparisonStateError(f"The comparison {comparison.id} is running already.")
            own = sum(one.comparison.owner == comparison.owner for one in self._running.values())
            if len(self._running) >= MOST_RUNNING or own >= MOST_RUNNING // PERSONS_SHARE:
                raise QueueFullError(
                    f"{len(self._running)} comparisons are running, {own} of them of {comparison.owner!r}. The "
                    f"maximum is {MOST_RUNNING}, and half of them a person. Wait for one to end, or cancel one.",
                    retry_after=RETRY_SECONDS,
                )
            self._running[comparison.id] = running
        return running

    def _check(self, comparison: Comparison, code: Generation) -> Check | None:
        choice = comparison.check
        if choice is None:
            return None
        if choice.kind == "tool":
            assert choice.tool is not None, "the request was checked"
            return ToolCheck(code, choice.tool, self._settings.TOOL_TIMEOUT, self._queue)
        if choice.kind == "model":
            complete = partial(
                self._background.complete, workspace=comparison.workspace, max_tokens=REPLY_TOKENS, words=WORDS
            )
            return ModelCheck(lambda messages, schema: complete(messages, schema=schema))
        return TextCheck(contains=choice.kind == "contains")

    def _begin(self, running: RunningComparison, held: ExitStack) -> None:
        """Run it on a thread of its own, which releases `held`. Raises `QueueFullError` if there can be none; then it
        can be resumed."""
        name = f"comparison {running.comparison.id}"
        try:
            threading.Thread(target=self._run, args=(running, held), name=name, daemon=True).start()
        except RuntimeError as error:
            held.close()
            raise QueueFullError(
                f"The comparison {running.comparison.id} can't run now: {error}. Resume it later.",
                retry_after=RETRY_SECONDS,
            ) from error

    def _forget(self, comparison_id: str) -> None:
        with self._changing:
            self._running.pop(comparison_id, None)

    # Running

    def _run(self, running: RunningComparison, held: ExitStack) -> None:
        """Run a comparison to its end. On a thread of its own."""
        state: State = "done"
        error: dict[str, str] | None = None
        try:
            with held:
                running.work()
            if running.stopped_for is not None:
                state = "interrupted" if isinstance(running.stopped_for, ShuttingDownError) else "cancelled"
        except StoreError as raised:
            state, error = "interrupted", error_of(raised)
            log.error("the comparison %s is interrupted: %s", running.comparison.id, raised.message)
        except Exception as raised:  # boundary: the thread's end; it would seem to run for ever
            state, error = "failed", error_of(as_hearth_error(raised))
        comparison = running.comparison
        try:
            self._store.change_state(comparison.id, ["running"], state, error)
            comparison = self._store.get(comparison.id)
        except ComparisonNotFoundError:
            comparison = replace(comparison, state=state)  # it was deleted meanwhile
        except StoreError as raised:
            # Its saved state stays "running", and since nothing runs it, it is shown as interrupted.
            log.error("the end of the comparison %s can't be saved: %s", comparison.id, raised.message)
            comparison = replace(comparison, state="interrupted", error=error_of(raised))
        with self._changing:
            del self._running[comparison.id]
            self._remembered[comparison.id] = running.events
            self._remembered.move_to_end(comparison.id)
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        running.events.publish("end", comparison.shown())
        running.ended.set()

    def cancel(self, comparison_id: str) -> Comparison:
        """Stop a comparison, and wait until its runs have ended. Its answers stay. Raises `ComparisonNotFoundError`,
        and `ComparisonStateError` if it does not run here."""
        running = self._running.get(comparison_id)
        if running is None:
            state = self.get(comparison_id).state
            where = " in another server" if state == "running" else ""
            raise ComparisonStateError(f"The comparison {comparison_id} is {state}{where}. It can't be cancelled.")
        self._stop(running)
        return self.get(comparison_id)

    def delete(self, comparison_id: str) -> None:
        """Delete a comparison and its rows; one that runs is stopped first. The records of its runs stay. Raises
        `ComparisonNotFoundError`, and `ComparisonStateError` if it runs in another server."""
        running = self._running.get(comparison_id)
        if running is not None:
            self._stop(running)
        elif self.get(comparison_id).state == "running":
            raise ComparisonStateError(f"The comparison {comparison_id} runs in another server. Delete it there.")
        self._store.delete(comparison_id)
        with self._changing:
            self._remembered.pop(comparison_id, None)

    def _stop(self, running: RunningComparison) -> None:
        running.stop(RunCancelledError("The comparison of this run was cancelled."))
        if not running.ended.wait(END_SECONDS):
            log.warning("the comparison %s has not ended yet", running.comparison.id)

    def close(self) -> None:
        """Interrupt all that run, and accept no more. They can be resumed by the next server."""
        with self._changing:
            self._closing = True
            running = list(self._running.values())
        for one in running:
            one.stop(ShuttingDownError("The server shut down before the question was answered."))
        deadline = time.monotonic() + END_SECONDS
        for one in running:
            one.ended.wait(max(deadline - time.monotonic(), 0.0))

    # Showing

    def get(self, comparison_id: str) -> Comparison:
        """A comparison as it is now. Raises `ComparisonNotFoundError`."""
        return self._as_it_is(self._store.get(comparison_id))

    def summary(self, comparison_id: str) -> dict[str, Any]:
        """See `summary_of`."""
        return summary_of(self._store.all_rows(comparison_id))

    def all_rows(self, comparison_id: str) -> Iterator[Row]:
        """See `ComparisonStore.all_rows`."""
        return self._store.all_rows(comparison_id)

    def rows(self, comparison_id: str, order: Order, limit: int, after: tuple[int, int] | None = None) -> list[Row]:
        """See `ComparisonStore.rows`."""
        return self._store.rows(comparison_id, order, limit, after)

    def latest(
        self, limit: int, workspace: str | None = None, before: str | None = None, reader: Reader | None = None
    ) -> list[Comparison]:
        """See `ComparisonStore.latest`."""
        return [self._as_it_is(one) for one in self._store.latest(limit, workspace, before, reader)]

    def events(self, comparison_id: str) -> Events:
        """The events of a comparison; of one that has ended long ago, only the last one. Raises
        `ComparisonNotFoundError`."""
        with self._changing:
            running = self._running.get(comparison_id)
            found = running.events if running is not None else self._remembered.get(comparison_id)
        if found is not None:
            return found
        comparison = self.get(comparison_id)
        ended = time.time() if comparison.ended is None else comparison.ended
        events = Events(last=("end",), first=int(ended * 1000))
        events.publish("end" if comparison.state != "running" else "state", comparison.shown())
        return events

    def _as_it_is(self, saved: Comparison) -> Comparison:
        """One that is saved as running, and that this server does not run, was interrupted by the server's end."""
        if saved.state != "running" or not saved.is_here or saved.id in self._running:
            return saved
        again = self._store.get(saved.id)  # it may have ended since it was read
        if again.state != "running" or saved.id in self._running:
            return again
        return replace(again, state="interrupted")
