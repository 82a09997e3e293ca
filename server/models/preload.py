"""Importing the engine, which takes seconds, after the server answers."""

import gc
import sys
import threading

_importing = threading.Lock()


def import_engine() -> None:
    """Import the engine and its packages. Takes seconds the first time.

    The garbage collector is off meanwhile, and ignores all of it afterwards: scanning it would take a second of the
    start, and would pause all threads later. No object that exists at the end is ever collected.
    """
    with _importing:
        if "server.engine.engine" in sys.modules:
            return
        gc.disable()
        try:
            from server.engine import GuidedEngine  # noqa: F401
        finally:
            gc.freeze()
            gc.enable()
