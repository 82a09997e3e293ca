"""Running one cell in a sandbox: its time limit, its interruption, its end."""

import time
from collections.abc import Callable
from typing import NoReturn

from pydantic import ValidationError

from server.sandbox.cells import MOST_OUTPUT_READ, CellError, Output, Reply
from server.sandbox.process import NoReplyError, SandboxEndedError, SandboxProcess

INTERRUPT_SECONDS = 2.0
"""Between KeyboardInterrupt and the end of the interpreter."""
AFTER_SECONDS = 20.0
"""For saving variables and figures after the code's end."""
LOOK_SECONDS = 0.2
"""Interval of the checks whether the cell is to be stopped."""


def run_cell(
    process: SandboxProcess,
    code: str,
    name: str,
    timeout: float,
    output: Output,
    should_stop: Callable[[], bool],
) -> Reply:
    """The reply to a cell. `timeout`: seconds for the code itself. `should_stop`: whether to interrupt it. A cell
    that does not end when it is interrupted ends with its process. Raises `SandboxEndedError`."""

    def on_output(data: bytes) -> None:
        output.add(data)
        if output.read_bytes > MOST_OUTPUT_READ:
            process.kill(f"it printed more than {MOST_OUTPUT_READ >> 20} MiB")

    too_long = f"the cell took longer than {timeout:g} s"
    deadline = time.monotonic() + timeout
    is_late = has_ended = False
    process.tell({"do": "run", "code": code, "name": name})
    while not has_ended:
        left = deadline - time.monotonic()
        is_late = left <= 0
        try:
            if is_late or should_stop():
                process.interrupt()
                process.reply(INTERRUPT_SECONDS, on_output)
            else:
                process.reply(min(left, LOOK_SECONDS), on_output)
            has_ended = True
        except NoReplyError:
            if is_late or should_stop():
                _end(process, too_long if is_late else "it did not end when it was interrupted", on_output)
    try:
        given = process.reply(AFTER_SECONDS, on_output)
    except NoReplyError:
        _end(process, f"saving its variables took longer than {AFTER_SECONDS:g} s", on_output)
    try:
        reply = Reply.model_validate(given)
    except ValidationError as error:
        process.kill("it has sent nonsense")
        raise SandboxEndedError(f"it has sent nonsense: {error.errors()[0]['msg']}") from None
    if is_late and reply.error is not None and reply.error.type == "KeyboardInterrupt":
        reply.error = CellError(
            type="TimeoutError", message=too_long, traceback=reply.error.traceback, line=reply.error.line
        )
    return reply


def _end(process: SandboxProcess, reason: str, on_output: Callable[[bytes], None]) -> NoReturn:
    """Kill the process, read what it has printed, and raise `SandboxEndedError` with the reason."""
    process.kill(reason)
    try:
        while True:
            process.reply(AFTER_SECONDS, on_output)
    except NoReplyError:  # the kernel has not ended it yet
        process.close()
        raise SandboxEndedError(reason) from None
