"""The wall clock, set for one server and all that it starts, while the machine's own stays as it is.

A small library that the dynamic linker loads first (LD_PRELOAD) adds an offset to `CLOCK_REALTIME`. So Python, SQLite
and all other callers of libc get the time that was set. The kernel does not: the times of files are the machine's,
and so are absolute deadlines on the wall clock. `CLOCK_MONOTONIC` stays, as it does when a clock is set.
"""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("SET_CLOCK_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) offset = mapped;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    if (!failed) { now->tv_sec = precise.tv_sec; now->tv_usec = precise.tv_nsec / 1000; }
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class SetClock:
    """A clock that a test may set."""

    def __init__(self, folder: Path) -> None:
        """Compiles the library. Raises `FileNotFoundError` if there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            raise FileNotFoundError("there is no C compiler")
        source, library, self._file = folder / "set_clock.c", folder / "set_clock.so", folder / "offset"
        source.write_text(SOURCE)
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
        self._file.write_bytes(struct.pack("l", 0))
        with self._file.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": os.fspath(library), "SET_CLOCK_FILE": os.fspath(self._file)}
        """What the server's environment must have."""

    def set(self, seconds: int) -> None:
        """Set it so many seconds after the machine's clock; negative: before."""
        self._offset[:] = struct.pack("l", seconds)
