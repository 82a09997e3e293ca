"""A worker's priority. While it loads code it has the server's, so that a reload is fast; afterwards a lower one, so
that people's code does not slow the model down."""

import os
import sys
import threading
import time

RETRY_SECONDS = 0.15
RETRIES = 40


def lower_priority(niceness: int) -> None:
    """Add `niceness` to that of all threads of this process. Threads and processes that it starts later inherit
    it."""
    if sys.platform != "linux":
        os.nice(niceness)
        return
    lowered = min(os.nice(0) + niceness, 19)
    # On Linux each thread has its own, and a new one gets its creator's.
    for thread in os.listdir("/proc/self/task"):
        os.setpriority(os.PRIO_PROCESS, int(thread), lowered)
    if not _lower_session(lowered):
        threading.Thread(target=_lower_session_soon, args=(lowered,), name="priority", daemon=True).start()


def _lower_session_soon(niceness: int) -> None:
    for _ in range(RETRIES):
        time.sleep(RETRY_SECONDS)
        if _lower_session(niceness):
            return


def _lower_session(niceness: int) -> bool:
    """Linux schedules sessions against each other where autogroups are on, and niceness counts inside a session only
    (`man 7 sched`). So the session gets it as well. False: Linux allows one such change in 100 ms for all users
    together, and another process was first."""
    try:
        with open("/proc/self/autogroup", "w") as file:
            file.write(str(niceness))
    except BlockingIOError:
        return False
    except OSError:
        pass  # there are no autogroups
    return True
