"""A comparison that is under way: its questions are asked, a few at a time, and its answers are saved."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from constants import Settings
from server.comparisons.checks import Check, Verdict, error_of
from server.comparisons.comparison import ANSWERS_DIFFER, Cell, Comparison, Row, SideName
from server.errors import HearthError, QueueFullError, RunCancelledError, ShuttingDownError, as_hearth_error
from server.runs.events import Events
from server.runs.questions import Questions
from server.runs.run import Run
from server.sdk.tool_error import ToolFailedError
from server.store.comparisons import ComparisonStore

log = logging.getLogger(__name__)

LONGEST_PAUSE = 5.0
"""Maximum pause in seconds before a question that found the queue full is asked again."""


class RunningComparison:
    """One comparison from its start, or its resumption, to its end. Safe for any number of threads."""

    def __init__(
        self,
        comparison: Comparison,
        questions: Questions,
        store: ComparisonStore,
        settings: Settings,
        check: Check | None,
    ) -> None:
        self.comparison = comparison
        # Numbers that are higher than those before a restart, so that Last-Event-ID stays meaningful.
        self.events = Events(last=("end",), first=int(time.time() * 1000))
        self.ended = threading.Event()
        """Set when its last state is saved."""
        self.stopped_for: HearthError | None = None
        """Why it was stopped; None: it was not."""
        self._questions = questions
        self._store = store
        self._settings = settings
        self._check = check
        self._runs: set[Run] = set()
        """Those in flight, and those that checks count for."""
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._done = self._total = self._changed = self._failed = 0

    def work(self) -> None:
        """Ask all questions that have no answer yet. Returns when all are answered, or after `stop`. Raises
        `StoreError` if an answer can't be saved."""
        wanted: list[tuple[Row, SideName]] = []
        for row in self._store.all_rows(self.comparison.id):
            self._total += 2
            self._count(row, [cell for cell in (row.a, row.b) if cell is not None])
            asked = replace(row, a=None, b=None)  # its answers may be long
            wanted += [(asked, side) for side in _unanswered(row)]
        self._publish()
        try:
            with ThreadPoolExecutor(self.comparison.at_once, f"comparison {self.comparison.id}") as pool:
                answers = [pool.submit(self._answer, row, side) for row, side in wanted]
                try:
                    for one in as_completed(answers):
                        one.result()
                except BaseException:
                    self.stop(RunCancelledError("The comparison has ended, because an answer could not be saved."))
                    raise
        finally:
            if self._check is not None:
                self._check.close()

    def stop(self, reason: HearthError) -> None:
        """Stop its runs and its check, and ask no more questions. Returns at once. The first reason counts."""
        with self._changing:
            if self.stopped_for is not None:
                return
            self.stopped_for = reason
            self._stopping.set()
            runs = list(self._runs)
        for run in runs:
            run.stop(type(reason)(reason.message))  # each its own, which gets the run's steps
        if self._check is not None:
            self._check.close()

    def _answer(self, row: Row, side: SideName) -> None:
        """Ask one side a question, and save what it answers, unless the comparison is stopped meanwhile."""
        cell = self._asked(row, side)
        if cell is None:
            return
        saved = self._store.save_cell(self.comparison.id, row.number, side, cell)
        if saved is not None:
            self._count(saved, [cell])
            self._publish()

    def _asked(self, row: Row, side: SideName) -> Cell | None:
        """What a side answers; None if the comparison is stopped."""
        run = self._run(row, side)
        try:
            if not self._add(run) or not self._start(run, side):
                return None
            run.ended.wait()
        except HearthError as error:
            # It could not be asked: the workspace was deleted, for one.
            return None if self._stopping.is_set() else Cell(None, None, error_of(error))
        finally:
            self._remove(run)
        if self._stopping.is_set() and run.answer is None:
            return None
        started = run.finished if run.started is None else run.started
        seconds = (run.finished or 0.0) - (started or 0.0)
        usage = run.usage
        tokens = usage["prompt_tokens"] + usage["completion_tokens"] + usage["forced_tokens"]
        if run.answer is None:
            assert run.error is not None, "it has ended"
            wrong = False if self._counts_as_wrong(row, run.error) else None
            return Cell(run.id, None, error_of(run.error), wrong, tokens=tokens, seconds=seconds)
        answer = str(run.answer["answer"])
        correct = score = failure = None
        try:
            verdict = self._judged(row, answer)
            if verdict is not None:
                correct, score = verdict.correct, verdict.score
        except (HearthError, ToolFailedError) as error:
            failure = error_of(error)
        except Exception as error:  # boundary: one verdict is not worth the comparison
            failure = error_of(as_hearth_error(error))
        if failure is not None and self._stopping.is_set():
            return None
        return Cell(run.id, answer, None, correct, score, failure, tokens, seconds)

    def _run(self, row: Row, side: SideName) -> Run:
        wanted = self.comparison.side(side)
        return Run(
            wanted.prompt(row.question),
            wanted.workspace,
            wanted.max_steps,
            wanted.agent,
            "batch",
            max_tokens=self._settings.MAX_TOKENS,
            timeout=self._settings.RUN_TIMEOUT,
            history=[dict(one) for one in row.history],
            owner=self.comparison.owner,
        )

    def _start(self, run: Run, side: SideName) -> bool:
        """Start a run as soon as there is a place for it. Returns False if the comparison is stopped before."""
        wanted = self.comparison.side(side)
        while True:
            try:
                self._questions.start(run, wanted.generation, wanted.model)
                return True
            except QueueFullError as full:
                pause = min(float(full.details.get("retry_after", LONGEST_PAUSE)), LONGEST_PAUSE)
                if self._stopping.wait(pause):
                    return False
            except ShuttingDownError as error:
                self.stop(error)
                return False

    def _judged(self, row: Row, answer: str) -> Verdict | None:
        if self._check is None:
            return None
        run = Run("a check", self.comparison.workspace, 1, priority="batch", owner=self.comparison.owner)
        if not self._add(run):
            raise RunCancelledError("The comparison was stopped.")
        try:
            return self._check.judge(row.question, answer, row.expected, run)
        finally:
            self._remove(run)

    def _counts_as_wrong(self, row: Row, error: HearthError) -> bool:
        """A version that fails must not look better than one that answers wrongly. A run that somebody has cancelled
        says nothing about its version."""
        check = self.comparison.check
        if check is None or isinstance(error, RunCancelledError):
            return False
        return row.expected is not None or not check.needs_expected

    def _add(self, run: Run) -> bool:
        """From now on `stop` stops the run too. Returns False after `stop`."""
        with self._changing:
            if self.stopped_for is not None:
                return False
            self._runs.add(run)
            return True

    def _remove(self, run: Run) -> None:
        with self._changing:
            self._runs.discard(run)

    def _count(self, row: Row, cells: Sequence[Cell]) -> None:
        with self._changing:
            self._done += len(cells)
            self._failed += sum(cell.answer is None for cell in cells)
            self._changed += row.rank <= ANSWERS_DIFFER and bool(cells)

    def _publish(self) -> None:
        with self._changing:
            data = {"done": self._done, "total": self._total, "changed": self._changed, "failed": self._failed}
            self.events.publish("progress", data)


def _unanswered(row: Row) -> list[SideName]:
    """The sides that are to be asked. They take turns in being first, since the second may find the beginning of its
    prompt in the KV cache."""
    order: tuple[SideName, SideName] = ("a", "b") if row.number % 2 else ("b", "a")
    return [side for side in order if getattr(row, side) is None]
