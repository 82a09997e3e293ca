"""Sessions: their exchanges and their notepads."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from server.errors import InvalidRequestError, SessionNotFoundError
from server.store.database import Database
from server.store.group_writer import Change
from server.store.ownership import Reader, session_owner
from server.store.tables import MESSAGE, NOTE, RUN, SESSION, SHARED_VALUE, WAKE

Entry = dict[str, Any]
"""An entry of a notepad, as JSON."""


@dataclass(frozen=True)
class Exchange:
    """A question and its answer. `number`: 1 is the first of the session. `time`: of the answer, in seconds since
    1970. `entry`: its entry in the notepad; None: it was removed."""

    number: int
    question: str
    answer: str
    run: str
    time: float
    entry: Entry | None
    asker: Literal["user", "system"] = "user"
    """Who asked: a person, or `system`, when jobs have ended."""


@dataclass(frozen=True)
class SessionShown:
    """A session of a workspace. `title`: of its first exchange in the notepad, or the first question. Times: seconds
    since 1970, of its first and its last exchange."""

    id: str
    workspace: str
    title: str
    turns: int
    created: float
    used: float


class SessionStore:
    """Sessions by workspace and name. A session exists from its first exchange on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def adding(self, workspace: str, session: str, owner: str, exchange: Exchange) -> Change:
        """The change that adds an exchange to a session, which gets that `owner` if it is new. The exchange gets the
        next number; `exchange.number` is ignored."""

        def change(connection: Connection) -> None:
            key = connection.execute(_key(workspace, session)).scalar()
            if key is None:
                row = {
                    "workspace": workspace,
                    # A colleague may ask the first question of a session that somebody has made and shared.
                    "owner": func.coalesce(session_owner(workspace, session), owner),
                    "id": session,
                    "created": exchange.time,
                    "used": exchange.time,
                }
                made = connection.execute(insert(SESSION).values(row)).inserted_primary_key
                assert made is not None, "a row was inserted"
                key = made[0]
            else:
                connection.execute(update(SESSION).where(SESSION.c.key == key).values(used=exchange.time))
            last = select(func.coalesce(func.max(MESSAGE.c.turn), 0)).where(MESSAGE.c.session == key)
            number = connection.execute(last).scalar_one() + 1
            connection.execute(
                insert(MESSAGE),
                [
                    {
                        "session": key,
                        "turn": number,
                        "role": role,
                        "content": json.dumps(content),
                        "run": exchange.run,
                        "time": exchange.time,
                    }
                    for role, content in ((exchange.asker, exchange.question), ("assistant", exchange.answer))
                ],
            )
            connection.execute(
                insert(NOTE).values(session=key, turn=number, run=exchange.run, entry=json.dumps(exchange.entry))
            )

        return change

    def latest(self, workspace: str | None, limit: int, reader: Reader | None = None) -> list[SessionShown]:
        """The `limit` sessions that were used last, of one workspace or of all, the latest first; only
        those that `reader` sees."""
        wanted = _shown().order_by(SESSION.c.used.desc(), SESSION.c.key.desc()).limit(limit)
        if workspace is not None:
            wanted = wanted.where(SESSION.c.workspace == workspace)
        if reader is not None:
            wanted = wanted.where(reader.sees(SESSION.c.owner, SESSION.c.workspace, SESSION.c.id))
        with self._database.reading() as connection:
            return [_as_session(row) for row in connection.execute(wanted)]

    def get(self, workspace: str, session: str) -> SessionShown:
        """That session. Raises `SessionNotFoundError`."""
        with self._database.reading() as connection:
            row = connection.execute(
                _shown().where(SESSION.c.workspace == workspace, SESSION.c.id == session)
            ).one_or_none()
        if row is None:
            raise _not_found(workspace, session)
        return _as_session(row)

    def exchanges(self, workspace: str, session: str, limit: int | None = None) -> list[Exchange]:
        """The last `limit` exchanges of a session, or all of them, in order; none if there is no such session."""
        question, answer = MESSAGE.alias("question"), MESSAGE.alias("answer")
        wanted = (
            select(
                question.c.turn,
                question.c.content,
                answer.c.content,
                answer.c.run,
                answer.c.time,
                NOTE.c.entry,
                question.c.role,
            )
            .join(answer, and_(answer.c.session == question.c.session, answer.c.turn == question.c.turn))
            .outerjoin(NOTE, and_(NOTE.c.session == question.c.session, NOTE.c.turn == question.c.turn))
            .where(question.c.session == _key(workspace, session).scalar_subquery())
            .where(question.c.role != "assistant", answer.c.role == "assistant")
            .order_by(question.c.turn.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(wanted).all()
        return [
            Exchange(number, json.loads(asked), json.loads(answered), run, time, entry and json.loads(entry), asker)
            for number, asked, answered, run, time, entry, asker in reversed(rows)
        ]

    def askers(self, workspace: str, session: str) -> dict[str, str]:
        """Who has asked the questions of a session, by the runs that answered them."""
        wanted = select(MESSAGE.c.run, RUN.c.owner).join(RUN, RUN.c.id == MESSAGE.c.run)
        with self._database.reading() as connection:
            rows = connection.execute(
                wanted.where(MESSAGE.c.session == _key(workspace, session).scalar_subquery()).distinct()
            )
            return {row.run: row.owner for row in rows}

    def replace_entries(self, workspace: str, session: str, entries: Mapping[int, Entry]) -> None:
        """Replace the session's notepad by `entries`, by the numbers of their exchanges.

        Raises `SessionNotFoundError`, and `InvalidRequestError` for a number that does not exist.
        """
        with self._database.writing() as connection:
            key = _existing_key(connection, workspace, session)
            asked = select(MESSAGE.c.turn, MESSAGE.c.run).where(
                MESSAGE.c.session == key, MESSAGE.c.role != "assistant"
            )
            runs = {turn: run for turn, run in connection.execute(asked)}
            unknown = sorted(entries.keys() - runs.keys())
            if unknown:
                raise InvalidRequestError(
                    f"An entry is about a turn, and the session {session!r} has {len(runs)}. There is no turn "
                    f"{unknown[0]}."
                )
            connection.execute(delete(NOTE).where(NOTE.c.session == key))
            rows = [
                {"session": key, "turn": turn, "run": runs[turn], "entry": json.dumps(entry)}
                for turn, entry in entries.items()
            ]
            if rows:
                connection.execute(insert(NOTE), rows)

    def improve_entry(self, run: str, was: Entry, entry: Entry) -> None:
        """Replace the entry of the exchange that `run` answered by `entry`, if it is still `was`."""
        statement = update(NOTE).where(NOTE.c.run == run, NOTE.c.entry == json.dumps(was))

        def change(connection: Connection) -> None:
            connection.execute(statement.values(entry=json.dumps(entry)))

        self._database.write(change)

    def delete(self, workspace: str, session: str) -> None:
        """Forget a session, its notepad and its shared values; its runs and jobs stay. Raises
        `SessionNotFoundError`."""
        with self._database.writing() as connection:
            key = _existing_key(connection, workspace, session)
            connection.execute(delete(SESSION).where(SESSION.c.key == key))
            for table in (WAKE, SHARED_VALUE):
                connection.execute(delete(table).where(table.c.workspace == workspace, table.c.session == session))


def entries_of(exchanges: Iterable[Exchange]) -> list[dict[str, Any]]:
    """The notepad's entries of `exchanges`, as the routes show them."""
    return [{"turn": one.number, "run_id": one.run, **one.entry} for one in exchanges if one.entry is not None]


def _key(workspace: str, session: str) -> Any:
    return select(SESSION.c.key).where(SESSION.c.workspace == workspace, SESSION.c.id == session)


def _existing_key(connection: Connection, workspace: str, session: str) -> int:
    key: int | None = connection.execute(_key(workspace, session)).scalar()
    if key is None:
        raise _not_found(workspace, session)
    return key


def _not_found(workspace: str, session: str) -> SessionNotFoundError:
    return SessionNotFoundError(
        f"The workspace {workspace!r} has no session {session!r}. GET /sessions lists those that there are; a "
        "question with a session_id makes one."
    )


def _shown() -> Any:
    first = MESSAGE.alias("first")
    turns = select(func.max(MESSAGE.c.turn)).where(MESSAGE.c.session == SESSION.c.key).scalar_subquery()
    return (
        select(SESSION, turns.label("turns"), first.c.content.label("question"), NOTE.c.entry)
        .join(first, and_(first.c.session == SESSION.c.key, first.c.turn == 1, first.c.role != "assistant"))
        .outerjoin(NOTE, and_(NOTE.c.session == SESSION.c.key, NOTE.c.turn == 1))
    )


_LONGEST_TITLE = 80


def _as_session(row: Row[Any]) -> SessionShown:
    title = json.loads(row.entry).get("title") if row.entry is not None else None
    title = title or " ".join(json.loads(row.question).split())
    if len(title) > _LONGEST_TITLE:
        title = title[: _LONGEST_TITLE - 1] + "…"
    return SessionShown(row.id, row.workspace, title, row.turns, row.created, row.used)
