"""Whose sessions, runs, jobs and workspaces there are, and with whom they are shared."""

from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, update

from server.store.database import Database
from server.store.people import count_change
from server.store.tables import (
    COLLECTION,
    COMPARISON,
    JOB,
    MESSAGE,
    RESPONSE,
    RUN,
    SESSION,
    SESSION_MEMBER,
    SESSION_OWNER,
    SHARED_VALUE,
    TAKE_OVER,
    WORKSPACE_MEMBER,
)

WorkspaceRole = Literal["owner", "editor", "reader"]


@dataclass(frozen=True)
class Reader:
    """Whose objects a list may show: those of a person, those shared with them, and those of `opened` people."""

    name: str
    opened: frozenset[str] = field(default_factory=frozenset)

    def owns(self, owner: str) -> bool:
        """Whether the objects of `owner` are among them."""
        return owner == self.name or owner in self.opened

    def sees(
        self, owner: ColumnElement[str], workspace: ColumnElement[str], session: ColumnElement[Any] | None = None
    ) -> ColumnElement[bool]:
        """The condition on a row with such columns. Without `session`, what is shared is left out."""
        mine = owner.in_([self.name, *sorted(self.opened)])
        if session is None:
            return mine
        shared = select(SESSION_MEMBER.c.username).where(
            SESSION_MEMBER.c.workspace == workspace,
            SESSION_MEMBER.c.session == session,
            SESSION_MEMBER.c.username == self.name,
        )
        return or_(mine, exists(shared))


@dataclass(frozen=True)
class Owned:
    """A run or a job: its owner, its workspace, and its session if it has one."""

    owner: str
    workspace: str
    session: str | None


class OwnershipStore:
    """Owners and members by the names of objects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Sessions

    def session_owner(self, workspace: str, session: str) -> str | None:
        """The owner of a session's name; None: it was never used, or only before there were accounts, for files."""
        with self._database.reading() as connection:
            return _session_owner(connection, workspace, session)

    def claim_session(self, workspace: str, session: str, owner: str) -> str:
        """Make `owner` the owner of a session that has none. Returns who owns it then."""
        with self._database.writing() as connection:
            found = _session_owner(connection, workspace, session)
            if found is None:
                found = owner
                row = {"workspace": workspace, "session": session, "owner": owner}
                connection.execute(insert(SESSION_OWNER).values(row))
        return found

    def sessions_of(self, owner: str) -> set[tuple[str, str]]:
        """Workspace and name of each session of a person."""
        claimed = select(SESSION_OWNER.c.workspace, SESSION_OWNER.c.session).where(SESSION_OWNER.c.owner == owner)
        asked = select(SESSION.c.workspace, SESSION.c.id).where(SESSION.c.owner == owner)
        with self._database.reading() as connection:
            return {(row[0], row[1]) for wanted in (claimed, asked) for row in connection.execute(wanted)}

    def comparison(self, comparison: str) -> Owned | None:
        """A comparison; None: there is none of that id."""
        wanted = select(COMPARISON.c.owner, COMPARISON.c.workspace).where(COMPARISON.c.id == comparison)
        with self._database.reading() as connection:
            row = connection.execute(wanted).first()
        return None if row is None else Owned(row.owner, row.workspace, None)

    def response(self, response: str) -> Owned | None:
        """A response of OpenAI's API; None: there is none of that id."""
        wanted = select(RESPONSE.c.owner, RESPONSE.c.workspace).where(RESPONSE.c.id == response)
        with self._database.reading() as connection:
            row = connection.execute(wanted).first()
        return None if row is None else Owned(row.owner, row.workspace, None)

    def session_members(self, workspace: str, session: str) -> list[str]:
        """With whom a session is shared, by name."""
        wanted = select(SESSION_MEMBER.c.username).where(*_session(workspace, session))
        with self._database.reading() as connection:
            return list(connection.execute(wanted.order_by(SESSION_MEMBER.c.username)).scalars())

    def is_session_member(self, workspace: str, session: str, username: str) -> bool:
        """Whether a session is shared with that person."""
        return username in self.session_members(workspace, session)

    def add_session_member(self, workspace: str, session: str, username: str) -> None:
        """Share a session with a person."""
        with self._database.writing() as connection:
            connection.execute(
                delete(SESSION_MEMBER).where(*_session(workspace, session), SESSION_MEMBER.c.username == username)
            )
            row = {"workspace": workspace, "session": session, "username": username}
            connection.execute(insert(SESSION_MEMBER).values(row))
            count_change(connection)

    def remove_session_members(self, workspace: str, session: str, username: str | None = None) -> bool:
        """Share a session with that person no longer; with None, with nobody. Returns whether it was."""
        wanted = delete(SESSION_MEMBER).where(*_session(workspace, session))
        if username is not None:
            wanted = wanted.where(SESSION_MEMBER.c.username == username)
        with self._database.writing() as connection:
            removed = connection.execute(wanted).rowcount > 0
            if removed:
                count_change(connection)
        return removed

    # Runs, jobs, generations

    def run(self, run: str) -> Owned | None:
        """A run that has ended; None: there is none of that id."""
        answers = and_(MESSAGE.c.run == RUN.c.id, MESSAGE.c.role == "assistant")
        wanted = (
            select(RUN.c.owner, RUN.c.workspace, SESSION.c.id)
            .outerjoin(MESSAGE, answers)
            .outerjoin(SESSION, SESSION.c.key == MESSAGE.c.session)
            .where(RUN.c.id == run)
        )
        with self._database.reading() as connection:
            row = connection.execute(wanted).first()
        return None if row is None else Owned(*row)

    def job(self, job: str) -> Owned | None:
        """A job; None: there is none of that name."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(JOB.c.owner, JOB.c.workspace, JOB.c.session).where(JOB.c.id == job)
            ).first()
        return None if row is None else Owned(*row)

    def generation_workspaces(self, prefix: str) -> dict[str, set[str]]:
        """The workspaces where generations were live, by their hashes, which begin with `prefix`."""
        begins_so = func.substr(TAKE_OVER.c.generation, 1, len(prefix)) == prefix
        wanted = select(TAKE_OVER.c.generation, TAKE_OVER.c.workspace).where(begins_so).distinct()
        found: dict[str, set[str]] = {}
        with self._database.reading() as connection:
            for generation, workspace in connection.execute(wanted):
                found.setdefault(generation, set()).add(workspace)
        return found

    # Workspaces

    def workspace_members(self, workspace: str) -> dict[str, WorkspaceRole]:
        """The people of a workspace and their roles, by name."""
        wanted = select(WORKSPACE_MEMBER.c.username, WORKSPACE_MEMBER.c.role).where(
            WORKSPACE_MEMBER.c.workspace == workspace
        )
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(WORKSPACE_MEMBER.c.username))
            return {row.username: row.role for row in rows}

    def workspaces_of(self, username: str) -> dict[str, WorkspaceRole]:
        """The workspaces that a person is a member of, with their role."""
        wanted = select(WORKSPACE_MEMBER.c.workspace, WORKSPACE_MEMBER.c.role).where(
            WORKSPACE_MEMBER.c.username == username
        )
        with self._database.reading() as connection:
            return {row.workspace: row.role for row in connection.execute(wanted)}

    def claim_workspace(self, workspace: str, username: str) -> bool:
        """Make a person the owner of a workspace without members. Returns whether they are now."""
        with self._database.writing() as connection:
            wanted = select(func.count()).where(WORKSPACE_MEMBER.c.workspace == workspace)
            if connection.execute(wanted).scalar_one():
                return False
            row = {"workspace": workspace, "username": username, "role": "owner"}
            connection.execute(insert(WORKSPACE_MEMBER).values(row))
        return True

    def set_workspace_member(self, workspace: str, username: str, role: WorkspaceRole | None) -> bool:
        """Give a person a role in a workspace; None: no role. Returns whether they had another one."""
        mine = WORKSPACE_MEMBER.c.workspace == workspace, WORKSPACE_MEMBER.c.username == username
        with self._database.writing() as connection:
            was = connection.execute(select(WORKSPACE_MEMBER.c.role).where(*mine)).scalar()
            if was == role:
                return False
            connection.execute(delete(WORKSPACE_MEMBER).where(*mine))
            if role is not None:
                row = {"workspace": workspace, "username": username, "role": role}
                connection.execute(insert(WORKSPACE_MEMBER).values(row))
            count_change(connection)
        return True

    # Admins

    def objects_of(self, owner: str, limit: int) -> list[dict[str, Any]]:
        """What a person owns, the latest first, without any content: `kind`, `id`, `workspace`, `time`."""
        kinds = {
            "session": select(SESSION.c.id, SESSION.c.workspace, SESSION.c.used.label("time")).where(
                SESSION.c.owner == owner
            ),
            "job": select(JOB.c.id, JOB.c.workspace, JOB.c.created.label("time")).where(JOB.c.owner == owner),
            "collection": select(
                COLLECTION.c.name.label("id"), COLLECTION.c.workspace, COLLECTION.c.created.label("time")
            ).where(COLLECTION.c.owner == owner),
            "comparison": select(COMPARISON.c.id, COMPARISON.c.workspace, COMPARISON.c.created.label("time")).where(
                COMPARISON.c.owner == owner
            ),
        }
        found: list[dict[str, Any]] = []
        with self._database.reading() as connection:
            for kind, wanted in kinds.items():
                rows = connection.execute(wanted.order_by(wanted.selected_columns.time.desc()).limit(limit))
                found += [{"kind": kind, "id": row.id, "workspace": row.workspace, "time": row.time} for row in rows]
            runs = select(RUN.c.id, RUN.c.workspace).where(RUN.c.owner == owner).order_by(RUN.c.number.desc())
            rows = connection.execute(runs.limit(limit))
            found += [{"kind": "run", "id": row.id, "workspace": row.workspace, "time": None} for row in rows]
        return found

    def adopt(self, workspace: str, username: str) -> int:
        """Make a person the owner of all that the workspace owned before there were accounts. Returns how many
        objects that were."""
        with self._database.writing() as connection:
            count = 0
            for table in (SESSION, RUN, JOB, COLLECTION, COMPARISON):
                old = table.c.workspace == workspace, table.c.owner == workspace
                count += connection.execute(update(table).where(*old).values(owner=username)).rowcount
            old = SESSION_OWNER.c.workspace == workspace, SESSION_OWNER.c.owner == workspace
            connection.execute(update(SESSION_OWNER).where(*old).values(owner=username))
            count_change(connection)
        return count


def _session(workspace: str, session: str) -> tuple[ColumnElement[bool], ...]:
    return SESSION_MEMBER.c.workspace == workspace, SESSION_MEMBER.c.session == session


def _session_owner(connection: Connection, workspace: str, session: str) -> str | None:
    claimed = select(SESSION_OWNER.c.owner).where(
        SESSION_OWNER.c.workspace == workspace, SESSION_OWNER.c.session == session
    )
    found: str | None = connection.execute(claimed).scalar()
    if found is not None:
        return found
    # Before there were accounts, nobody claimed a session.
    for table, id_ in ((SESSION, SESSION.c.id), (JOB, JOB.c.session), (COLLECTION, COLLECTION.c.session)):
        wanted = select(table.c.owner).where(table.c.workspace == workspace, id_ == session).limit(1)
        older: str | None = connection.execute(wanted).scalar()
        if older is not None:
            return older
    shared = select(SHARED_VALUE.c.workspace).where(
        SHARED_VALUE.c.workspace == workspace, SHARED_VALUE.c.session == session
    )
    owner: str | None = connection.execute(shared.limit(1)).scalar()
    return owner


def session_owner(workspace: str, session: str) -> Any:
    """The claimed owner of a session, as part of another query; NULL: nobody has claimed it."""
    return (
        select(SESSION_OWNER.c.owner)
        .where(SESSION_OWNER.c.workspace == workspace, SESSION_OWNER.c.session == session)
        .scalar_subquery()
    )
