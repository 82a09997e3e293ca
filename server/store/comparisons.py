"""Comparisons and their rows. Each answer is saved by a transaction of its own."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from sqlalchemy import Connection, Select, and_, delete, func, insert, or_, select, update
from sqlalchemy import Row as Found

from server.comparisons.comparison import WAITING, Cell, CheckChoice, Comparison, Row, Side, SideName, State
from server.errors import ComparisonNotFoundError
from server.store.database import Database
from server.store.ownership import Reader
from server.store.tables import COMPARISON, COMPARISON_ROW

Order = Literal["changed", "number"]
READ_AT_ONCE = 200


class ComparisonStore:
    """All comparisons. A change of a state names the states that it expects, so that the first one counts."""

    def __init__(self, database: Database, server: str) -> None:
        """`server`: what names this server among those that share the database, also after a restart."""
        self._database = database
        self._server = server

    def add(self, comparison: Comparison, rows: Sequence[Row]) -> None:
        """Save a new comparison with its questions. Raises `StoreRefusedError` if a generation is gone, and
        `StoreError`."""
        details = {
            "a": asdict(comparison.a),
            "b": asdict(comparison.b),
            "check": None if comparison.check is None else asdict(comparison.check),
            "at_once": comparison.at_once,
        }
        row = {
            "id": comparison.id,
            "number": select(func.coalesce(func.max(COMPARISON.c.number), 0) + 1).scalar_subquery(),
            "workspace": comparison.workspace,
            "owner": comparison.owner,
            "server": self._server,
            "name": comparison.name,
            "state": comparison.state,
            "generation_a": comparison.a.generation,
            "generation_b": comparison.b.generation,
            "details": json.dumps(details),
            "questions": len(rows),
            "created": comparison.created,
        }
        questions = [
            {
                "comparison": comparison.id,
                "number": one.number,
                "question": json.dumps([one.question, one.expected, list(one.history)]),
                "rank": WAITING,
            }
            for one in rows
        ]
        with self._database.writing() as connection:
            connection.execute(insert(COMPARISON).values(row))
            connection.execute(insert(COMPARISON_ROW), questions)

    def get(self, comparison: str) -> Comparison:
        """The comparison of that id. Raises `ComparisonNotFoundError`, `StoreError`."""
        with self._database.reading() as connection:
            row = connection.execute(_comparisons().where(COMPARISON.c.id == comparison)).one_or_none()
        if row is None:
            raise ComparisonNotFoundError(
                f"There is no comparison {comparison!r}. GET /comparisons lists those that there are."
            )
        return self._as_comparison(row)

    def latest(
        self, limit: int, workspace: str | None = None, before: str | None = None, reader: Reader | None = None
    ) -> list[Comparison]:
        """The last `limit` comparisons, the latest first; those that came before the comparison `before`; only those
        of `reader`."""
        wanted = _comparisons().order_by(COMPARISON.c.number.desc()).limit(limit)
        if workspace is not None:
            wanted = wanted.where(COMPARISON.c.workspace == workspace)
        if reader is not None:
            wanted = wanted.where(reader.sees(COMPARISON.c.owner, COMPARISON.c.workspace))
        if before is not None:
            earlier = COMPARISON.alias()
            wanted = wanted.where(
                COMPARISON.c.number < select(earlier.c.number).where(earlier.c.id == before).scalar_subquery()
            )
        with self._database.reading() as connection:
            return [self._as_comparison(row) for row in connection.execute(wanted)]

    def all_rows(self, comparison: str) -> Iterator[Row]:
        """All rows in the client's order, read in parts, since their answers may be long."""
        after: tuple[int, int] | None = (0, 0)
        while after is not None:
            part = self.rows(comparison, "number", READ_AT_ONCE, after)
            yield from part
            after = (part[-1].rank, part[-1].number) if part else None

    def rows(self, comparison: str, order: Order, limit: int, after: tuple[int, int] | None = None) -> list[Row]:
        """Rows in the client's order, or the changed ones first. `after`: rank and number of the last row that was
        read."""
        table = COMPARISON_ROW.c
        wanted = select(COMPARISON_ROW).where(table.comparison == comparison).limit(limit)
        if order == "number":
            wanted = wanted.order_by(table.number)
            if after is not None:
                wanted = wanted.where(table.number > after[1])
        else:
            wanted = wanted.order_by(table.rank, table.number)
            if after is not None:
                wanted = wanted.where(
                    or_(table.rank > after[0], and_(table.rank == after[0], table.number > after[1]))
                )
        with self._database.reading() as connection:
            return [_as_row(row) for row in connection.execute(wanted)]

    def save_cell(self, comparison: str, number: int, side: SideName, cell: Cell) -> Row | None:
        """Save what a side answered. Returns the row with it; None if the comparison was deleted. Raises
        `StoreError`."""
        table, saved = COMPARISON_ROW, None
        this = and_(table.c.comparison == comparison, table.c.number == number)

        def change(connection: Connection) -> None:
            nonlocal saved
            found = connection.execute(select(table).where(this)).one_or_none()
            if found is None:
                return
            row = _as_row(found)
            saved = replace(row, a=cell) if side == "a" else replace(row, b=cell)
            values = {side: json.dumps(asdict(cell)), "rank": saved.rank}
            connection.execute(update(table).where(this).values(values))

        self._database.write(change)
        return saved

    def change_state(
        self, comparison: str, expected: Sequence[State], state: State, error: Mapping[str, str] | None = None
    ) -> bool:
        """Returns False if it has another state than those that are expected. Raises `StoreError`."""
        changed = False
        values = {
            "state": state,
            "ended": None if state == "running" else time.time(),
            "error": None if error is None else json.dumps(error),
            "server": self._server,
        }

        def change(connection: Connection) -> None:
            nonlocal changed
            wanted = update(COMPARISON).where(COMPARISON.c.id == comparison, COMPARISON.c.state.in_(list(expected)))
            changed = connection.execute(wanted.values(values)).rowcount == 1

        self._database.write(change)
        return changed

    def delete(self, comparison: str) -> None:
        """Delete a comparison with its rows; its runs stay. Raises `StoreError`."""
        with self._database.writing() as connection:
            connection.execute(delete(COMPARISON).where(COMPARISON.c.id == comparison))

    def _as_comparison(self, row: Found[Any]) -> Comparison:
        details = json.loads(row.details)
        return Comparison(
            id=row.id,
            name=row.name,
            workspace=row.workspace,
            owner=row.owner,
            a=Side(**details["a"]),
            b=Side(**details["b"]),
            check=None if details["check"] is None else CheckChoice(**details["check"]),
            at_once=details["at_once"],
            questions=row.questions,
            state=row.state,
            answered=row.answered,
            created=row.created,
            ended=row.ended,
            error=None if row.error is None else json.loads(row.error),
            is_here=row.server == self._server,
        )


def _comparisons() -> Select[Any]:
    both = and_(COMPARISON_ROW.c.comparison == COMPARISON.c.id, COMPARISON_ROW.c.rank < WAITING)
    return select(COMPARISON, select(func.count()).where(both).scalar_subquery().label("answered"))


def _as_row(row: Found[Any]) -> Row:
    question, expected, history = json.loads(row.question)
    return Row(row.number, question, expected, history, _as_cell(row.a), _as_cell(row.b))


def _as_cell(text: str | None) -> Cell | None:
    return None if text is None else Cell(**json.loads(text))
