"""The limits that hold for a person, and whether they are reached."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from server.errors import QuotaReachedError, StoreError
from server.store.usage import QuotaStore, UsageStore, Used

log = logging.getLogger(__name__)

JOBS_RETRY_SECONDS = 10
"""When to ask again where nobody knows when a place is free."""


@dataclass(frozen=True)
class Limits:
    """What a person may use; None: without a limit."""

    tokens_per_day: int | None = None
    """Tokens that the model processes on a day of UTC."""
    runs_at_once: int | None = None
    jobs_at_once: int | None = None
    """Jobs that wait or run."""
    disk_bytes: int | None = None
    """Files of sessions, with variables that are saved, and documents."""


class Quotas:
    """Safe for any number of threads. A limit of a person replaces the same limit of the person's role."""

    def __init__(
        self,
        store: QuotaStore,
        usage: UsageStore,
        disk_bytes: Callable[[str], int],
        role_of: Callable[[str], str | None] = lambda person: None,
        tokens_in_flight: Callable[[str], int] = lambda person: 0,
    ) -> None:
        """`disk_bytes`: what a person's files and documents take. `role_of`: the role of a person, if it is known.
        `tokens_in_flight`: tokens that a person's runs and jobs have used whose usage is not saved yet."""
        self.store = store
        self.usage = usage
        self._disk_bytes = disk_bytes
        self._role_of = role_of
        self._tokens_in_flight = tokens_in_flight
        self._remembered: dict[str, Limits] = {}
        self._changing = threading.Lock()

    def names_of(self, person: str) -> list[str]:
        """The names whose quotas hold for a person: the role, if it is known, and the person's."""
        return [name for name in (self._role_of(person), person) if name is not None]

    def limits_of(self, person: str) -> Limits:
        """The limits that hold for a person; while the database can't be read, those that held last."""
        try:
            names = self.names_of(person)
            found = self.store.get(names)
        except StoreError as error:
            log.warning("quotas can't be read, so those that were read last hold: %s", error.message)
            return self._remembered.get(person, Limits())
        merged: dict[str, int] = {}
        for name in names:
            merged |= found.get(name, {})
        limits = Limits(**merged)
        with self._changing:
            if limits == Limits():
                self._remembered.pop(person, None)
            else:
                self._remembered[person] = limits
        return limits

    def check_tokens(self, person: str, limits: Limits) -> None:
        """Raises `QuotaReachedError` if the person has used up the tokens of the day. Those of a run or a job that is
        just being saved may count twice. While the database can't be read, nobody is refused: questions are answered
        then."""
        most = limits.tokens_per_day
        if most is None:
            return
        try:
            used = self._tokens_in_flight(person) + self.usage.tokens_today(person)
        except StoreError as error:
            log.warning("the usage of %r can't be read, so the quota is not checked: %s", person, error.message)
            return
        if used >= most:
            raise reached("tokens_per_day", f"{person!r} has used {used} tokens today", most, used, _next_midnight())

    def count(self, used: Used) -> None:
        """Save what a call has used of which nothing else is saved. Never raises: the call has an answer."""
        if used.tokens_processed:
            try:
                self.usage.add(used)
            except StoreError as error:
                log.warning("what a call of %r has used was not saved: %s", used.person, error.message)

    def check_disk(self, person: str, more: int) -> None:
        """Raises `QuotaReachedError` if the person's files would take more than they may, with `more` bytes."""
        most = self.limits_of(person).disk_bytes
        if most is None:
            return
        used = self._disk_bytes(person)
        if used + more > most or used >= most:
            sentence = f"The files and documents of {person!r} take {used} bytes, and {more} more were sent"
            raise reached("disk_bytes", f"{sentence}. Delete some", most, used, None)


def runs_reached(person: str, most: int, running: int, seconds: float) -> QuotaReachedError:
    """The error for a person who has as many runs in flight as allowed. `seconds`: until one may end."""
    free_at = datetime.now(UTC) + timedelta(seconds=seconds)
    return reached("runs_at_once", f"{person!r} has {running} questions in flight", most, running, free_at)


def check_jobs(person: str, most: int | None, number: int) -> None:
    """Raises `QuotaReachedError` if the person has as many jobs as allowed."""
    if most is not None and number >= most:
        error = reached("jobs_at_once", f"{person!r} has {number} jobs that wait or run", most, number, None)
        error.details["retry_after"] = JOBS_RETRY_SECONDS
        raise error


def reached(quota: str, sentence: str, limit: int, used: int, free_at: datetime | None) -> QuotaReachedError:
    """The error. `free_at`: when it is free again; None: when the person has done something."""
    details: dict[str, Any] = {"quota": quota, "limit": limit, "used": used, "free_at": None}
    when = ""
    if free_at is not None:
        details["free_at"] = free_at.isoformat(timespec="seconds").replace("+00:00", "Z")
        details["retry_after"] = max(int((free_at - datetime.now(UTC)).total_seconds()) + 1, 1)
        when = f" Ask again after {details['free_at']}."
    return QuotaReachedError(f"{sentence}; the quota {quota} is {limit}.{when} An admin can change it.", **details)


def shown(limits: Mapping[str, int]) -> dict[str, int | None]:
    """Limits as the routes show them."""
    return asdict(Limits(**limits))


def _next_midnight() -> datetime:
    return datetime.combine(datetime.now(UTC).date() + timedelta(days=1), time(), UTC)
