"""Passwords: argon2id, on a few threads of low priority, so that a wave of logins does not slow the model."""

import os
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from server.errors import QueueFullError

THREADS = 2
MOST_WAITING = 128
NICENESS = 10
RETRY_AFTER_SECONDS = 5
# https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
MEMORY_KIB, PASSES = 19_456, 2

Result = TypeVar("Result")


class Passwords:
    """Hashes and compares passwords. Safe for any number of threads."""

    def __init__(self) -> None:
        self._hasher = PasswordHash((Argon2Hasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1),))
        self._threads = ThreadPoolExecutor(THREADS, "passwords", initializer=_lower_priority)
        self._places = threading.BoundedSemaphore(MOST_WAITING)
        self._nobodys: str | None = None

    def hashed(self, password: str) -> str:
        """What is saved of a password. Raises `QueueFullError` while too many wait."""
        return self._run(lambda: self._hasher.hash(password))

    def fits(self, password: str, saved: str | None) -> bool:
        """Whether a password is the saved one. With None, for an unknown user, it is not, and that takes as long.
        Raises `QueueFullError`."""
        return self._run(lambda: self._hasher.verify(password, saved or self._of_nobody()) and saved is not None)

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _of_nobody(self) -> str:
        if self._nobodys is None:
            self._nobodys = self._hasher.hash(secrets.token_urlsafe())
        return self._nobodys

    def _run(self, work: Callable[[], Result]) -> Result:
        if not self._places.acquire(blocking=False):
            raise QueueFullError(
                f"{MOST_WAITING} logins wait. Try again in a moment.", retry_after=RETRY_AFTER_SECONDS
            )
        try:
            return self._threads.submit(work).result()
        finally:
            self._places.release()


def _lower_priority() -> None:
    if sys.platform == "linux":  # elsewhere it would be that of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
