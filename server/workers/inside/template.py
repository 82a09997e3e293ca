"""The template: a process that has imported what workers usually need, and from which workers are forked.

`python -m server.workers.inside.template '{"control": 5, "channel": 6, "settings": {...}}'` is started by the server.
The first process stays as the keeper (guard.py); its child is the template. It has one thread, no connection to
anything but the server, and never touches CUDA. With `--once` it is one worker and its guard, without a template.

The control socket carries one JSON message a packet. From the server: `{"do": "worker"}` with the descriptors of
`Ends`, `{"do": "learn", "modules": [...]}` with a control socket for the successor. To the server:
`{"ready": seconds}`, and from a successor what `_succeed` says.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from server.workers.inside import guard
from server.workers.inside.isolation import Ends, Settings, isolate

MESSAGE_BYTES = 1 << 17


def main(arguments: list[str]) -> None:
    """Be keeper and template, or with `--once` guard and worker. Never returns."""
    once = arguments[0] == "--once"
    given = json.loads(arguments[-1])
    settings = Settings(**given["settings"])
    os.chdir(settings.folder)
    gc.disable()  # the memory of what is imported stays as it is, so that it can be shared
    if once:
        ends = Ends(**given["ends"])
        channel = socket.socket(fileno=ends.channel)
        worker = partial(_leave_with, partial(_preload_and_work, ends, settings))
        _leave_with(lambda: guard.run(channel, worker, silent=True))
    control = socket.socket(fileno=given["control"])
    channel = socket.socket(fileno=given["channel"])
    guard.run_keeper(channel, partial(_leave_with, partial(_start, control, settings)))


def _leave_with(call: Callable[[], object]) -> NoReturn:
    """Call `call`, and end this process without the exit handlers and buffers that it inherited."""
    code = 1
    try:
        call()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if stop.code is not None and not isinstance(stop.code, int):
            print(stop.code, file=sys.stderr)
    except BaseException:  # boundary: the process
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code & 255)


def _flush() -> None:
    """Flush the buffers of Python and C: a fork copies them, and their content would be written twice."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # people's code may have closed or replaced it
            stream.flush()
    with contextlib.suppress(Exception):
        guard.libc.fflush(None)


def _preload_and_work(ends: Ends, settings: Settings) -> None:
    _preload(settings)
    _work(ends, settings)


def _work(ends: Ends, settings: Settings) -> None:
    """Be the worker: call the entry, and then the exit handlers that were registered since."""
    protocol = isolate(ends, settings)
    module, _, function = settings.entry.partition(":")
    try:
        getattr(importlib.import_module(module), function)(protocol)
    finally:
        atexit._run_exitfuncs()


def _start(control: socket.socket, settings: Settings) -> None:
    began = time.monotonic()
    guard.name_process("hearth-template")
    _preload(settings)
    _freeze()
    if (threads := _threads()) > 1:
        print(f"The template has {threads} threads: a worker may find a lock that nobody releases.", file=sys.stderr)
    _send(control, {"ready": round(time.monotonic() - began, 3)})
    _serve(control, settings)


def _preload(settings: Settings) -> None:
    """Import what workers usually need. Modules that can't be imported are reported and skipped."""
    for name in [*settings.preload, settings.entry.partition(":")[0]]:
        try:
            importlib.import_module(name)
        except Exception as error:  # boundary: any module's code
            print(f"{name} is not preloaded: {type(error).__name__}: {error}", file=sys.stderr)


def _freeze() -> None:
    """Exclude all current objects from garbage collection, so that their memory stays shared."""
    gc.collect()
    gc.freeze()
    _flush()


def _send(control: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # the server has ended; the next read says so
        control.send(json.dumps(message).encode())


def _serve(control: socket.socket, settings: Settings) -> None:
    """Fork workers and successors for the server, until it closes its end."""
    # Guards and successors report to the server; this process reaps none.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, received, _, _ = socket.recv_fds(control, MESSAGE_BYTES, len(Ends._fields))
        if not message:
            return
        order = json.loads(message)
        _flush()
        try:
            if os.fork() == 0:
                if order["do"] == "worker":
                    _leave_with(partial(_guard, received, settings))
                _leave_with(partial(_succeed, received[0], control, order["modules"], settings))
        except OSError as error:  # no processes or no memory; the server sees the channel close
            print(f"Forking failed: {error}", file=sys.stderr)
        finally:
            for descriptor in received:
                os.close(descriptor)


def _guard(received: list[int], settings: Settings) -> None:
    ends = Ends(*received)
    guard.run(socket.socket(fileno=ends.channel), lambda: _leave_with(partial(_work, ends, settings)), silent=False)


def _succeed(new: int, old: socket.socket, modules: list[str], settings: Settings) -> None:
    """Import what a generation has imported, and then be the template.

    Reports `{"importing": name, "at": time.monotonic()}` before each module and then `{"imported": name}`, or
    `{"left_out": name, "why": ...}` if it raises. Ends after `{"unfit": name, "why": ...}` if the module has done
    what a template must not do, and after `{"nothing": true}` if there is nothing to import. `{"ready": seconds}`:
    it is the template.
    """
    guard.name_process("hearth-learning")
    guard.control_process(guard.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    began = time.monotonic()
    old.close()
    control = socket.socket(fileno=os.dup(new))
    os.set_inheritable(control.fileno(), False)
    os.close(new)
    missing = [name for name in modules if name not in sys.modules]
    before = guard.descriptors()
    for name in missing:
        _send(control, {"importing": name, "at": time.monotonic()})
        # The kernel ends this process if the import doesn't return, wherever it hangs.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, settings.import_seconds)
        try:
            importlib.import_module(name)
            result: dict[str, object] = {"imported": name}
        except Exception as error:  # boundary: any module's code
            result = {"left_out": name, "why": f"{type(error).__name__}: {error}"[:500]}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if why := _unfit(before):
            guard.control_process(guard.PR_SET_CHILD_SUBREAPER, 1)
            guard.kill_descendants(1)
            _send(control, {"unfit": name, "why": why})
            return
        _send(control, result)
    if not missing:
        _send(control, {"nothing": True})
        return
    _freeze()
    for number in guard.IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(settings.folder)
    guard.name_process("hearth-template")
    guard.control_process(guard.PR_SET_PDEATHSIG, 0)
    _send(control, {"ready": round(time.monotonic() - began, 3)})
    _serve(control, settings)


def _unfit(before: set[int]) -> str:
    """Why this process can't be a template any more; empty if it can."""
    if (threads := _threads()) > 1:
        return f"it starts threads ({threads - 1})"
    if guard.descriptors() - before:
        return "it keeps files open"
    if guard.descendants(os.getpid()):
        return "it starts processes"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "it initialises CUDA"
    return ""


def _threads() -> int:
    """The number of threads that this process has at a fork.

    Forks once before it counts, because some libraries (OpenBLAS) stop their threads then.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    for _ in range(20):
        count = len(os.listdir("/proc/self/task"))
        if count == 1:
            break
        time.sleep(0.005)  # a thread that was joined is listed for a moment
    return count


if __name__ == "__main__":
    main(sys.argv[1:])
