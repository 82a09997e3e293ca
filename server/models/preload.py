"""What takes seconds to import, and so comes after the server answers."""

import gc
import sys
import threading

_importing = threading.Lock()


def import_engine() -> None:
    """Import what models rest on, which takes seconds the first time.

    The garbage collector is not to look at any of it, now or later: looking takes a second of the start, and then
    holds up all threads now and again. Nothing that is there by the end is ever collected.
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
