"""Loading a model: a local one by the live recipe of `main`, or a remote one."""

import gc
import hashlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

from constants import Settings
from server.audit.actor import actor
from server.audit.log import AuditLog
from server.errors import InvalidRequestError, ModelNotFoundError
from server.models.resident import Build, ModelRequest, Report, ResidentModel, ResidentModels
from server.observability import semantic_conventions as names
from server.observability import tracing
from server.providers import PROVIDERS, RemoteModel, is_remote
from server.reload import Generation, Workspace

RECIPE = ("model.py", "model/")
"""Prefixes of the paths of the recipe's files."""


_importing = threading.Lock()


class ModelLoader:
    """Makes models resident. Safe for any number of threads."""

    def __init__(self, settings: Settings, models: ResidentModels, main: Workspace, audit: AuditLog) -> None:
        """`main` has the recipe."""
        self._audit = audit
        self._settings = settings
        self._models = models
        self._main = main

    def load(
        self,
        model: str | None = None,
        load_in_8bit: bool | None = None,
        device_map: str | None = None,
        dtype: str | None = None,
        quantizer: str | None = None,
        replace: bool = True,
        base_url: str | None = None,
        report: Report = lambda *_: None,
    ) -> ResidentModel:
        """Load a model in place of the default or, without `replace`, beside the others, and wait until it is ready.
        Parameters that are None come from the settings. `report` gets its progress.

        A local model is built by the live recipe of `main`; a remote one is at `base_url` or at its provider's own
        address. Raises what `ResidentModels.load` raises, `InvalidRequestError` for options that don't apply, and
        `ReloadFailedError` if no code is live yet and the code on disk can't be loaded.
        """
        before = self._models.all
        name = model or self._settings.MODEL
        with tracing.span("load model", {names.REQUEST_MODEL: name}):
            loaded = self._load(name, load_in_8bit, device_map, dtype, quantizer, replace, base_url, report)
        if loaded not in before:
            self._audit.record(actor.get(), "model.loaded", loaded.name, device=loaded.device, replace=replace)
        return loaded

    def _load(
        self,
        name: str,
        load_in_8bit: bool | None,
        device_map: str | None,
        dtype: str | None,
        quantizer: str | None,
        replace: bool,
        base_url: str | None,
        report: Report,
    ) -> ResidentModel:
        _check_options(name, base_url, (load_in_8bit, device_map, dtype, quantizer))
        if is_remote(name):
            return self._models.load(*_remote_model(self._settings, name, base_url), report, replace)
        import_engine()
        if self._main.live is None:
            self._main.reload(self._models.had_one)
        with self._main.pin(with_tools=False) as live:
            wanted = _by_recipe(self._settings, live, name, load_in_8bit, device_map, dtype, quantizer)
            return self._models.load(*wanted, report, replace)


def import_engine() -> None:
    """Import the engine and its packages. Takes seconds the first time.

    The garbage collector is off meanwhile, and ignores all of it afterwards: scanning it would take a second of the
    start, and would pause all threads later. No object that exists at the end is ever collected.
    """
    with _importing:
        if "server.engine.engine" in sys.modules:
            return
        gc.disable()
        try:
            from server.engine import GuidedEngine  # noqa: F401
        finally:
            gc.freeze()
            gc.enable()


def _by_recipe(
    settings: Settings,
    generation: Generation,
    name: str,
    load_in_8bit: bool | None,
    device_map: str | None,
    dtype: str | None,
    quantizer: str | None,
) -> tuple[ModelRequest, Build]:
    """A local model, built by the recipe of `generation`, which must stay pinned meanwhile. Parameters that are None
    come from the settings."""
    if load_in_8bit is None and settings.LOAD_IN_8BIT != "auto":
        load_in_8bit = settings.LOAD_IN_8BIT
    request = ModelRequest(
        name=name,
        load_in_8bit=load_in_8bit,
        quantizer=quantizer or settings.QUANTIZER,
        device_map=device_map or settings.DEVICE_MAP,
        dtype=dtype or settings.DTYPE,
        recipe=_hash_of_recipe(generation),
    )

    def build(resident: ResidentModel, report: Report) -> None:
        from server.engine import GuidedEngine

        loaded = _recipe(generation.folder).load_model(
            request.name,
            load_in_8bit=request.load_in_8bit,
            quantizer=request.quantizer,
            device_map=request.device_map,
            dtype=request.dtype,
            int8_threshold=settings.LLM_INT8_THRESHOLD,
            progress=report,
        )
        kv_bytes = None if settings.KV_MEMORY_GB is None else int(settings.KV_MEMORY_GB * 2**30)
        # A recipe of a lab may know nothing of images.
        images = {name: getattr(loaded, name) for name in ("processor", "no_images") if hasattr(loaded, name)}
        resident.engine = GuidedEngine(loaded.model, loaded.tokenizer, kv_bytes, **images)
        resident.revision = getattr(loaded.model.config, "_commit_hash", None)
        resident.dtype = str(loaded.model.dtype).removeprefix("torch.")
        resident.device = str(loaded.model.device)
        resident.quantization = loaded.quantization
        resident.memory_bytes = resident.engine.weights_bytes

    return request, build


def _remote_model(settings: Settings, name: str, base_url: str | None) -> tuple[ModelRequest, Build]:
    """A remote model, at `base_url` or at its provider's own address."""
    where, with_key = _address(settings, name, base_url)
    # The key is part of the request, so that a load with a new key is a new load.
    key = PROVIDERS[name.partition(":")[0]].key() if with_key else None
    request = ModelRequest(
        name, load_in_8bit=None, quantizer="", device_map="", dtype="", recipe=str(hash(key)), base_url=where
    )

    def build(resident: ResidentModel, report: Report) -> None:
        report("connecting", 0, 1)
        resident.engine = RemoteModel(name, where, with_key, settings.VISION)
        report("connecting", 1, 1)

    return request, build


def background_model(settings: Settings) -> RemoteModel:
    """The model of HEARTH_BACKGROUND_MODEL. Raises what `RemoteModel` raises, and `ModelNotFoundError`."""
    name = settings.BACKGROUND_MODEL
    if not is_remote(name):
        raise ModelNotFoundError(f"HEARTH_BACKGROUND_MODEL is {name}. It takes a remote model, like openai:NAME.")
    return RemoteModel(name, *_address(settings, name), settings.VISION)


def _check_options(name: str, base_url: str | None, only_here: tuple[object, ...]) -> None:
    """Raises `InvalidRequestError` for a `base_url` of a local model, and for any of `only_here` of a remote one."""
    if is_remote(name) and any(one is not None for one in only_here):
        raise InvalidRequestError(
            f"{name} is a remote model. It takes no load_in_8bit, quantizer, device_map or dtype."
        )
    if not is_remote(name) and base_url is not None:
        raise InvalidRequestError(
            f"{name} is loaded here and takes no base_url. A remote model is called PROVIDER:NAME, like openai:NAME."
        )


def _recipe(folder: Path) -> ModuleType:
    """The recipe in a generation's `folder`, as `server.model`. It is the only code of people that this process
    executes, because it builds the model in this process. Its worker has loaded it before."""
    name, place = "server.model", folder / "server" / "model"
    is_package = (place / "__init__.py").is_file()
    file = place / "__init__.py" if is_package else place.with_suffix(".py")
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(place)] if is_package else None
    )
    assert spec is not None and spec.loader is not None, "it is a file of Python"
    for old in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        del sys.modules[old]
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _hash_of_recipe(generation: Generation) -> str:
    recipe = hashlib.sha256()
    for path, data in sorted(generation.snapshot.files.items()):
        if path.startswith(RECIPE):
            recipe.update(b"%d %d " % (len(path), len(data)) + path.encode(errors="surrogateescape") + data)
    return recipe.hexdigest()


def _address(settings: Settings, name: str, base_url: str | None = None) -> tuple[str | None, bool]:
    """The address of a remote model (None: its provider's own), and whether the provider's key is sent there. It is
    not sent to an address that only a request has named."""
    own = settings.BASE_URL if name.startswith("openai:") else None
    return base_url or own, base_url in (None, own)
