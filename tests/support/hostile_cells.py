"""Cells that take all they can. Used by the tests and the benchmark."""

from typing import NamedTuple


class HostileCell(NamedTuple):
    """`says`: a pattern of its error's message, which is empty if there is no error. `seconds`: its time limit."""

    code: str
    says: str
    seconds: float = 2


HOSTILE: dict[str, HostileCell] = {
    "memory": HostileCell(
        """
held = []
while True: held.append(bytearray(1 << 20))
""",
        "MEMORY_GB|^$",
    ),
    "forks": HostileCell(
        """
import os
while True:
    try:
        os.fork()
    except OSError: pass
""",
        "2 s|processes",
    ),
    "forks that take memory": HostileCell(
        """
import os
while True:
    if os.fork() == 0: held = bytearray(1 << 26)
""",
        "MEMORY_GB|unavailable|2 s|proc",
    ),
    "threads": HostileCell(
        """
import threading, time
while True: threading.Thread(target=time.sleep, args=(100,)).start()
""",
        "can't start new thread|processes",
    ),
    "shared memory": HostileCell(
        """
f = open('/dev/shm/f', 'wb')
while True: f.write(bytes(1 << 20))
""",
        "No space|too large|MEMORY_GB",
    ),
    "temporary files": HostileCell(
        """
f = open('/tmp/f', 'wb')
while True: f.write(bytes(1 << 20))
""",
        "No space|too large|MEMORY_GB",
    ),
    "small temporary files": HostileCell(
        """
for n in range(10**6): open(f'/tmp/{n}', 'w').close()
""",
        "No space|2 s",
    ),
    "a file in memory": HostileCell(
        """
import os
f = os.memfd_create('f')
while True: os.write(f, bytes(1 << 20))
""",
        "MEMORY_GB|File too large",
    ),
    "mapped memory": HostileCell(
        """
import mmap
m = mmap.mmap(-1, 1 << 31)
for n in range(0, 1 << 31, 4096): m[n] = 1
""",
        "MEMORY_GB|Cannot allocate",
    ),
    "pipes": HostileCell(
        """
import os, fcntl
held = []
while True:
    held.append(os.pipe())
    fcntl.fcntl(held[-1][1], 1031, 1 << 20)
    os.set_blocking(held[-1][1], False)
    os.write(held[-1][1], bytes(1 << 20))
""",
        "Too many open files|MEMORY_GB|not permitted|unavailable",
    ),
    "a large file": HostileCell(
        """
f = open('big', 'wb')
while True: f.write(bytes(1 << 20))
""",
        "File too large|maximum",
    ),
    "many large files": HostileCell(
        """
import time
for n in range(8): open(f'f{n}', 'wb').write(bytes(1 << 24))
time.sleep(9)
""",
        "maximum|large",
        9,
    ),
    "deleted files": HostileCell(
        """
import os, time
held = []
for n in range(8):
    held.append(open('gone', 'wb'))
    os.unlink('gone')
    held[-1].write(bytes(1 << 24)), held[-1].flush()
time.sleep(9)
""",
        "maximum",
        9,
    ),
    "deep folders": HostileCell(
        """
import os, time
for n in range(100):
    os.mkdir('d' * 200)
    os.chdir('d' * 200)
open('f', 'wb').write(bytes(1 << 20))
time.sleep(9)
""",
        "deeply",
        9,
    ),
    "many files": HostileCell(
        """
import os
for n in range(10**6): open(f'{n}', 'w').close()
""",
        "files|9 s",
        9,
    ),
    "output": HostileCell(
        """
import sys
while True: sys.stdout.write('x' * 10**6)
""",
        "64 MiB",
    ),
    "output of escapes": HostileCell(
        r"""
import sys
while True: sys.stderr.write('\x1b[31m' * 10**5)
""",
        "64 MiB|2 s",
    ),
    "empty output": HostileCell(
        """
import os
while True: os.write(1, b'')
""",
        "2 s",
    ),
    "deaf to the interrupt": HostileCell(
        """
import signal
signal.signal(signal.SIGINT, lambda *a: None)
while True: pass
""",
        "2 s",
    ),
    "stops itself": HostileCell(
        """
import signal, os
os.kill(os.getpid(), signal.SIGSTOP)
""",
        "2 s",
    ),
    "blocks all signals": HostileCell(
        """
import signal
for n in range(1, 32):
    try: signal.signal(n, signal.SIG_IGN)
    except OSError: pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
""",
        "2 s",
    ),
    "kills all": HostileCell(
        """
import os, signal
os.kill(-1, signal.SIGKILL)
""",
        "No such process|ended",
    ),
    "aborts": HostileCell(
        """
import os
os.abort()
""",
        "ended",
    ),
    "reads address 0": HostileCell(
        """
import ctypes
ctypes.string_at(0)
""",
        "ended",
    ),
    "recursion without a limit": HostileCell(
        """
import sys
sys.setrecursionlimit(10**9)
def f(): f()
f()
""",
        "ended|recursion|MEMORY_GB",
    ),
    "a large power": HostileCell(
        """
x = 9 ** 9 ** 9
""",
        "2 s",
    ),
    "a regular expression": HostileCell(
        """
import re
re.match('(a+)+$', 'a' * 40 + 'b')
""",
        "2 s",
    ),
    "an endless destructor": HostileCell(
        """
class Bomb:
    def __del__(self):
        while True: pass
Bomb()
1
""",
        "2 s|^$",
    ),
    "a long repr": HostileCell(
        """
class Bomb:
    def __repr__(self): return 'x' * 10**8
Bomb()
""",
        "^$",
    ),
    "an endless repr": HostileCell(
        """
class Bomb:
    def __repr__(self):
        while True: pass
Bomb()
""",
        "2 s",
    ),
    "at the exit": HostileCell(
        """
import atexit
def bomb():
    while True: pass
atexit.register(bomb)
raise SystemExit
""",
        "^$",
    ),
    "a long message": HostileCell(
        """
class Bomb(Exception):
    def __str__(self): return 'x' * 10**8
raise Bomb
""",
        "^x+",
    ),
    "a long type": HostileCell(
        """
raise type('E' * 10**6, (Exception,), {})
""",
        "^$",
    ),
    "a deep value": HostileCell(
        """
value = []
for n in range(10**5): value = [value]
""",
        "^$",
    ),
    "many unsaved variables": HostileCell(
        """
globals().update({f'v{n}': (i for i in ()) for n in range(20_000)})
""",
        "2 s|^$",
    ),
    "odd names of variables": HostileCell(
        r"""
globals()[5] = 1
globals()['\ud800'] = 1
globals()['a\x1b[31m\n'] = 1
globals()['n' * 10**6] = 1
""",
        "^$",
    ),
    "odd names of files": HostileCell(
        r"""
open(b'\xff\x1b[31m', 'w').close(), open('\n', 'w').close()
""",
        "^$",
    ),
    "another pandas": HostileCell(
        """
import sys
sys.path[:] = ['/session']
open('pandas.py', 'w').write('while True: pass')
""",
        "^$",
    ),
}
QUICK = {
    *("memory", "forks", "shared memory", "small temporary files", "deleted files", "deep folders", "output"),
    *("kills all", "reads address 0", "a long repr", "at the exit", "odd names of variables", "odd names of files"),
    *("a deep value", "a long type"),
}
"""Those that are tried in an ordinary run of the tests."""
