"""One file a system: how it is started, loads an edit, is asked and ended."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rivals.system import System
from benchmarks.rivals.systems.gradio_reload import GradioReload
from benchmarks.rivals.systems.hearth import HearthExplicit, HearthOnRequest, HearthRestarted
from benchmarks.rivals.systems.ipython_autoreload import IPythonAutoreload
from benchmarks.rivals.systems.plain_flask import PlainFlask
from benchmarks.rivals.systems.ray_serve import RayServe
from benchmarks.rivals.systems.uvicorn_reload import UvicornReload

SYSTEMS: dict[str, type[System]] = {
    "hearth": HearthExplicit,
    "on_request": HearthOnRequest,
    "restarted": HearthRestarted,
    "flask": PlainFlask,
    "gradio": GradioReload,
    "uvicorn": UvicornReload,
    "ipython": IPythonAutoreload,
    "ray": RayServe,
}


@contextmanager
def running(kind: type[System]) -> Iterator[System]:
    """Such a system, started, in a folder of its own; it is ended with the block."""
    # As Ray sets it, for all: a model on every core would wait in each pass for a core that the askers have.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        system = kind(Path(folder))
        system.start()
        try:
            yield system
        finally:
            system.stop()
