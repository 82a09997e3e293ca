"""The model that is resident: how it comes, how it is used, how it is replaced and given back."""

import gc
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from server.errors import HearthError, ModelLoadError, ModelNotLoadedError, ShuttingDownError

if TYPE_CHECKING:
    from server.engine import GuidedEngine
    from server.providers import RemoteModel

log = logging.getLogger(__name__)

LAST_CHECK = "tokenizer"
"""The stage of loading after which only memory is wanting. A recipe that does not report it needs memory for
the old model and the new one together."""


@dataclass(frozen=True)
class ModelRequest:
    """What somebody wants resident. Two equal requests are one model."""

    name: str
    load_in_8bit: bool | None
    device_map: str
    dtype: str
    recipe: str
    """Stands for the code that builds it: with another recipe the same name is loaded anew."""
    base_url: str | None = None
    """Where a model behind an API is asked; None: at its provider's own address, or it is no such model."""


@dataclass(eq=False)
class ResidentModel:
    """A model that is loading, ready to be used, or has failed to load."""

    request: ModelRequest
    state: Literal["loading", "ready", "failed"] = "loading"
    revision: str | None = None
    """The commit that a model from Hugging Face was loaded at; None for one from a folder."""
    dtype: str | None = None
    device: str | None = None
    quantization: str | None = None
    memory_bytes: int | None = None
    engine: "GuidedEngine | RemoteModel | None" = None
    progress: tuple[str, int, int] = ("starting", 0, 1)
    """Stage, how much of it is done, and of how much."""
    error: HearthError | None = None
    users: int = 0
    """Runs that work with it at the moment."""
    leaving: bool = False
    """Takes no new runs; goes once those that use it have ended."""

    @property
    def name(self) -> str:
        return self.request.name

    def identity(self) -> dict[str, str | None]:
        """What tells it from every other model, as far as that can be known."""
        known = {
            "name": self.name,
            "revision": self.revision,
            "quantization": self.quantization,
            "dtype": self.dtype,
            "device": self.device,
        }
        return known if self.request.base_url is None else {**known, "base_url": self.request.base_url}


Report = Callable[[str, int, int], None]
"""Takes the stage of a load, how much of it is done, and of how much."""
Build = Callable[[ResidentModel, Report], None]
"""Fills in a model's engine, device, quantization and memory; reports (stage, done, total) on the way."""


class ModelSlot:
    """The one place where a model is resident. Safe for any number of threads.

    One load or unload happens at a time. Callers who want the same model share one load. A model is replaced
    as late as can be: questions go on with the old one until the new one has passed every check that needs no
    memory; then the old one goes as soon as no run uses it, and the new one's weights are loaded.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._exchange = threading.Lock()
        self._ready: ResidentModel | None = None
        self._pending: ResidentModel | None = None  # loading, or failed with nothing to fall back on
        self._loads: dict[ModelRequest, Future[ResidentModel]] = {}
        self._closing = False

    @property
    def shown(self) -> ResidentModel | None:
        """What to tell people about: the model that is coming, else the one that is there."""
        return self._pending or self._ready

    def load(self, request: ModelRequest, build: Build, report: Report = lambda *_: None) -> ResidentModel:
        """Make the model that is asked for resident, and wait until it is ready.

        `report` is called, here, whenever the load has come further. Raises a `ModelError`, a `ProviderError` or an
        `OutOfMemoryError` when it can't be built, and `ShuttingDownError`. If it failed a check that needs no memory, the model that was
        there stays.
        """
        with self._changed:
            if self._closing:
                raise ShuttingDownError("The server is shutting down and loads no more models.")
            if self._ready is not None and self._ready.request == request and not self._loads:
                return self._ready
            load = self._loads.get(request)
            if load is None:
                load = self._loads[request] = Future()
                # A thread of its own: the load belongs to all who wait for it, and none of them can end it.
                context = copy_context()
                threading.Thread(
                    target=context.run,
                    args=(self._load, request, build, load),
                    name="model load",
                    daemon=True,
                ).start()
        seen: tuple[str, int, int] | None = None
        while True:
            with self._changed:
                while not load.done() and not self._closing and self._progress(request) == seen:
                    self._changed.wait()
                if load.done():
                    return load.result()
                if self._closing:
                    raise ShuttingDownError(f"The server shut down before {request.name} was loaded.")
                seen = self._progress(request)
            report(*seen)

    def unload(self) -> None:
        """Give the model's memory back once no run uses it. Waits for a load that is under way."""
        with self._exchange:
            self._make_room()
            with self._changed:
                self._pending = None

    @contextmanager
    def use(self) -> Iterator[ResidentModel]:
        """The resident model, which stays at least to the end of this context."""
        with self._changed:
            model = self._ready
            if model is None or model.leaving:
                raise self._nothing_ready()
            model.users += 1
        try:
            yield model
        finally:
            with self._changed:
                model.users -= 1
                self._changed.notify_all()

    def engine(self) -> "GuidedEngine | RemoteModel":
        """The engine of the resident model, for those who hold on to the slot and not to a model."""
        model = self._ready
        if model is None or model.engine is None:
            raise self._nothing_ready()
        return model.engine

    def close(self) -> None:
        """Take no more loads, and let nobody wait for one."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _progress(self, request: ModelRequest) -> tuple[str, int, int]:
        pending = self._pending
        return ("waiting", 0, 1) if pending is None or pending.request != request else pending.progress

    def _nothing_ready(self) -> ModelNotLoadedError:
        pending = self._pending
        if pending is not None and pending.state == "loading":
            return ModelNotLoadedError(f"The model {pending.name} is loading. Ask again when it is ready.")
        if pending is not None:
            reason = pending.error.message if pending.error else ""
            return ModelNotLoadedError(f"The model {pending.name} could not be loaded. {reason}")
        return ModelNotLoadedError("No model is loaded. POST /load_model loads one.")

    def _load(self, request: ModelRequest, build: Build, load: Future[ResidentModel]) -> None:
        with self._exchange:
            outcome: ResidentModel | HearthError
            try:
                outcome = self._replace(request, build)
            except HearthError as error:
                outcome = error
            with self._changed:
                del self._loads[request]
        with self._changed:
            if isinstance(outcome, HearthError):
                load.set_exception(outcome)
            else:
                load.set_result(outcome)
            self._changed.notify_all()

    def _replace(self, request: ModelRequest, build: Build) -> ResidentModel:
        with self._changed:
            if self._ready is not None and self._ready.request == request:
                return self._ready
            model = self._pending = ResidentModel(request)
        log.info("loading the model %s", model.name)

        def report(stage: str, done: int, total: int) -> None:
            if stage == LAST_CHECK and done == total:
                self._make_room()
            with self._changed:
                model.progress = (stage, done, total)
                self._changed.notify_all()

        try:
            build(model, report)
        except BaseException as error:  # boundary: a recipe is reloadable code, which may raise anything
            log.exception("the model %s could not be loaded", model.name)
            known = _known(error, model.name)
            with self._changed:
                if self._ready is None:
                    model.state, model.error = "failed", known
                else:
                    self._pending = None
            give_back_memory()
            raise known from None
        self._make_room()
        with self._changed:
            model.state = "ready"
            self._ready, self._pending = model, None
        log.info(
            "the model %s is ready on %s, %.0f MB",
            model.name,
            model.device or "its provider's side",
            (model.memory_bytes or 0) / 1e6,
        )
        return model

    def _make_room(self) -> None:
        """Let the resident model go, as soon as no run uses it."""
        with self._changed:
            old = self._ready
            if old is None:
                return
            old.leaving = True
            self._changed.wait_for(lambda: old.users == 0)
            self._ready = None
        if old.engine is not None:
            old.engine.close()
        old.engine = None
        give_back_memory()
        log.info("the model %s is gone", old.name)


def give_back_memory() -> None:
    """Return what nothing refers to any more to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _known(error: BaseException, name: str) -> HearthError:
    """`error` as one that may be kept: without the frames, which hold what was loaded of the model."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    if isinstance(error, HearthError):
        return error.with_traceback(None)
    return ModelLoadError(f"The model {name} could not be loaded: {type(error).__name__}: {error}")
