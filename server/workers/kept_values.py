"""The values that `keep` saves, on the server's side. Workers write the files; the server decides which are valid,
and unpickles nothing.

A worker writes a value into a *draft* and reports it. While its generation is on trial, other workers must not see
the value; so the draft waits. When the generation becomes live, a rename makes it the saved value of its name, unless
another worker was first. A draft may say in its header that it replaces a certain saved value, which its worker could
not load: then it replaces that value, if the value is still there.

The files are the only index: a restarted server reads their headers.
"""

import dataclasses
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import StoreError
from server.sdk.saved_values import (
    Header,
    KeptReport,
    Name,
    Seconds,
    TypeName,
    is_name,
    open_value,
    read_header,
    saved_file_name,
)

log = logging.getLogger(__name__)

MOST_IN_TRIAL = 10_000
"""Maximum number of names from one worker. Further values are not listed, and not saved while the generation is on
trial."""


class InvalidReportError(ValueError):
    """A worker sent something that is not a report."""


class _Report(BaseModel):
    """A `KeptReport`, checked."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    name: Name
    type: TypeName
    bytes: Annotated[int, Field(ge=0, lt=2**63)] | None
    built: Seconds
    kind: Literal["saved", "in_worker"]
    draft: Annotated[str, Field(pattern=r"^[0-9a-f]{16}-[0-9a-f]{32}\.draft$")] | None


@dataclass(frozen=True)
class Kept:
    """A value. `bytes`: the size of its file; for a value that is not saved, an estimate of its memory, or None.
    `built`: in seconds since 1970. `kind`: "saved", or "in_worker" where each worker builds its own."""

    name: str
    type: str
    bytes: int | None
    built: float
    kind: Literal["saved", "in_worker"]


class KeptStore:
    """The values of one workspace. Safe for any number of threads. A folder has at most one `KeptStore` at a time."""

    def __init__(self, folder: Path) -> None:
        """Removes the drafts that an earlier server left in `folder`."""
        self.folder = folder
        self._changing = threading.RLock()
        self._trials: list[Trial] = []
        self._remove_drafts("")

    def trial(self) -> "Trial":
        """Where a new worker reports the values that it builds. Creates the folder."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:  # the worker then builds its values and can't save them
            log.warning("the folder of saved values can't be made: %s", error)
        trial = Trial(self)
        with self._changing:
            self._trials.append(trial)
        return trial

    def values(self) -> list[Kept]:
        """The saved values, and those that live workers have built for themselves, sorted by name."""
        found = {}
        for path in self._files(".value"):
            header = _header(path)
            if header is not None and saved_file_name(header.name) == path.name:
                found[header.name] = Kept(header.name, header.type, header.size, header.built, "saved")
        for one in self._in_workers():
            # A saved value may be older: one that the code of today neither loads nor pickles.
            if one.name not in found or found[one.name].built <= one.built:
                found[one.name] = one
        return sorted(found.values(), key=lambda one: one.name)

    def rebuilt(self) -> list[str]:
        """The names of the values that each worker builds for itself."""
        return [one.name for one in self.values() if one.kind == "in_worker"]

    def drop(self, name: str) -> bool:
        """Remove a value, also one on trial. Returns whether there was one. Workers that have loaded it use it
        until they are asked to drop it. Raises `StoreError`."""
        if not is_name(name):
            return False
        with self._changing:
            known = [trial._forget(name) for trial in self._trials]
            try:
                (self.folder / saved_file_name(name)).unlink()
            except FileNotFoundError:
                return any(known)
            except OSError as error:
                raise StoreError(f"The value {name!r} can't be removed: {error.strerror}.") from error
        return True

    def _in_workers(self) -> list[Kept]:
        with self._changing:
            return [one for trial in self._trials if trial._state == "live" for one in trial._in_worker.values()]

    def _commit(self, name: str, draft: str) -> None:
        """Make the draft the saved value of that name, or remove it."""
        path, place = self.folder / draft, self.folder / saved_file_name(name)
        new, old = _header(path), _header(place)
        if new is None or new.name != name:
            log.warning("a worker reported a value %r whose draft is missing or damaged", name)
        elif old is None or old.name != name or old.id == new.replaces:
            try:
                os.replace(path, place)
                return
            except OSError as error:
                log.warning("the value %r can't be saved: %s", name, error)
        self._remove(draft)

    def _remove(self, draft: str) -> None:
        with suppress(OSError):
            os.unlink(self.folder / draft)

    def _remove_drafts(self, prefix: str) -> None:
        for path in self._files(".draft"):
            if path.name.startswith(prefix):
                self._remove(path.name)

    def _files(self, suffix: str) -> Iterator[Path]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the saved values can't be listed: %s", error)
            return
        yield from (self.folder / name for name in names if name.endswith(suffix))


class Trial:
    """The values that one worker has built. No other worker sees them before `commit`.

    `drafts`: the prefix of the names of the worker's drafts.
    """

    def __init__(self, store: KeptStore) -> None:
        self.drafts = secrets.token_hex(8)
        self._store = store
        self._state: Literal["on trial", "live", "closed"] = "on trial"
        self._waiting: dict[str, str] = {}
        """Names of values, and their drafts."""
        self._in_worker: dict[str, Kept] = {}

    def report(self, report: KeptReport) -> None:
        """Record a report of the worker, which is input from outside. Raises `InvalidReportError`."""
        try:
            checked = _Report.model_validate(dataclasses.asdict(report))
        except (ValidationError, TypeError) as error:
            raise InvalidReportError(f"no report of a saved value: {str(error)[:500]}") from error
        if (checked.draft is None) != (checked.kind == "in_worker"):
            raise InvalidReportError("a saved value has a draft, and no other has")
        if checked.draft is not None and not checked.draft.startswith(f"{self.drafts}-"):
            raise InvalidReportError("the draft is not this worker's")
        with self._store._changing:
            self._forget(checked.name)
            full = len(self._waiting) + len(self._in_worker) >= MOST_IN_TRIAL
            if checked.draft is None:
                if self._state != "closed" and not full:
                    one = Kept(checked.name, checked.type, checked.bytes, checked.built, "in_worker")
                    self._in_worker[checked.name] = one
            elif self._state == "live":
                self._store._commit(checked.name, checked.draft)
            elif self._state == "on trial" and not full:
                self._waiting[checked.name] = checked.draft
            else:
                self._store._remove(checked.draft)

    def commit(self) -> None:
        """The worker's generation is live: save the values that it has reported and will report."""
        with self._store._changing:
            if self._state == "on trial":
                self._state = "live"
                for name, draft in self._waiting.items():
                    self._store._commit(name, draft)
                self._waiting.clear()

    def discard(self) -> None:
        """Remove the values that are not saved. Later reports are ignored."""
        with self._store._changing:
            self._state = "closed"
            self._waiting.clear()
            self._in_worker.clear()
            if self in self._store._trials:
                self._store._trials.remove(self)
            self._store._remove_drafts(f"{self.drafts}-")

    def close(self) -> None:
        """Call this when the worker has ended. It also removes drafts that the worker has not finished."""
        self.discard()

    def _forget(self, name: str) -> bool:
        draft, in_worker = self._waiting.pop(name, None), self._in_worker.pop(name, None)
        if draft is not None:
            self._store._remove(draft)
        return draft is not None or in_worker is not None


def _header(path: Path) -> Header | None:
    """The header of a value's file; None if the file is missing or damaged."""
    try:
        with open_value(path) as file:
            return read_header(file)
    except OSError:
        return None
