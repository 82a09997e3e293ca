"""Secrets that clients hold: access tokens, refresh tokens, keys, cookies and invitations."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

import jwt

ACCESS_SECONDS = 900
"""How long an access token is valid, unless its login ends earlier."""
_ALGORITHM = "HS256"
KEY = "hearth_"
"""How API keys begin."""


def new_secret() -> str:
    """256 random bits, as text."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is saved of a secret of 256 random bits. No slow hash is needed for so many."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def new_key() -> tuple[str, str]:
    """A new API key and its prefix, which names it."""
    prefix = secrets.token_hex(4)
    return f"{KEY}{prefix}_{new_secret()}", prefix


class Tokens:
    """Signs and reads the tokens of logins. A token only names a login; whether that is still there is for others to
    check."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret.encode()
        self._clock = clock

    def access(self, username: str, login: str) -> str:
        """An access token: a JWT of `ACCESS_SECONDS`."""
        now = int(self._clock())
        claims = {"sub": username, "sid": login, "iat": now, "exp": now + ACCESS_SECONDS}
        return jwt.encode(claims, self._secret, _ALGORITHM)

    def login_of(self, token: str) -> str | None:
        """The login that an access token names; None if it is forged or has expired."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                [_ALGORITHM],
                options={"require": ["sub", "sid", "exp"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, UnicodeEncodeError):
            return None
        login, expires = claims["sid"], claims["exp"]
        is_valid = isinstance(login, str) and isinstance(expires, int) and self._clock() < expires
        return login if is_valid else None

    def refresh(self, login: str, number: int) -> str:
        """The refresh token of that number of a login: whoever knows the secret can make it again."""
        return f"{login}.{number}.{self._signature(login, number)}"

    def read_refresh(self, token: str) -> tuple[str, int] | None:
        """The login and the number in a refresh token; None if it is forged."""
        parts = token.split(".")
        if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit() and len(parts[1]) < 10):
            return None
        login, number = parts[0], int(parts[1])
        if not hmac.compare_digest(self._signature(login, number).encode(), parts[2].encode(errors="surrogatepass")):
            return None
        return login, number

    def _signature(self, login: str, number: int) -> str:
        return hmac.new(self._secret, f"refresh {login}.{number}".encode(), hashlib.sha256).hexdigest()
