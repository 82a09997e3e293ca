"""Models as the routes and the pages show them."""

from typing import Any

from server.errors import HearthError
from server.models.resident import ResidentModel, ResidentModels


def describe_all(residents: ResidentModels, trusted: bool = True) -> dict[str, Any]:
    """The default model, and all."""
    models = [describe(one, trusted) for one in residents.all]
    return {"model": models[0] if models else None, "models": models}


def describe(resident: ResidentModel, trusted: bool = True) -> dict[str, Any]:
    """One model."""
    shown: dict[str, Any] = {
        "name": resident.name,
        "state": resident.state,
        "device": resident.device,
        "quantization": resident.quantization,
        "memory_bytes": resident.memory_bytes,
        "takes_images": resident.takes_images,
    }
    if resident.state == "loading":
        shown["progress"] = dict(zip(("stage", "done", "total"), resident.progress, strict=True))
    if resident.error is not None:
        shown["error"] = error_shown(resident.error, trusted)
    return shown


def error_shown(error: HearthError, trusted: bool) -> dict[str, str]:
    """An error without its details. Without the token, also without its message, which may quote providers, code and
    paths."""
    return {"type": error.code, "message": error.message if trusted else "With the token, the message says why."}
