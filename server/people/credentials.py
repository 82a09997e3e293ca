"""From a credential to a `Principal`. Everything that is checked is in memory, so a check takes microseconds."""

import hmac
import logging
import threading
import time
from collections.abc import Callable

from constants import Settings
from server.errors import StoreError
from server.observability.logs import hide
from server.people.principal import SCOPES, Principal, Role, token_holder
from server.people.tokens import KEY, Tokens, digest
from server.store.people import Account, ApiKey, Credentials, Login, PeopleStore

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""Interval at which it is noticed what other servers of the database have changed."""
PAUSE_SECONDS = 5.0
"""Pause after the database could not be read. Until then the last known credentials count."""
NOTE_SECONDS = 60.0
"""Interval at which the last use of keys is saved."""


class CredentialCheck:
    """Knows all accounts and credentials. Safe for any number of threads."""

    def __init__(self, settings: Settings, store: PeopleStore) -> None:
        """Raises `StoreError`."""
        self._settings = settings
        self._store = store
        self.start_token = digest(settings.TOKEN) if settings.TOKEN else ""
        """Its SHA-256; empty: there is none."""
        self._known = store.credentials()
        self._tokens: Tokens | None = None
        self._uses: dict[str, float] = {}
        """Uses of keys that are not saved, by prefix."""
        self._looks_from = self._notes_from = 0.0
        self._loading = threading.Lock()

    # What is known

    @property
    def known(self) -> Credentials:
        """All, as they were at the last look."""
        return self._known

    @property
    def are_on(self) -> bool:
        """Whether there are accounts: then each person sees their own objects."""
        if self._settings.ACCOUNTS == "auto":
            return any(one.deleted is None for one in self._known.accounts.values())
        return self._settings.ACCOUNTS == "on"

    def account(self, username: str) -> Account | None:
        """The account of that name, unless it was deleted."""
        found = self._known.accounts.get(username)
        return None if found is None or found.deleted is not None else found

    def role_of(self, username: str) -> Role | None:
        """The role of the account of that name; None: there is none."""
        found = self.account(username)
        return None if found is None else found.role

    def person(self, username: str) -> Principal | None:
        """The person of that name, as if they had logged in; None: there is no such account."""
        found = self.account(username) if self.are_on else None
        return None if found is None else Principal(found.username, found.role, SCOPES[found.role], "login")

    def opened_by(self, principal: Principal) -> frozenset[str]:
        """The people whose objects an admin may read now."""
        now = time.time()
        if principal.role != "admin":
            return frozenset()
        return frozenset(
            person
            for (admin, person), until in self._known.openings.items()
            if admin == principal.name and until > now
        )

    def rights_now(self, principal: Principal) -> tuple[int, frozenset[str]]:
        """What somebody's rights depend on. If this is another value than before, they may be others."""
        return self._known.number, self.opened_by(principal)

    def tokens(self, make: bool = True) -> Tokens | None:
        """What signs tokens; without `make`, None before the first token. Raises `StoreError`."""
        if self._tokens is None and (secret := self._store.secret(make)) is not None:
            hide(secret)
            self._tokens = Tokens(secret)
        return self._tokens

    # Checking

    def of_bearer(self, secret: str, quick: bool = False) -> Principal | None:
        """Who has this start token, access token or API key; None: nobody. `quick`: from memory, if it is there."""
        if (holder := self.of_start_token(secret, quick)) is not None:
            return holder
        return self._find(lambda: self._of_key(secret) if secret.startswith(KEY) else self._of_access(secret), quick)

    def of_start_token(self, secret: str, quick: bool = False) -> Principal | None:
        """Who has this start token; None: it is none."""
        if not quick:
            self.look()
        token = self._settings.TOKEN
        if token and hmac.compare_digest(secret.encode(errors="surrogatepass"), token.encode()):
            return token_holder("start token", not self.are_on)
        return None

    def of_cookie(self, secret: str, quick: bool = False) -> Principal | None:
        """Whose cookie it is; None: nobody's. `quick`: from memory, if it is there."""
        saved = digest(secret)

        def find() -> Principal | None:
            found = self._known.cookies.get(saved)
            return None if found is None else self._of_login(found)

        return self._find(find, quick)

    def of_this_machine(self) -> Principal | None:
        """Who calls without a credential, where no token is asked for; None if there are accounts."""
        return None if self._settings.TOKEN or self.are_on else token_holder("local", True)

    def again(self, principal: Principal) -> Principal | None:
        """The same as they are now; None if the credential was revoked, or has expired."""
        self.look()
        if principal.credential == "key":
            key = next((one for one in self._known.keys.values() if one.prefix == principal.id), None)
            return None if key is None else self._with_key(key)
        if principal.id:
            login = self._known.logins.get(principal.id)
            return None if login is None else self._of_login(login)
        if principal.credential == "local":
            return self.of_this_machine()
        return token_holder("start token", not self.are_on)

    def _find(self, find: Callable[[], Principal | None], quick: bool) -> Principal | None:
        """What `find` finds; if it finds nothing, perhaps another server of the database knows more."""
        if not quick:
            self.look()
        found = find()
        if found is None:
            self.look(at_once=not quick)
            found = find()
        return found

    def _of_key(self, secret: str) -> Principal | None:
        key = self._known.keys.get(digest(secret))
        return None if key is None else self._with_key(key)

    def _with_key(self, key: ApiKey) -> Principal | None:
        account, now = self.account(key.username), time.time()
        if account is None or not self.are_on or (key.expires is not None and key.expires <= now):
            return None
        self._uses[key.prefix] = now
        # The role may be a lower one than when the key was made.
        return Principal(account.username, account.role, key.scopes & SCOPES[account.role], "key", key.prefix)

    def _of_access(self, token: str) -> Principal | None:
        if not self._known.logins or token.count(".") != 2 or (tokens := self.tokens(make=False)) is None:
            return None
        login = self._known.logins.get(tokens.login_of(token) or "")
        return None if login is None else self._of_login(login)

    def _of_login(self, login: Login) -> Principal | None:
        if login.expires <= time.time():
            return None
        if not login.username:
            is_current = hmac.compare_digest(login.start_token, self.start_token)
            return token_holder("start token", not self.are_on, login.id) if is_current else None
        account = self.account(login.username)
        if account is None or not self.are_on:
            return None
        return Principal(account.username, account.role, SCOPES[account.role], "login", login.id)

    # Looking

    def look(self, at_once: bool = False) -> bool:
        """Notice what has changed, at most every `LOOK_SECONDS` unless `at_once`. Returns whether something has. If
        the database can't be read, the last known credentials count."""
        if time.monotonic() < self._looks_from and not at_once:
            return False
        # A database that does not answer holds up one request, and not all.
        if not self._loading.acquire(blocking=at_once):
            return False
        try:
            now = time.monotonic()
            self._looks_from = now + LOOK_SECONDS
            self._note_uses(now)
            if self._store.changes() == self._known.number:
                return False
            self._known = self._store.credentials()
        except StoreError as error:
            self._looks_from = time.monotonic() + PAUSE_SECONDS
            log.warning("changes of accounts are not noticed: %s", error.message)
            return False
        finally:
            self._loading.release()
        return True

    def _note_uses(self, now: float) -> None:
        if self._uses and now >= self._notes_from:
            uses, self._uses = self._uses, {}
            self._notes_from = now + NOTE_SECONDS
            self._store.note_uses(uses)
