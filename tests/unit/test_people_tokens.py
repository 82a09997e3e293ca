"""Access tokens, refresh tokens and passwords."""

import base64
import json
import threading
from pathlib import Path

import jwt
import pytest

from server.people.passwords import Passwords
from server.people.tokens import ACCESS_SECONDS, Tokens, digest, new_key
from server.store import Database
from server.store.people import Login, PeopleStore

SECRET = "s" * 48


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_an_access_token_names_its_login_until_it_expires() -> None:
    clock = Clock()
    tokens = Tokens(SECRET, clock)
    token = tokens.access("ann", "login1")
    assert tokens.login_of(token) == "login1"
    clock.now += ACCESS_SECONDS
    assert tokens.login_of(token) is None


def test_a_forged_access_token_names_nobody() -> None:
    tokens = Tokens(SECRET, Clock())
    head, claims, signature = tokens.access("ann", "login1").split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).decode().rstrip("=")
    for forged in (
        "",
        "..",
        f"{none}.{claims}.",
        f"{none}.{claims}.{signature}",
        f"{head}.{claims}.",
        Tokens("t" * 43, Clock()).access("ann", "login1"),
        jwt.encode({"sub": "ann", "sid": "login1"}, SECRET, "HS256"),
        jwt.encode({"sub": "ann", "sid": 5, "exp": 2_000_000}, SECRET, "HS256"),
        jwt.encode({"sub": "ann", "sid": "login1", "exp": 2_000_000}, SECRET, "HS384"),
        "é.é.é",
        "\ud800.x.y",
    ):
        assert tokens.login_of(forged) is None, forged


def test_a_forged_refresh_token_names_nothing() -> None:
    tokens = Tokens(SECRET)
    token = tokens.refresh("login1", 3)
    assert tokens.read_refresh(token) == ("login1", 3)
    _, _, signature = token.split(".")
    for forged in ("", "a.b.c", f"login1.4.{signature}", f"login2.3.{signature}", "login1.3.", "login1.³.x", "1.2"):
        assert tokens.read_refresh(forged) is None, forged


def test_a_key_is_named_by_its_prefix() -> None:
    key, prefix = new_key()
    assert key.startswith(f"hearth_{prefix}_") and len(key) > 50 and len(digest(key)) == 64


@pytest.fixture
def store(tmp_path: Path) -> PeopleStore:
    """A store with the login `l`."""
    made = PeopleStore(Database(tmp_path))
    made.add_login(Login("l", "ann", digest("cookie"), "", 0, 0.0, 0.0, 4e9))
    return made


def test_many_tabs_get_the_same_refresh_token(store: PeopleStore) -> None:
    assert {store.refresh("l", 0, grace=1e9) for _ in range(20)} == {1}
    assert {store.refresh("l", 1, grace=1e9) for _ in range(20)} == {1}, "it is new, and there is one"


def test_an_old_refresh_token_ends_its_login(store: PeopleStore) -> None:
    assert [store.refresh("l", number, grace=0) for number in (0, 1)] == [1, 2]
    assert store.refresh("l", 1, grace=0) is None
    assert store.refresh("l", 2, grace=0) is None, "the thief's next one, or the owner's"
    assert not store.credentials().logins


def test_a_much_older_one_ends_it_within_the_grace_too(store: PeopleStore) -> None:
    for number in range(3):
        assert store.refresh("l", number, grace=0) == number + 1
    assert store.refresh("l", 1, grace=1e9) is None


def test_each_change_is_counted(store: PeopleStore) -> None:
    before = store.changes()
    store.delete_login("ann", "l")
    assert store.changes() == before + 1 == store.credentials().number


def test_one_secret_for_a_database(store: PeopleStore) -> None:
    assert store.secret(make=False) is None
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(store.secret(make=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1


def test_passwords_are_salted_and_compared() -> None:
    passwords = Passwords()
    try:
        first, second = passwords.hashed("correct horse"), passwords.hashed("correct horse")
        assert first != second and first.startswith("$argon2id$")
        assert passwords.fits("correct horse", first)
        assert not passwords.fits("wrong horse", first)
        assert not passwords.fits("correct horse", None)
    finally:
        passwords.close()
