"""What people do with accounts: register, log in and out, make keys; and what admins do."""

import re
import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from server.audit.log import AuditLog
from server.errors import (
    AccountNotFoundError,
    AccountsOffError,
    ForbiddenError,
    InvalidRequestError,
    UnauthorizedError,
)
from server.people.credentials import CredentialCheck
from server.people.passwords import Passwords
from server.people.principal import MAIN, NOBODY, SCOPES, Principal, Role, Scope
from server.people.tokens import ACCESS_SECONDS, Tokens, digest, new_key, new_secret
from server.store.people import Account, ApiKey, Login, PeopleStore

USERNAME = re.compile(r"[a-z0-9][a-z0-9-]{1,31}")
RESERVED = frozenset({MAIN, NOBODY, "server", "token", *SCOPES})
"""No usernames. The audit log names those so who are no accounts, and a role's quota has the role's name."""
LOGIN_SECONDS = 30 * 86_400.0
"""How long a login lasts."""
INVITATION_SECONDS = 7 * 86_400.0
OPENING_SECONDS = 3600.0
TICKET_SECONDS = 60.0
GRACE_SECONDS = 30.0
"""After a refresh token was used, how long others get the same new one for it: a browser has many tabs."""


@dataclass(frozen=True)
class LoggedIn:
    """What a client gets by a login. `cookie`: for a browser; the others are for scripts."""

    login: str
    username: str
    access_token: str
    refresh_token: str
    cookie: str
    expires_in: int = ACCESS_SECONDS


class Accounts:
    """Safe for any number of threads."""

    def __init__(self, store: PeopleStore, check: CredentialCheck, audit: AuditLog, setting: str) -> None:
        """`setting`: HEARTH_ACCOUNTS."""
        self._store = store
        self._check = check
        self._audit = audit
        self._setting = setting
        self._passwords = Passwords()
        self._tickets: dict[str, tuple[Principal, float]] = {}
        self._changing = threading.Lock()

    def close(self) -> None:
        """End the threads for passwords."""
        self._passwords.close()

    # Becoming somebody

    def invite(self, inviter: Principal, role: Role) -> tuple[str, float]:
        """A new invitation, for one account of that role, and when it expires. Raises `AccountsOffError`."""
        self._require_accounts()
        invitation, expires = new_secret(), time.time() + INVITATION_SECONDS
        self._store.add_invitation(digest(invitation), role, inviter.actor, expires)
        self._audit.record(inviter.actor, "invitation.created", role=role)
        return invitation, expires

    def register(self, username: str, password: str, invitation: str | None, by: Principal | None) -> Role:
        """Make an account. The first one needs the start token and no invitation; it is an admin's. Returns the role.

        Raises `AccountsOffError`, `InvalidRequestError`, `InvitationRefusedError`, `AccountExistsError`.
        """
        if self._setting == "off":
            raise AccountsOffError("The server has no accounts: HEARTH_ACCOUNTS is off.")
        if not USERNAME.fullmatch(username) or username in RESERVED:
            raise InvalidRequestError(
                f"{username[:64]!r} can't be a username: it has 2 to 32 lower-case letters, digits and -, begins "
                f"with no -, and is none of {', '.join(sorted(RESERVED))}."
            )
        if invitation is None and (by is None or by.name != MAIN):
            raise UnauthorizedError(
                "An account needs an invitation; the first one needs the start token instead: send it as "
                "`Authorization: Bearer <token>`."
            )
        # Before the slow hash, which a wrong invitation is not worth.
        self._store.check_invitation(None if invitation is None else digest(invitation))
        saved = self._passwords.hashed(password)
        role = self._store.add_account(username, saved, None if invitation is None else digest(invitation))
        self._check.look(at_once=True)
        self._audit.record(username, "account.registered", username, role=role)
        return role

    def log_in(self, username: str, password: str) -> LoggedIn:
        """A new login by a password. Raises `UnauthorizedError`, `QueueFullError`, `AccountsOffError`."""
        self._require_accounts()
        self._check.look(at_once=True)
        account = self._check.account(username)
        if not self._passwords.fits(password, None if account is None else account.password):
            # Whoever it was, nothing has shown that they are the person of that name.
            self._audit.record(NOBODY, "login.failed", username[:64])
            raise UnauthorizedError("Username or password is wrong.")
        return self._new_login(username, "")

    def log_in_by_token(self, token: str) -> LoggedIn:
        """A new login for who has the start token. Raises `UnauthorizedError`."""
        if self._check.of_start_token(token) is None:
            raise UnauthorizedError("The token is wrong. The server prints it when it starts.")
        return self._of_token_holder()

    def _of_token_holder(self) -> LoggedIn:
        return self._new_login("", self._check.start_token)

    def ticket(self, principal: Principal) -> tuple[str, int]:
        """A text that logs a browser in once, and for how many seconds."""
        ticket, now = new_secret(), time.monotonic()
        with self._changing:
            self._tickets = {one: given for one, given in self._tickets.items() if given[1] > now}
            self._tickets[digest(ticket)] = principal, now + TICKET_SECONDS
        return ticket, int(TICKET_SECONDS)

    def log_in_by_link(self, secret: str) -> LoggedIn:
        """A new login by the start token or a ticket in a link. Raises `UnauthorizedError`."""
        principal = self._check.of_start_token(secret)
        if principal is None:
            with self._changing:
                principal, until = self._tickets.pop(digest(secret), (None, 0.0))
            principal = None if principal is None or until < time.monotonic() else self._check.again(principal)
        if principal is None:
            raise UnauthorizedError(
                "The token in the link is wrong, or was used. The server prints a link when it starts; "
                "`Authorization: Bearer <token>` works too."
            )
        return self._of_token_holder() if principal.name == MAIN else self._new_login(principal.name, "")

    def _new_login(self, username: str, start_token: str) -> LoggedIn:
        cookie, now = new_secret(), time.time()
        login = Login(secrets.token_hex(8), username, digest(cookie), start_token, 0, now, now, now + LOGIN_SECONDS)
        tokens = self._tokens()
        self._store.add_login(login)
        self._check.look(at_once=True)
        self._audit.record(username or "start token", "login.succeeded", login.id)
        return LoggedIn(
            login.id, username or MAIN, tokens.access(username, login.id), tokens.refresh(login.id, 0), cookie
        )

    def refresh(self, token: str) -> LoggedIn:
        """New tokens for a refresh token. Raises `UnauthorizedError`; if the token was used long ago, its login
        ends."""
        read = self._tokens().read_refresh(token)
        login = None if read is None else self._login(read[0])
        number = None if read is None or login is None else self._store.refresh(*read, GRACE_SECONDS)
        if read is None or login is None or number is None:
            if login is not None:
                self._check.look(at_once=True)
                self._audit.record(login.username or "start token", "login.revoked", login.id, reason="replay")
            raise UnauthorizedError("The refresh token is wrong, was used, or has expired. Log in again.")
        tokens = self._tokens()
        access, refreshed = tokens.access(login.username, login.id), tokens.refresh(login.id, number)
        return LoggedIn(login.id, login.username or MAIN, access, refreshed, "")

    def _login(self, login: str) -> Login | None:
        self._check.look()
        found = self._check.known.logins.get(login)
        if found is None:
            self._check.look(at_once=True)
            found = self._check.known.logins.get(login)
        return found

    # One's own

    def logins(self, principal: Principal) -> list[Login]:
        """The logins of a person, the latest first."""
        name = "" if principal.name == MAIN else principal.name
        mine = [one for one in self._check.known.logins.values() if one.username == name]
        return sorted(mine, key=lambda one: one.created, reverse=True)

    def end_login(self, principal: Principal, login: str) -> None:
        """End a login of a person, with its tokens and its cookie. Raises `LoginNotFoundError`."""
        self._store.delete_login("" if principal.name == MAIN else principal.name, login)
        self._check.look(at_once=True)
        self._audit.record(principal.actor, "login.revoked", login)

    def set_password(self, principal: Principal, old: str, new: str) -> None:
        """Another password; all other logins end. Raises `UnauthorizedError`, `ForbiddenError`."""
        account = self._own_account(principal)
        if not self._passwords.fits(old, account.password):
            raise ForbiddenError("The old password is wrong.")
        self._store.set_password(principal.name, self._passwords.hashed(new), but=principal.id)
        self._check.look(at_once=True)
        self._audit.record(principal.actor, "login.revoked", principal.name, reason="new password")

    def keys(self, principal: Principal) -> list[ApiKey]:
        """The keys of a person, the latest first."""
        mine = [one for one in self._check.known.keys.values() if one.username == principal.name]
        return sorted(mine, key=lambda one: one.created, reverse=True)

    def make_key(
        self, principal: Principal, name: str, scopes: Collection[Scope] | None, expires: float | None
    ) -> tuple[str, ApiKey]:
        """A new key, whose text is never shown again. `scopes`: default: all of the person's. `expires`: seconds
        since 1970. Raises `ForbiddenError`."""
        self._own_account(principal)
        allowed = SCOPES[principal.role]
        wanted = allowed if scopes is None else frozenset(scopes)
        if not wanted <= allowed:
            raise ForbiddenError(
                f"A key can't do more than its owner, who has: {', '.join(sorted(allowed))}. Leave out "
                f"{', '.join(sorted(wanted - allowed))}."
            )
        text, prefix = new_key()
        key = ApiKey(prefix, principal.name, digest(text), name, wanted, time.time(), expires, None)
        self._store.add_key(key)
        self._check.look(at_once=True)
        self._audit.record(principal.actor, "key.created", prefix, scopes=sorted(wanted))
        return text, key

    def revoke_key(self, principal: Principal, prefix: str) -> None:
        """Raises `KeyNotFoundError`."""
        self._store.delete_key(principal.name, prefix)
        self._check.look(at_once=True)
        self._audit.record(principal.actor, "key.revoked", prefix)

    def _own_account(self, principal: Principal) -> Account:
        if principal.credential == "key":
            raise ForbiddenError("An API key can't change passwords and keys. Log in with the password.")
        account = self._check.account(principal.name)
        if account is None:
            raise AccountsOffError(
                "The start token is no account. Register one with POST /auth/register, and log in."
            )
        return account

    # Admins

    def set_role(self, admin: Principal, username: str, role: Role) -> None:
        """Raises `AccountNotFoundError`."""
        self._store.set_role(username, role)
        self._check.look(at_once=True)
        self._audit.record(admin.actor, "role.changed", username, role=role)

    def delete(self, admin: Principal, username: str) -> None:
        """Delete an account; what it owns stays, and nobody else gets its name. Raises `AccountNotFoundError`."""
        self._store.delete_account(username)
        self._check.look(at_once=True)
        self._audit.record(admin.actor, "account.deleted", username)

    def require(self, username: str) -> Principal:
        """The person of that name. Raises `AccountNotFoundError`."""
        found = self._check.person(username)
        if found is None:
            raise AccountNotFoundError(f"There is no account {username!r}.")
        return found

    def open_person(self, admin: Principal, username: str, reason: str) -> float:
        """Let an admin read a person's objects, and record it. Returns until when. Raises `AccountNotFoundError`."""
        if username not in self._check.known.accounts:
            raise AccountNotFoundError(f"There is no account {username!r}. GET /people lists them.")
        until = time.time() + OPENING_SECONDS
        self._audit.record(admin.actor, "person.opened", username, reason=reason)
        self._store.open_person(admin.name, username, until)
        self._check.look(at_once=True)
        return until

    def _require_accounts(self) -> None:
        if not self._check.are_on:
            raise AccountsOffError(
                "The server has no accounts. POST /auth/register with the start token makes the first one, unless "
                "HEARTH_ACCOUNTS is off."
            )

    def _tokens(self) -> Tokens:
        tokens = self._check.tokens()
        assert tokens is not None, "it was made"
        return tokens
