"""Accounts, invitations, logins and API keys."""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from server.errors import (
    AccountExistsError,
    AccountNotFoundError,
    InvitationRefusedError,
    KeyNotFoundError,
    LoginNotFoundError,
)
from server.people.principal import Role, Scope
from server.store.database import Database
from server.store.tables import (
    ACCOUNT,
    API_KEY,
    INVITATION,
    LOGIN,
    OPENING,
    PEOPLE_STATE,
    SESSION_MEMBER,
    WORKSPACE_MEMBER,
)

_CHANGES, _SECRET = "changes", "secret"


@dataclass(frozen=True)
class Account:
    """A person. Times are seconds since 1970. A deleted one keeps its name, so that nobody else gets its objects."""

    username: str
    role: Role
    password: str
    created: float
    used: float | None
    deleted: float | None


@dataclass(frozen=True)
class Login:
    """The family of a cookie and of refresh tokens. `username`: empty for who has the start token."""

    id: str
    username: str
    cookie: str
    start_token: str
    refreshes: int
    refreshed: float
    created: float
    expires: float


@dataclass(frozen=True)
class ApiKey:
    """A key. `expires`: None: never."""

    prefix: str
    username: str
    digest: str
    name: str
    scopes: frozenset[Scope]
    created: float
    expires: float | None
    used: float | None


@dataclass(frozen=True)
class Credentials:
    """All accounts and credentials at one moment. `number`: how many changes there were until then."""

    number: int
    accounts: Mapping[str, Account]
    logins: Mapping[str, Login]
    keys: Mapping[str, ApiKey]
    openings: Mapping[tuple[str, str], float]
    """Until when an admin may read a person's objects."""

    @cached_property
    def cookies(self) -> dict[str, Login]:
        """The logins by the digests of their cookies."""
        return {one.cookie: one for one in self.logins.values()}


class PeopleStore:
    """People by their names. Each change is counted, so that all servers of the database notice it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Reading

    def changes(self) -> int:
        """How many changes there were. Raises `StoreError`."""
        with self._database.reading() as connection:
            return _changes(connection)

    def credentials(self) -> Credentials:
        """All that has not expired. Raises `StoreError`."""
        now = time.time()
        with self._database.reading() as connection:
            return Credentials(
                _changes(connection),
                {row.username: Account(**row._mapping) for row in connection.execute(select(ACCOUNT))},
                {
                    row.id: Login(**row._mapping)
                    for row in connection.execute(select(LOGIN).where(LOGIN.c.expires > now))
                },
                {
                    row.digest: ApiKey(**{**row._mapping, "scopes": frozenset(json.loads(row.scopes))})
                    for row in connection.execute(select(API_KEY))
                },
                {
                    (row.admin, row.username): row.until
                    for row in connection.execute(select(OPENING).where(OPENING.c.until > now))
                },
            )

    def secret(self, make: bool) -> str | None:
        """What signs tokens. It is made once for the database, if `make`; else None if there is none."""
        wanted = select(PEOPLE_STATE.c.value).where(PEOPLE_STATE.c.name == _SECRET)
        with self._database.reading() as connection:
            found: str | None = connection.execute(wanted).scalar()
        if found is not None or not make:
            return found
        with self._database.writing() as connection:
            # Another server may have been faster.
            found = connection.execute(wanted).scalar()
            if found is None:
                found = secrets.token_urlsafe(32)
                connection.execute(insert(PEOPLE_STATE).values(name=_SECRET, value=found))
        return found

    # Accounts

    def check_invitation(self, invitation: str | None) -> None:
        """Raises `InvitationRefusedError` if `add_account` would now."""
        with self._database.reading() as connection:
            if invitation is None:
                _check_first(connection)
            elif connection.execute(select(INVITATION.c.role).where(*_usable(invitation))).scalar() is None:
                raise _refused()

    def add_account(self, username: str, password: str, invitation: str | None) -> Role:
        """Make an account by an invitation's digest, or with None the first one, an admin. Returns its role.

        Raises `AccountExistsError`, `InvitationRefusedError`.
        """
        now = time.time()
        with self._database.writing() as connection:
            if connection.execute(select(ACCOUNT.c.username).where(ACCOUNT.c.username == username)).scalar():
                raise AccountExistsError(f"The username {username!r} is taken. Choose another one.")
            role: Role = "admin"
            if invitation is None:
                _check_first(connection)
            else:
                wanted = update(INVITATION).where(*_usable(invitation)).values(username=username)
                if not connection.execute(wanted).rowcount:
                    raise _refused()
                role = connection.execute(
                    select(INVITATION.c.role).where(INVITATION.c.digest == invitation)
                ).scalar_one()
            connection.execute(insert(ACCOUNT).values(username=username, role=role, password=password, created=now))
            count_change(connection)
        return role

    def set_role(self, username: str, role: Role) -> None:
        """Give an account another role. Raises `AccountNotFoundError`."""
        self._change_account(username, {"role": role})

    def set_password(self, username: str, password: str, but: str) -> None:
        """Save another password, and end all logins except `but`. Raises `AccountNotFoundError`."""
        self._change_account(username, {"password": password}, but)

    def delete_account(self, username: str) -> None:
        """Delete an account with its credentials and memberships. What it owns stays. Raises
        `AccountNotFoundError`."""
        with self._database.writing() as connection:
            _update_account(connection, username, {"deleted": time.time(), "password": ""})
            for table in (LOGIN, API_KEY, SESSION_MEMBER):
                connection.execute(delete(table).where(table.c.username == username))
            # An owner stays: otherwise the next account of the workspace's name would get it.
            connection.execute(
                delete(WORKSPACE_MEMBER).where(
                    WORKSPACE_MEMBER.c.username == username, WORKSPACE_MEMBER.c.role != "owner"
                )
            )
            connection.execute(delete(OPENING).where(OPENING.c.admin == username))
            count_change(connection)

    def _change_account(self, username: str, values: Mapping[str, object], but: str | None = None) -> None:
        with self._database.writing() as connection:
            _update_account(connection, username, values)
            if but is not None:
                connection.execute(delete(LOGIN).where(LOGIN.c.username == username, LOGIN.c.id != but))
            count_change(connection)

    def add_invitation(self, digest: str, role: Role, inviter: str, expires: float) -> None:
        """Save an invitation; those that have expired go."""
        now = time.time()
        row = {"digest": digest, "role": role, "inviter": inviter, "created": now, "expires": expires}
        with self._database.writing() as connection:
            connection.execute(delete(INVITATION).where(INVITATION.c.expires < now))
            connection.execute(insert(INVITATION).values(row))

    # Logins

    def add_login(self, login: Login) -> None:
        """Save a login; those that have expired go."""
        with self._database.writing() as connection:
            connection.execute(delete(LOGIN).where(LOGIN.c.expires < time.time()))
            connection.execute(insert(LOGIN).values(vars(login)))
            used = update(ACCOUNT).where(ACCOUNT.c.username == login.username)
            connection.execute(used.values(used=login.created))
            count_change(connection)

    def refresh(self, login: str, number: int, grace: float) -> int | None:
        """The number of the login's current refresh token, for who has number `number`.

        A current one is followed by the next, but for `grace` seconds it is the answer to all who had the one before.
        Any other one was used long ago: None, and the login ends. None too if there is no such login.
        """
        now = time.time()
        with self._database.writing() as connection:
            row = connection.execute(select(LOGIN).where(LOGIN.c.id == login, LOGIN.c.expires > now)).one_or_none()
            if row is None:
                return None
            is_new = now - row.refreshed < grace
            if number == row.refreshes and not (is_new and number):
                next_ = {"refreshes": number + 1, "refreshed": now}
                connection.execute(update(LOGIN).where(LOGIN.c.id == login).values(next_))
                return number + 1
            if is_new and number in (row.refreshes, row.refreshes - 1):
                return number if number == row.refreshes else number + 1
            connection.execute(delete(LOGIN).where(LOGIN.c.id == login))
            count_change(connection)
        return None

    def delete_login(self, username: str, login: str) -> None:
        """End a login of a person. Raises `LoginNotFoundError`."""
        with self._database.writing() as connection:
            wanted = delete(LOGIN).where(LOGIN.c.id == login, LOGIN.c.username == username)
            if not connection.execute(wanted).rowcount:
                raise LoginNotFoundError(f"You have no login {login!r}. GET /auth/logins lists yours.")
            count_change(connection)

    # Keys

    def add_key(self, key: ApiKey) -> None:
        """Save a key."""
        with self._database.writing() as connection:
            connection.execute(insert(API_KEY).values({**vars(key), "scopes": json.dumps(sorted(key.scopes))}))
            count_change(connection)

    def delete_key(self, username: str, prefix: str) -> None:
        """Revoke a key of a person. Raises `KeyNotFoundError`."""
        with self._database.writing() as connection:
            wanted = delete(API_KEY).where(API_KEY.c.prefix == prefix, API_KEY.c.username == username)
            if not connection.execute(wanted).rowcount:
                raise KeyNotFoundError(f"You have no key {prefix!r}. GET /auth/keys lists yours.")
            count_change(connection)

    def note_uses(self, uses: Mapping[str, float]) -> None:
        """Save when keys were last used, by their prefixes."""
        with self._database.writing() as connection:
            for prefix, used in uses.items():
                connection.execute(update(API_KEY).where(API_KEY.c.prefix == prefix).values(used=used))

    def open_person(self, admin: str, username: str, until: float) -> None:
        """Let an admin read a person's objects until then."""
        with self._database.writing() as connection:
            mine = OPENING.c.admin == admin, OPENING.c.username == username
            connection.execute(delete(OPENING).where(*mine))
            connection.execute(insert(OPENING).values(admin=admin, username=username, until=until))
            count_change(connection)


def _check_first(connection: Connection) -> None:
    if connection.execute(select(func.count()).where(ACCOUNT.c.deleted.is_(None))).scalar_one():
        raise InvitationRefusedError(
            "Only the first account needs no invitation. An admin makes one with POST /auth/invitations."
        )


def _usable(invitation: str) -> tuple[Any, ...]:
    return INVITATION.c.digest == invitation, INVITATION.c.username.is_(None), INVITATION.c.expires > time.time()


def _refused() -> InvitationRefusedError:
    return InvitationRefusedError("The invitation is wrong, was used, or has expired. Ask an admin for a new one.")


def _update_account(connection: Connection, username: str, values: Mapping[str, object]) -> None:
    wanted = update(ACCOUNT).where(ACCOUNT.c.username == username, ACCOUNT.c.deleted.is_(None))
    if not connection.execute(wanted.values(**values)).rowcount:
        raise AccountNotFoundError(f"There is no account {username!r}. GET /people lists them.")


def _changes(connection: Connection) -> int:
    found = connection.execute(select(PEOPLE_STATE.c.value).where(PEOPLE_STATE.c.name == _CHANGES)).scalar()
    return int(found or 0)


def count_change(connection: Connection) -> None:
    """Count a change, within its transaction."""
    number = _changes(connection)
    if number:
        connection.execute(update(PEOPLE_STATE).where(PEOPLE_STATE.c.name == _CHANGES).values(value=str(number + 1)))
    else:
        connection.execute(insert(PEOPLE_STATE).values(name=_CHANGES, value="1"))
