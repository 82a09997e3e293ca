"""The file by which a client on the same machine finds the server and its token."""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


@contextmanager
def runtime_file(url: str, token: str) -> Iterator[Path]:
    """`hearth-<pid>.json` in the user's runtime folder, within this context, readable by its owner only."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR another folder is as good; whether it is safe, platformdirs checks.
        warnings.simplefilter("ignore", platformdirs.RuntimeDirWarning)
        folder = platformdirs.user_runtime_path("hearth")
    path = folder / f"hearth-{os.getpid()}.json"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made by mkstemp, it is its owner's only from the first moment on; moved, it is never seen half-written.
    descriptor, draft = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": url, "token": token, "pid": os.getpid()}, file)
    os.replace(draft, path)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
