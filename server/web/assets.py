"""The files of the pages, under a name that changes with their content, so that browsers may keep them for ever."""

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
PREFIX = "/ui/static"


@lru_cache(maxsize=1)
def version() -> str:
    """A hash of all files. They are read once: a new version of the pages needs a new server."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@lru_cache
def compressed(path: str) -> bytes:
    """The gzip data of a file in `static/`. They are made once, and all of them together are small."""
    return gzip.compress((FOLDER / path).read_bytes(), mtime=0)


def url(path: str) -> str:
    """The URL of a file in `static/`. Modules import one another by relative paths, so all have one version."""
    return f"{PREFIX}/{version()}/{path}"
