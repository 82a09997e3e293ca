"""Finding the model of an earlier run among the resident ones."""

from collections.abc import Mapping
from typing import Any

from server.errors import ModelChangedError
from server.models.resident import ResidentModel, ResidentModels


def model_of(record: Mapping[str, Any], models: ResidentModels) -> ResidentModel:
    """The model that a run was answered with, whose record has its provenance. Raises `ModelChangedError` if it isn't
    resident."""
    identity, resident = record["provenance"]["model"], models.all
    for model in resident:
        if model.identity() == identity:
            return model
    names = "; ".join(_shown(model.identity()) for model in resident) or "none"
    raise ModelChangedError(
        f"Run {record['run_id']} was answered with {_shown(identity)}. Resident is: {names}. Load that model first."
    )


def _shown(identity: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in identity.items() if value is not None)
