"""The process that forks a child for each grammar: `python -m server.grammar_check.process DESCRIPTOR < VOCABULARY`.

On the socket of that descriptor it gets the connections to which children answer, and it ends with that socket. It
reads no grammar itself. VOCABULARY: the arguments of LLTokenizer as JSON, or null for a vocabulary of bytes.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import sys

import llguidance

from server.grammar_check import child

LESS_URGENT = 5
"""Added to the niceness: checking grammars must not slow the model down."""


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    given = json.load(sys.stdin)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
        name.write("hearth-grammars")
    tokenizer = child.byte_tokenizer() if given is None else llguidance.LLTokenizer(**given)
    os.nice(LESS_URGENT)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children need not be waited for
    gc.freeze()
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        with socket.socket(fileno=descriptors[0]) as connection:
            child.start(connection, tokenizer)


if __name__ == "__main__":
    main()
