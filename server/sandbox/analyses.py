"""Analyses of a session's files, made in a sandbox, and saved while the server runs."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import FileRefusedError
from server.files.session_files import OpenFile, SessionFiles
from server.sandbox.inside.analysis import VERSION
from server.sandbox.sandboxes import Sandboxes

MOST_SAVED = 256
CHUNK_BYTES = 1 << 20


class Analysis(BaseModel):
    """What is in a file."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(max_length=100, description="like csv, xlsx, pdf: by the content, not by the name")
    summary: str = Field(max_length=2000)
    details: dict[str, Any]
    how_to_read: str = Field(max_length=20_000, description="Python that reads it right")
    skipped: list[str] = Field(max_length=100, description="what was left out, and why")


@dataclass(frozen=True)
class Analysed:
    """An analysis, and the text of it that a model reads."""

    analysis: Analysis
    profile: str


class Analyses:
    """Safe for any number of threads.

    An analysis is found again by the session, the file's name, and the hash of its bytes. It is no other session's:
    code could let one file be hashed, and another one be analysed.
    """

    def __init__(self, sandboxes: Sandboxes, files: SessionFiles) -> None:
        self._sandboxes = sandboxes
        self._files = files
        self._lock = threading.Lock()
        self._saved: OrderedDict[Hashable, Analysed] = OrderedDict()
        self._hashes: OrderedDict[Hashable, str] = OrderedDict()

    def get(self, workspace: str, session: str, name: str) -> Analysed:
        """The analysis of a file. Raises `FileRefusedError`, what `SessionFiles.open` raises, and
        `SandboxUnavailableError`."""
        opened = self._files.open(workspace, session, name)
        try:
            key = (workspace, session, name, self._hash(opened), VERSION)
        finally:
            os.close(opened.descriptor)
        with self._lock:
            found = self._saved.get(key)
        if found is None:
            found = _checked(name, self._sandboxes.analyse(workspace, session, name))
            self._save(self._saved, key, found)
        return found

    def _hash(self, opened: OpenFile) -> str:
        """The SHA-256 of an open file. A file whose status is the same is not read again: code can't set the time at
        which the status last changed."""
        status = opened.status
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        with self._lock:
            found = self._hashes.get(key)
        if found is None:
            digest, place = hashlib.sha256(), 0
            while data := os.pread(opened.descriptor, CHUNK_BYTES, place):
                digest.update(data)
                place += len(data)
            found = digest.hexdigest()
            self._save(self._hashes, key, found)
        return found

    def _save(self, where: OrderedDict[Hashable, Any], key: Hashable, value: Any) -> None:
        with self._lock:
            where[key] = value
            while len(where) > MOST_SAVED:
                where.popitem(last=False)


def _checked(name: str, reply: dict[str, Any]) -> Analysed:
    """The sandbox's reply, which a hostile file may have made. Raises `FileRefusedError`."""
    if "refused" in reply:
        raise FileRefusedError(f"{name!r} can't be analysed: {str(reply['refused'])[:2000]}")
    try:
        return Analysed(Analysis.model_validate(reply.get("analysis")), str(reply.get("profile", ""))[:4000])
    except ValidationError:
        raise FileRefusedError(f"{name!r} can't be analysed: it has made its reader send nonsense.") from None
