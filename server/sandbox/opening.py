"""Giving a sandbox its session. What is saved of the session may be damaged: its code can change it."""

from typing import Any

from pydantic import ValidationError

from server.sandbox.cells import Variable
from server.sandbox.pool import Pool
from server.sandbox.process import NoReplyError, SandboxEndedError, SandboxProcess

ATTEMPTS = 2
"""Before what is saved counts as damaged: an interpreter may also have been killed from outside."""


class DamagedVariablesError(SandboxEndedError):
    """What was saved of the session's variables can't be read, and was moved aside: the session works again. The
    message says why."""


def open_session(pool: Pool, folder: str) -> tuple[SandboxProcess, list[Variable]]:
    """A sandbox with the session whose folder has this name, and its saved variables. Raises `SandboxEndedError` and
    `SandboxUnavailableError`."""
    why = ""
    for _ in range(ATTEMPTS):
        process = pool.take()
        try:
            reply = process.open(folder)
        except NoReplyError:
            process.close()
            raise SandboxEndedError("it does not open its session") from None
        except SandboxEndedError as error:
            process.close()
            why = str(error)
            continue
        why = str(reply.get("damaged", ""))[:500]
        variables = _variables(reply)
        if variables is not None and not why:
            return process, variables
        process.close()
        break
    _set_aside(pool, folder)
    raise DamagedVariablesError(
        f"What was saved of the session's variables is damaged ({why or 'their descriptions'}), so the code was not "
        "run. It was moved aside: the next cell starts without variables."
    )


def _set_aside(pool: Pool, folder: str) -> None:
    process = pool.take()
    try:
        process.open(folder, set_aside=True)
    except NoReplyError:
        raise SandboxEndedError("it does not open its session") from None
    finally:
        process.close()


def _variables(reply: dict[str, Any]) -> list[Variable] | None:
    """The variables that it replies; None: it is nonsense."""
    try:
        return [Variable.model_validate(one) for one in reply.get("variables", [])][:200]
    except (ValidationError, TypeError):
        return None
