"""The steps and the model calls of runs."""

import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from server.errors import StoreError
from server.runs.trace import WHOLE_EVERY, Line, TracedCall, lines
from server.store.database import Database, storable
from server.store.group_writer import Change
from server.store.tables import MODEL_CALL, RUN, STEP


@dataclass(frozen=True)
class SavedStep:
    """A step, with the text of the model that made it: see `Line.written`."""

    step: dict[str, Any]
    written: str | None


class TraceStore:
    """Reads traces; `RunStore.add` saves them with their runs. For a run that is not there it finds nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lines(self, run: str, after: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """How many steps a run has, and the lines of up to `limit` of them after the one with that number."""
        with self._database.reading() as connection:
            count = connection.execute(select(func.count()).where(STEP.c.run == run)).scalar_one()
            query = select(STEP.c.line).where(STEP.c.run == run, STEP.c.number > after)
            found = list(connection.execute(query.order_by(STEP.c.number).limit(limit)).scalars())
            old = [] if count else _old_steps(connection, run)
        if old:
            return len(old), [line.as_json() for line in lines(old)[after : after + limit]]
        return count, [json.loads(line) for line in found]

    def lines_of_runs(self, workspace: str, runs: int) -> list[tuple[str, float, dict[str, Any]]]:
        """The lines of the last `runs` runs of a workspace that have code: each with the run's generation, and when
        it was asked, in seconds since 1970. Runs of older formats have none."""
        last = (
            select(RUN.c.id, RUN.c.generation, RUN.c.asked)
            .where(RUN.c.workspace == workspace, RUN.c.generation.is_not(None))
            .order_by(RUN.c.number.desc())
            .limit(runs)
            .subquery()
        )
        query = select(last.c.generation, last.c.asked, STEP.c.line).join(STEP, STEP.c.run == last.c.id)
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        return [(row.generation, row.asked or 0.0, json.loads(row.line)) for row in found]

    def steps(self, run: str, first: int, last: int) -> list[SavedStep]:
        """The steps with the numbers `first` to `last`, as far as there are such."""
        with self._database.reading() as connection:
            query = select(STEP.c.step, STEP.c.written).where(STEP.c.run == run, STEP.c.number.between(first, last))
            found = connection.execute(query.order_by(STEP.c.number)).all()
            old = [] if found else _old_steps(connection, run)
        if old:
            return [SavedStep(step, None) for step in old[first - 1 : last]]
        return [
            SavedStep(json.loads(step), None if written is None else json.loads(written)) for step, written in found
        ]

    def calls_of(self, run: str, step: int) -> list[int]:
        """The numbers of the model calls of a step."""
        query = select(MODEL_CALL.c.number).where(MODEL_CALL.c.run == run, MODEL_CALL.c.step == step)
        with self._database.reading() as connection:
            return list(connection.execute(query.order_by(MODEL_CALL.c.number)).scalars())

    def call_before(self, run: str, number: int, tool: str | None) -> int | None:
        """The number of the last model call before that one which `tool` has asked for, or the agent."""
        query = select(func.max(MODEL_CALL.c.number)).where(
            MODEL_CALL.c.run == run, MODEL_CALL.c.number < number, MODEL_CALL.c.tool.is_not_distinct_from(tool)
        )
        with self._database.reading() as connection:
            found: int | None = connection.execute(query).scalar()
            return found

    def calls(self, run: str, first: int, last: int) -> list[TracedCall]:
        """The model calls with the numbers `first` to `last`, and before them those that their prompts need."""
        whole = (first - 1) // WHOLE_EVERY * WHOLE_EVERY + 1
        query = select(MODEL_CALL).where(MODEL_CALL.c.run == run, MODEL_CALL.c.number.between(whole, last))
        with self._database.reading() as connection:
            return [_call(row) for row in connection.execute(query.order_by(MODEL_CALL.c.number))]


def adding(
    run: str, steps: Sequence[Mapping[str, Any]], step_lines: Sequence[Line], calls: Sequence[TracedCall]
) -> Change:
    """The change that adds the steps and the model calls of a run that was just added."""
    step_rows = [
        {
            "run": run,
            "number": number,
            "line": json.dumps(line.as_json()),
            "step": json.dumps(step),
            "written": None if line.written is None else json.dumps(line.written),
        }
        for number, (step, line) in enumerate(zip(steps, step_lines, strict=True), 1)
    ]
    call_rows = [
        {
            "run": run,
            "number": call.number,
            "step": call.step,
            "tool": storable(call.tool),
            "kind": call.kind,
            "shared": call.shared,
            "rest": None if call.rest is None else json.dumps(call.rest),
            "written": None if call.written is None else json.dumps(call.written),
            "tokens": _packed(call),
            "details": json.dumps(call.details),
        }
        for call in calls
    ]

    def change(connection: Connection) -> None:
        for table, rows in ((STEP, step_rows), (MODEL_CALL, call_rows)):
            if rows:
                connection.execute(insert(table), rows)

    return change


def _old_steps(connection: Connection, run: str) -> list[dict[str, Any]]:
    """The steps in the record of a run that an earlier version has saved."""
    text = connection.execute(select(RUN.c.record).where(RUN.c.id == run)).scalar()
    try:
        steps = json.loads(text or "{}").get("steps", [])
    except ValueError:
        raise StoreError(f"The record of run {run!r} can't be read.") from None
    return list(steps)


def _packed(call: TracedCall) -> bytes:
    packed = array("I", (2 * token + (place in call.chosen) for place, token in enumerate(call.tokens)))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _call(row: Row[Any]) -> TracedCall:
    packed = array("I", row.tokens)
    if sys.byteorder == "big":
        packed.byteswap()
    return TracedCall(
        row.number,
        row.step,
        row.tool,
        row.kind,
        row.shared,
        None if row.rest is None else json.loads(row.rest),
        None if row.written is None else json.loads(row.written),
        [one >> 1 for one in packed],
        frozenset(place for place, one in enumerate(packed) if one & 1),
        json.loads(row.details),
    )
