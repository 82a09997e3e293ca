"""Checking grammars, seen from the server."""

import hashlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, TypedDict

from server.errors import GrammarTooComplexError, ModelNotLoadedError, OutOfMemoryError
from server.grammar_check.bounds import COMPILE_BYTES, COMPILE_SECONDS
from server.grammar_check.conversation import NoChildError, Verdict, ask

ROOT = Path(__file__).parents[2]
AT_ONCE = 16
"""Maximum number of children. They share the CPU, so a harmless grammar does not wait for hostile ones."""
REMEMBERED = 1_000
"""Maximum number of cached verdicts."""
CLOSE_SECONDS = 5.0
_TOKEN_LIMIT = re.compile(r', "max_tokens": \d+\}$')


class Vocabulary(TypedDict):
    """The arguments of llguidance's LLTokenizer."""

    tokenizer: str
    n_vocab: int
    eos_token: int


class GrammarChecker:
    """Compiles grammars in a process that may die, and remembers the verdicts. Safe for any number of threads.

    The process starts at once, in the background, and again if it has ended. It ends with this one.
    """

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        """None: grammars are compiled for a vocabulary of bytes, which says whether they are valid."""
        self._vocabulary = vocabulary
        self._verdicts: OrderedDict[bytes, Verdict | None] = OrderedDict()
        self._changing = threading.Lock()
        self._children = threading.Semaphore(AT_ONCE)
        self._process: _Process | None = None
        self._closed = False
        self._started()

    def seconds(self, grammar: str) -> float:
        """The CPU time that compiling `grammar` takes.

        Raises `GrammarTooComplexError` if that, or the memory, exceeds its bound, ValueError with llguidance's reason
        if the grammar is invalid, and `OutOfMemoryError` if no process can be started.
        """
        # The limit of a whole text changes nothing about the cost.
        key = hashlib.sha256(_TOKEN_LIMIT.sub("}", grammar).encode("utf-8", "surrogatepass")).digest()
        with self._changing:
            known = key in self._verdicts
            if known:
                self._verdicts.move_to_end(key)
        if not known:
            verdict = self._ask(grammar)
            with self._changing:
                self._verdicts[key] = verdict
                while len(self._verdicts) > REMEMBERED:
                    self._verdicts.popitem(last=False)
        else:
            verdict = self._verdicts.get(key)
        if verdict is None:
            raise too_costly_to_compile()
        if verdict.reason is not None:
            raise ValueError(verdict.reason)
        return verdict.seconds

    def close(self) -> None:
        """End the process."""
        with self._changing:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def _ask(self, grammar: str) -> Verdict | None:
        reason = "it ends at once"
        with self._children:
            for _ in range(2):
                try:
                    process = self._started()
                except OSError as error:  # no process, no descriptor, or no room on the disk for the vocabulary
                    reason = error.strerror or str(error)
                    continue
                try:
                    with process.connection() as connection:
                        return ask(connection, grammar)
                except (NoChildError, OSError):
                    self._ended(process)
        raise OutOfMemoryError(f"No process could be started to check the grammar: {reason}. Ask again later.")

    def _started(self) -> "_Process":
        with self._changing:
            if self._closed:
                raise ModelNotLoadedError("The model was unloaded. POST /load_model loads one.")
            if self._process is None:
                self._process = _Process(self._vocabulary)
            return self._process

    def _ended(self, process: "_Process") -> None:
        with self._changing:
            if self._process is process:
                self._process = None
        process.close()


class _Process:
    """A running `server.grammar_check.process`."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        """Raises OSError if it can't be started."""
        self._control, theirs = socket.socketpair()
        try:
            with theirs, tempfile.TemporaryFile("w+") as file:
                json.dump(vocabulary, file)
                file.seek(0)
                self._popen = subprocess.Popen(
                    [sys.executable, "-m", "server.grammar_check.process", str(theirs.fileno())],
                    cwd=ROOT,
                    stdin=file,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError:
            self._control.close()
            raise

    def connection(self) -> socket.socket:
        """A connection to a new child. Raises OSError if the process has ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"\n"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """End the process. May be called again."""
        self._control.close()
        try:
            self._popen.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def too_costly_to_compile(**details: Any) -> GrammarTooComplexError:
    """The error for a grammar that exceeds a bound of compiling."""
    return GrammarTooComplexError(
        f"Compiling the grammar takes more than {COMPILE_SECONDS} s of CPU time or {COMPILE_BYTES >> 20} MiB. Use a "
        "simpler schema, pattern or grammar: without large minItems, maxItems, minLength, maxLength, multipleOf or "
        "repetitions, and without hundreds of rules that lead to each other.",
        seconds=COMPILE_SECONDS,
        bytes=COMPILE_BYTES,
        **details,
    )
