"""The one mutable object: the resident model, the workspaces, the runs."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from constants import Settings
from server.errors import (
    AgentNotFoundError,
    GenerationNotFoundError,
    HearthError,
    InternalError,
    WorkspaceNotFoundError,
)
from server.reload import Generation, ReloadReport, Workspace, building_a_model
from server.resident import ModelRequest, ModelSlot, ResidentModel
from server.runs import AgentResult, Run, Runs

if TYPE_CHECKING:
    from server.engine import ResidentChatModel

log = logging.getLogger(__name__)

MAIN = "main"
"""The workspace whose code is the repository's own."""
AGENT = "react"
"""The name under which a question asks for `CustomAgentGuidance`."""


class Host:
    """What the process keeps between requests. Safe for any number of threads; idle until it is asked."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = ModelSlot()
        self.runs = Runs(settings.MAX_RUNS)
        self.workspaces = {MAIN: Workspace(MAIN, Path(__file__).parent, settings.RELOAD_TIMEOUT)}
        self.llm: ResidentChatModel | None = None
        """What tools are handed: it asks whichever model is resident. None before the first model."""
        self.autoload_error: HearthError | None = None
        """Why the loading at the start failed; None if it did not, or if the tools were loaded later."""

    @property
    def resident(self) -> ResidentModel | None:
        """The model that is loading, ready or failed; None if there is none."""
        return self.models.shown

    def workspace(self, name: str) -> Workspace:
        """The workspace of that name. Raises `WorkspaceNotFoundError`."""
        try:
            return self.workspaces[name]
        except KeyError:
            known = ", ".join(self.workspaces)
            raise WorkspaceNotFoundError(f"There is no workspace {name!r}. There is: {known}.") from None

    def load_model(
        self,
        model: str | None = None,
        load_in_8bit: bool | None = None,
        device_map: str | None = None,
        dtype: str | None = None,
    ) -> ResidentModel:
        """Make a model resident and wait until it is ready. What is None comes from the settings.

        It is built by the live recipe of `main`. Raises what `ModelSlot.load` raises, and `ReloadFailedError`
        when no code is live yet and what is on disk can't be loaded.
        """
        settings = self.settings
        main = self.workspaces[MAIN]
        if main.live is None:
            self._reload(main)
        if load_in_8bit is None and settings.LOAD_IN_8BIT != "auto":
            load_in_8bit = settings.LOAD_IN_8BIT
        with main.pin(with_tools=False) as generation:
            request = ModelRequest(
                name=model or settings.MODEL,
                load_in_8bit=load_in_8bit,
                device_map=device_map or settings.DEVICE_MAP,
                dtype=dtype or settings.DTYPE,
                recipe=hashlib.sha256(generation.snapshot.files["model.py"]).hexdigest(),
            )

            def build(resident: ResidentModel, report: Callable[[str, int, int], None]) -> None:
                from server.engine import GuidedEngine, ResidentChatModel

                with building_a_model():
                    loaded = generation.load_model(
                        request.name,
                        load_in_8bit=request.load_in_8bit,
                        device_map=request.device_map,
                        dtype=request.dtype,
                        int8_threshold=settings.LLM_INT8_THRESHOLD,
                        progress=report,
                    )
                resident.engine = GuidedEngine(loaded.model, loaded.tokenizer)
                resident.device = str(loaded.model.device)
                resident.quantization = loaded.quantization
                resident.memory_bytes = loaded.model.get_memory_footprint()
                if self.llm is None:
                    self.llm = ResidentChatModel(get_engine=self.models.engine)

            return self.models.load(request, build)

    def unload_model(self) -> None:
        """Give the model's memory back, once the runs that use it have ended."""
        self.models.unload()

    def load_tools(self, workspace: str = MAIN) -> None:
        """Build the tools of the workspace's live code, if they aren't built.

        Raises `ModelNotLoadedError` before a model is there, and `ReloadFailedError`.
        """
        space = self.workspace(workspace)
        with self.models.use():
            assert self.llm is not None, "a model is ready, and with the first one came the chat model"
            if space.live is None:
                self._reload(space)
            space.build_tools(self.llm)
        self.autoload_error = None

    def reload(self, workspace: str = MAIN, dry_run: bool = False, generation: str | None = None) -> ReloadReport:
        """Take the code on disk over, or, with `dry_run`, only try it. Raises `ReloadFailedError`.

        `generation` may name the live one, and then nothing changes. Raises `GenerationNotFoundError` for any
        other.
        """
        space = self.workspace(workspace)
        if generation is None:
            return self._reload(space, dry_run)
        live = space.live
        if live is None or live.hash != generation:
            raise _unknown_generation(generation, live)
        unchanged: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
        return ReloadReport(workspace, generation, generation, changed=[], tools=unchanged, seconds=0.0)

    def _reload(self, space: Workspace, dry_run: bool = False) -> ReloadReport:
        # The packages that reloadable code rests on take seconds to import the first time; that isn't its fault, and
        # doesn't count for its time limit.
        import server.engine  # noqa: F401

        return space.reload(self.llm, dry_run)

    def answer(self, run: Run, agent_name: str = AGENT, generation: str | None = None) -> AgentResult:
        """Answer `run`'s question, in this thread, with the code that is live now.

        Raises `AgentNotFoundError`, `WorkspaceNotFoundError`, `GenerationNotFoundError`, `QueueFullError`,
        `ShuttingDownError`, `ModelNotLoadedError`, `ToolsNotLoadedError`, and what a run may end with:
        `PromptTooLongError`, `OutOfMemoryError`, `RunCancelledError`.
        """
        if agent_name != AGENT:
            raise AgentNotFoundError(f"There is no agent {agent_name!r}. There is: {AGENT}.")
        space = self.workspace(run.workspace)
        with self.runs.admit(run), self.models.use() as model, space.pin() as pinned:
            if generation is not None and generation != pinned.hash:
                raise _unknown_generation(generation, pinned)
            # Late: it brings torch, which is there by now.
            from server.engine import cancellation

            run.start(pinned.hash, model.name)
            with cancellation.scope(run.cancelled):
                try:
                    agent = pinned.agent(model.engine, pinned.tools, run.max_steps, self.settings.TOOL_TIMEOUT)
                    result: AgentResult = agent(run.question)
                except (SystemExit, KeyboardInterrupt) as error:
                    # boundary: agents are reloadable code, and `sys.exit()` in one must end its run alone.
                    raise RuntimeError(f"the agent of {pinned.hash} raised {error!r}") from error
            return result

    def autoload(self) -> None:
        """Code, model, tools, in this order. What fails is logged and shown, and the server lives on."""
        try:
            self.reload()
            self.load_model()
            self.load_tools()
        except HearthError as error:
            log.error("loading at the start failed: %s", error.message)
            self.autoload_error = error
        except Exception:  # boundary: the thread's end
            log.exception("loading at the start failed")
            self.autoload_error = InternalError("Loading at the start failed. The server's log says why.")

    def close(self) -> None:
        """Take nothing new, let runs in flight end within the grace period, and cancel the rest."""
        self.models.close()
        self.runs.drain(self.settings.SHUTDOWN_GRACE)


def _unknown_generation(wanted: str, live: Generation | None) -> GenerationNotFoundError:
    there = "none is live" if live is None else f"the live one is {live.hash}"
    return GenerationNotFoundError(f"The generation {wanted!r} is not at hand; {there}.")
