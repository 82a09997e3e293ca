"""The resident models: loading, using, replacing, sleeping, waking and unloading them.

Over 400 lines, because one lock guards all of it.
"""

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
from typing import TYPE_CHECKING, Literal, cast

from server.errors import (
    HearthError,
    ModelAsleepError,
    ModelLoadError,
    ModelNameTakenError,
    ModelNotLoadedError,
    ModelNotResidentError,
    OutOfMemoryError,
    ShuttingDownError,
)
from server.sdk import context

if TYPE_CHECKING:
    from server.engine import FreedMemory, GuidedEngine
    from server.providers import RemoteModel

log = logging.getLogger(__name__)

LAST_CHECK = "tokenizer"
"""The last stage of loading that needs no device memory. A recipe that does not report it needs memory for the old
model and the new one together."""


@dataclass(frozen=True)
class ModelRequest:
    """The parameters of a load. Two equal requests mean the same model."""

    name: str
    load_in_8bit: bool | None
    quantizer: str
    device_map: str
    dtype: str
    recipe: str
    """A hash of the code that builds it, or of its API key. If it changes, a load of the same name loads again."""
    base_url: str | None = None
    """The address of a remote model; None: its provider's own address, or a local model."""


@dataclass(eq=False)
class ResidentModel:
    """A model that is loading, ready, asleep, or has failed to load."""

    request: ModelRequest
    state: Literal["loading", "ready", "asleep", "failed"] = "loading"
    revision: str | None = None
    """The commit of a model from Hugging Face; None for one from a folder."""
    dtype: str | None = None
    device: str | None = None
    quantization: str | None = None
    memory_bytes: int | None = None
    engine: "GuidedEngine | RemoteModel | None" = None
    progress: tuple[str, int, int] = ("starting", 0, 1)
    """Stage, done, total."""
    error: HearthError | None = None
    users: int = 0
    """The number of runs that use it."""
    leaving: bool = False
    """Whether it refuses new runs, because it will be unloaded after its last one."""

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def own_engine(self) -> "GuidedEngine | None":
        """Its engine, if it runs in this process; None for a remote model."""
        return None if self.device is None else cast("GuidedEngine | None", self.engine)

    @property
    def takes_images(self) -> bool | None:
        """Whether it sees pictures; None while it is loading."""
        return None if self.engine is None else self.engine.takes_images

    def identity(self) -> dict[str, str | None]:
        """Everything known that distinguishes it from other models."""
        known = {
            "name": self.name,
            "revision": self.revision,
            "quantization": self.quantization,
            "dtype": self.dtype,
            "device": self.device,
        }
        return known if self.request.base_url is None else {**known, "base_url": self.request.base_url}


Report = Callable[[str, int, int], None]
"""Gets the progress of a load: stage, done, total."""
Build = Callable[[ResidentModel, Report], None]
"""Loads a model: sets its engine, device, quantization and memory, and reports its progress."""


@dataclass(eq=False)
class _Place:
    """A place for one model, and for the one that is loading to replace it."""

    model: ResidentModel | None = None
    """Ready or asleep."""
    coming: ResidentModel | None = None
    """Loading; or failed, if no other model is there."""

    @property
    def names(self) -> set[str]:
        return {model.name for model in (self.coming, self.model) if model is not None}


class ResidentModels:
    """The resident models, in order, each with a different name. Safe for any number of threads.

    - The first one is the default, for requests that name none. If it is unloaded, the next one becomes the default.
      If it is unavailable for another reason (it is being replaced, its successor failed to load, it is asleep), no
      other model replaces it.
    - A new model replaces the default as late as possible. The old one answers questions until the new one has passed
      every check that needs no memory. Then the old one is unloaded after its last run, and the new weights are
      loaded. - A model that is loaded beside the others comes last, and does not affect them, even if it fails. - A
      model that is to be unloaded or to sleep refuses new runs at once, and does so after its last run. - One load,
      unload, sleep or wake happens at a time. Equal requests share one load.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._one_at_a_time = threading.Lock()
        self._places: list[_Place] = []
        self.had_one = False
        """Whether a model was ready once."""
        self.expected: str | None = None
        """The name of the model that will be loaded at the start, for error messages until then."""
        self._loads: dict[tuple[ModelRequest, bool], Future[ResidentModel]] = {}
        self._closing = False

    @property
    def all(self) -> list[ResidentModel]:
        """All models in order, each loading one before the one that it replaces."""
        with self._changed:
            return [model for place in self._places for model in (place.coming, place.model) if model is not None]

    def ready(self) -> list[str]:
        """The names of the ready models, in order. Raises what `use` raises if none is ready."""
        with self._changed:
            return [model.name for model in self._in_state("ready")] or [self._usable(None).name]

    @property
    def kv_bytes(self) -> int:
        """The size of all KV caches."""
        engines = [model.own_engine for model in self.all]
        return sum(engine.kv_bytes for engine in engines if engine is not None)

    def load(
        self, request: ModelRequest, build: Build, report: Report = lambda *_: None, replace: bool = True
    ) -> ResidentModel:
        """Load the model in place of the default or, without `replace`, beside the others, and wait until it is
        ready. A sleeping model is woken.

        `report` is called in this thread on each progress. Raises a `ModelError`, a `ProviderError` or an
        `OutOfMemoryError` if it can't be loaded, `ModelNameTakenError` and `ShuttingDownError`. All other models stay
        if it fails a check that needs no memory, or if it was loaded beside them.
        """
        key = (request, replace)
        with self._changed:
            if self._closing:
                raise ShuttingDownError("The server is shutting down and loads no more models.")
            there = self._places[:1] if replace else self._places
            ready = next((one.model for one in there if one.model and one.model.request == request), None)
            if ready is not None and ready.state == "ready" and not ready.leaving and not self._loads:
                return ready
            load = self._loads.get(key)
            if load is None:
                load = self._loads[key] = Future()
                # A thread of its own: several callers may wait for the load, and none of them can cancel it.
                copied = copy_context()
                threading.Thread(
                    target=copied.run, args=(self._load, key, build, load), name="model load", daemon=True
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

    def unload(self, name: str | None = None) -> None:
        """Unload the model of that name, or all, after the last run that uses it. Waits for a running load. Raises
        `ModelNotResidentError`."""
        with self._one_at_a_time:
            with self._changed:
                going = [place for place in self._places if name is None or name in place.names]
                if name is not None and not going:
                    raise self._not_resident(name)
            self._unload(going, [place for place in self._places if place not in going])
            self._share_memory()

    def sleep(self) -> "list[tuple[ResidentModel, FreedMemory]]":
        """Put every local model to sleep, after the last run that uses one. Returns what each of them freed.

        Raises `OutOfMemoryError` or `ModelCannotSleepError` for a model that can't sleep. That one and those after it
        stay awake.
        """
        with self._one_at_a_time:
            with self._changed:
                awake = [model for model in self._in_state("ready") if model.own_engine is not None]
                for model in awake:
                    model.state = "asleep"
                self._changed.notify_all()
                self._changed.wait_for(lambda: not any(model.users for model in awake))
            slept: list[tuple[ResidentModel, FreedMemory]] = []
            try:
                for model in awake:
                    assert model.own_engine is not None
                    slept.append((model, model.own_engine.sleep()))
                    log.info("the model %s is asleep", model.name)
            finally:
                with self._changed:
                    for model in awake[len(slept) :]:
                        model.state = "ready"
            return slept

    def wake(self) -> None:
        """Wake every model. Raises `OutOfMemoryError` for a model without memory. That one and those after it stay
        asleep."""
        with self._one_at_a_time:
            with self._changed:
                asleep = self._in_state("asleep")
            for model in asleep:
                self._wake(model)

    @contextmanager
    def use(self, which: ResidentModel | str | None = None) -> Iterator[ResidentModel]:
        """The default model, the one of that name, or that one. It stays loaded until the end of this context.

        Raises `ModelNotLoadedError`, `ModelNotResidentError`, `ModelAsleepError`.
        """
        with self._changed:
            model = self._usable(which)
            model.users += 1
        try:
            with context.scope(model=model):
                yield model
        finally:
            with self._changed:
                model.users -= 1
                self._changed.notify_all()

    def engine(self) -> "GuidedEngine | RemoteModel":
        """The engine of the model that this context uses, else of the default one. Raises what `use` raises."""
        model: ResidentModel | None = context.current().model
        if model is None:
            with self._changed:
                model = self._usable(None)
        if model.engine is None:
            raise ModelNotLoadedError(f"The model {model.name} was unloaded.")
        return model.engine

    def close(self) -> None:
        """Refuse new loads, and end all waiting for one."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    # Finding a model

    def _in_state(self, state: str) -> list[ResidentModel]:
        return [place.model for place in self._places if place.model is not None and place.model.state == state]

    def _usable(self, which: ResidentModel | str | None) -> ResidentModel:
        """The model that is meant, if it accepts runs. Raises what `use` raises."""
        if isinstance(which, ResidentModel):
            place = next((place for place in self._places if place.model is which), None)
            if place is None:
                raise ModelNotLoadedError(f"The model {which.name} was unloaded or replaced. Load it again.")
        elif not self._places and self.expected is not None:
            raise ModelNotLoadedError(f"The model {self.expected} is loading. Ask again when it is ready.")
        elif not self._places:
            raise ModelNotLoadedError("No model is loaded. POST /load_model loads one.")
        elif which is None:
            place = self._places[0]
        else:
            # A model that is there goes before one that is loading elsewhere.
            named = [place for place in self._places if which in place.names]
            if not named:
                raise self._not_resident(which)
            place = max(named, key=lambda one: one.model is not None and one.model.name == which)
        model = place.model
        if model is None or model.leaving or (isinstance(which, str) and model.name != which):
            raise _not_ready(place)
        if model.state == "asleep":
            raise ModelAsleepError(
                f"The model {model.name} is asleep, so that others can use its memory. POST /wake brings it back."
            )
        return model

    def _not_resident(self, name: str) -> ModelNotResidentError:
        there = ", ".join(sorted(set().union(*(place.names for place in self._places)))) or "none"
        return ModelNotResidentError(
            f"There is no model {name!r} here; there is: {there}. POST /load_model with "
            '"replace": false loads one beside the others.'
        )

    def _progress(self, request: ModelRequest) -> tuple[str, int, int]:
        coming = (place.coming for place in self._places)
        return next((one.progress for one in coming if one is not None and one.request == request), ("waiting", 0, 1))

    # Loading and unloading, one at a time

    def _load(self, key: tuple[ModelRequest, bool], build: Build, load: Future[ResidentModel]) -> None:
        outcome: ResidentModel | HearthError
        with self._one_at_a_time:
            try:
                outcome = self._load_into_place(*key, build)
            except BaseException as error:  # boundary: the thread's end, and nobody may wait for ever
                outcome = _as_hearth_error(error, key[0].name)
            with self._changed:
                del self._loads[key]
        with self._changed:
            if isinstance(outcome, HearthError):
                load.set_exception(outcome)
            else:
                load.set_result(outcome)
            self._changed.notify_all()

    def _load_into_place(self, request: ModelRequest, replace: bool, build: Build) -> ResidentModel:
        """The requested model, ready and in its place."""
        place = next((one for one in self._places if one.model is not None and one.model.request == request), None)
        if place is None:
            return self._build(request, replace, build)
        assert place.model is not None
        if replace and place is not self._places[0]:
            self._unload(self._places[:1], [place, *(one for one in self._places[1:] if one is not place)])
        if place.model.state == "asleep":
            self._wake(place.model)
        return place.model

    def _build(self, request: ModelRequest, replace: bool, build: Build) -> ResidentModel:
        """Load a new model into its place."""
        namesakes = [one for one in self._places if one.model is not None and one.model.name == request.name]
        if namesakes and not replace:
            raise ModelNameTakenError(
                f"{request.name} is resident already, loaded with other settings or by another model.py. "
                'POST /unload_model with {"model": ...} gives it back first; without "replace": false the new one '
                "replaces it."
            )
        if replace:
            place = next(iter(self._places), None)
        else:
            place = next((one for one in self._places if one.model is None), None)
        model = ResidentModel(request)
        with self._changed:
            if place is None:
                place = _Place()
                self._places.append(place)
            place.coming = model
        going = [place, *(one for one in namesakes if one is not place)] if replace else []
        log.info("loading the model %s", model.name)

        def make_room() -> None:
            self._unload(going, [one for one in self._places if one is place or one not in going])

        def report(stage: str, done: int, total: int) -> None:
            if stage == LAST_CHECK and done == total:
                make_room()
            with self._changed:
                model.progress = (stage, done, total)
                self._changed.notify_all()

        try:
            build(model, report)
        except BaseException as error:  # boundary: a recipe is reloadable code, which may raise anything
            log.exception("the model %s could not be loaded", model.name)
            known = _as_hearth_error(error, model.name)
            with self._changed:
                if place.model is not None:
                    place.coming = None
                elif place is not self._places[0]:
                    self._places.remove(place)
                else:
                    model.state, model.error = "failed", known
            give_back_memory()
            raise known from None
        make_room()
        with self._changed:
            model.state = "ready"
            self.had_one = True
            place.model, place.coming = model, None
        self._share_memory()
        log.info(
            "the model %s is ready on %s, %.0f MB",
            model.name,
            model.device or "its provider's side",
            (model.memory_bytes or 0) / 1e6,
        )
        return model

    def _unload(self, places: list[_Place], left: list[_Place]) -> None:
        """Unload the models of these places, after the last run that uses them. `left`: all places from then on."""
        with self._changed:
            going = [place.model for place in places if place.model is not None]
            for model in going:
                model.leaving = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not any(model.users for model in going))
            for place in places:
                place.model = None
            self._places = left
        for model in going:
            if model.engine is not None:
                model.engine.close()
            model.engine = None
            log.info("the model %s is gone", model.name)
        if going:
            give_back_memory()

    def _share_memory(self) -> None:
        """Divide the free memory of each device among the models that are awake on it."""
        awake = self._in_state("ready")
        for model in awake:
            if model.own_engine is not None:
                model.own_engine.share_kv_memory(sum(other.device == model.device for other in awake))

    def _wake(self, model: ResidentModel) -> None:
        assert model.own_engine is not None
        model.own_engine.wake()
        with self._changed:
            model.state = "ready"
        self._share_memory()
        log.info("the model %s is awake", model.name)


def give_back_memory() -> None:
    """Return unreferenced memory to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _not_ready(place: _Place) -> ModelNotLoadedError:
    coming = place.coming
    if coming is None:
        assert place.model is not None
        return ModelNotLoadedError(
            f"The model {place.model.name} is being unloaded. Ask again when another is ready."
        )
    if coming.state == "loading":
        return ModelNotLoadedError(f"The model {coming.name} is loading. Ask again when it is ready.")
    reason = coming.error.message if coming.error else ""
    return ModelNotLoadedError(f"The model {coming.name} could not be loaded. {reason}")


def _as_hearth_error(error: BaseException, name: str) -> HearthError:
    """`error` as a `HearthError` that may be stored: without its frames, which reference parts of the model."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    if isinstance(error, HearthError):
        return error.with_traceback(None)
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":  # the latter is torch's
        return OutOfMemoryError(
            f"There was not enough memory for {name} ({kind}: {error}). Take a smaller model, load it in 8 bit, or "
            "end what else uses that memory."
        )
    return ModelLoadError(f"The model {name} could not be loaded: {kind}: {error}")
