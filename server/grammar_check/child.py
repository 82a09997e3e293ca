"""Compiling one grammar in a forked process with limits of CPU time and memory."""

import contextlib
import json
import os
import resource
import signal
import socket
import time
from typing import NoReturn

import llguidance

from server.grammar_check.bounds import COMPILE_BYTES, COMPILE_SECONDS, COMPILE_STACK_BYTES, parser_limits

WALL_SECONDS = 30.0
"""A child that is starved of CPU ends after this time."""


def byte_tokenizer() -> llguidance.LLTokenizer:
    """Its tokens are the bytes."""
    return llguidance.LLTokenizer("byte")


def start(connection: socket.socket, tokenizer: llguidance.LLTokenizer) -> int:
    """Fork a child that reads a grammar from `connection` and answers on it; see `server.grammar_check.conversation`.
    Returns its process id."""
    pid = os.fork()
    if pid == 0:
        _work(connection, tokenizer)
    return pid


def _work(connection: socket.socket, tokenizer: llguidance.LLTokenizer) -> NoReturn:
    try:
        connection.send(b"\n")
        _limit()
        with connection.makefile("rb") as file:
            grammar = file.read().decode("utf-8", "surrogatepass")
        began = time.process_time()
        reason = _reason(grammar, tokenizer)
        connection.sendall(json.dumps({"reason": reason, "seconds": time.process_time() - began}).encode())
    finally:
        os._exit(0)


def _limit() -> None:
    # The default actions end the process, whatever Python is doing.
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF, signal.SIGALRM])
    signal.setitimer(signal.ITIMER_PROF, COMPILE_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    # An abort of llguidance writes to standard error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError, ValueError):
        # Linux looks at it whenever the stack grows.
        resource.setrlimit(resource.RLIMIT_STACK, (COMPILE_STACK_BYTES, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    with contextlib.suppress(OSError, ValueError):
        limit, hard = _data_bytes() + COMPILE_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(
            resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
        )


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA. Raises OSError where there is no /proc."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData:"))


def _reason(grammar: str, tokenizer: llguidance.LLTokenizer) -> str | None:
    """Why llguidance refuses the grammar; None if it accepts it."""
    try:
        parser = llguidance.LLInterpreter(tokenizer, grammar, log_level=0, limits=parser_limits())
        parser.process_prompt([])
        parser.compute_mask_into(bytearray((tokenizer.vocab_size + 31) // 32 * 4))
    except BaseException as error:  # boundary: of llguidance, whose panics are no Exceptions
        return str(error)
    return None
