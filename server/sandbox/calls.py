"""What agents and tools ask of the sandbox, over the worker's channel."""

import threading
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from constants import Settings
from server.bounds import shortened
from server.errors import HearthError
from server.files.media_types import short_name
from server.files.session_files import ListedFile, SessionFiles
from server.runs.run import Run
from server.sandbox.analyses import Analyses
from server.sandbox.sandboxes import Sandboxes
from server.sdk import context
from server.sessions.asked import Asked, read

MOST_FILES_SHOWN = 50
MOST_PROFILES = 5
"""Number of files whose analysis a prompt has."""
OWN_FIGURES = "figure_"
LONGEST_OUTPUT = 20_000
"""Characters of a cell's output that people's code gets."""
EMBEDDED = "embedded"
"""The model that comes with Hearth. It writes no code."""


class _Run(Asked):
    do: Literal["run"]
    code: Annotated[str, Field(max_length=200_000)]
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")] = "cell"


class _Describe(Asked):
    """Files and variables of the session."""

    do: Literal["describe"]


_any_call: TypeAdapter[Any] = TypeAdapter(Annotated[_Run | _Describe, Field(discriminator="do")])


class CodeCalls:
    """What a run asks of its session's sandbox. A run without a session has one of its own, which is called after it.
    Safe for any number of threads."""

    def __init__(self, settings: Settings, sandboxes: Sandboxes, files: SessionFiles, analyses: Analyses) -> None:
        self._settings = settings
        self._sandboxes = sandboxes
        self._files = files
        self._analyses = analyses

    def do(self, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """The answer to a call. Raises `InvalidRequestError`, and what `Sandboxes.run` raises."""
        call, run = read(_any_call, given, run, "the sandbox")
        match call:
            case _Run():
                return self._run(call, run)
        return self._describe(run)

    def is_of_use(self, run: Run) -> bool:
        """Whether the run's session has files or variables, and its model may know what to do with them."""
        if run.session_id is None or run.model == EMBEDDED:
            return False
        listing = self._files.listing(run.workspace, run.session_id, 1, "")
        return bool(listing.files) or self._sandboxes.has_state(run.workspace, run.session_id)

    def _run(self, call: _Run, run: Run) -> dict[str, Any]:
        longest = self._settings.SANDBOX_TIMEOUT
        timeout = longest if call.seconds is None else min(call.seconds, longest)
        cancelled = context.current().cancelled or threading.Event()
        result = self._sandboxes.run(
            run.workspace, _session_of(run), call.code, timeout, name=call.name, should_stop=cancelled.is_set
        )
        shown = result.model_dump(exclude_none=True, exclude={"isolation", "number"})
        return {**shown, "output": shortened(result.output, LONGEST_OUTPUT), "session_id": _session_of(run)}

    def _describe(self, run: Run) -> dict[str, Any]:
        workspace, session = run.workspace, _session_of(run)
        variables = []
        if self._sandboxes.has_state(workspace, session):
            variables = [one.model_dump(exclude_none=True) for one in self._sandboxes.variables(workspace, session)]
        files = self._files.listing(workspace, session, MOST_FILES_SHOWN, "").files
        return {
            "variables": variables,
            "files": [
                self._described(workspace, session, file, place < MOST_PROFILES) for place, file in enumerate(files)
            ],
            "blocked_imports": list(self._settings.SANDBOX_BLOCKED_IMPORTS),
            "model": run.model or "",
        }

    def _described(self, workspace: str, session: str, file: ListedFile, is_analysed: bool) -> dict[str, Any]:
        """A file for the prompt: name, size, kind, and what the analysis says."""
        shown = {"name": file.name, "bytes": file.bytes, "kind": short_name(file.type), "profile": ""}
        if is_analysed and not file.name.startswith(OWN_FIGURES):
            try:
                shown["profile"] = self._analyses.get(workspace, session, file.name).profile
            except HearthError as error:  # it was removed meanwhile, or is damaged: code will say more
                shown["profile"] = error.message
        return shown


def _session_of(run: Run) -> str:
    return f"run-{run.id}" if run.session_id is None else run.session_id
