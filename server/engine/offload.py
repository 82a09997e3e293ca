"""Offloading a model's weights from their device to the host's memory, and restoring them."""

from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch
from transformers import PreTrainedModel

from server.errors import ModelCannotSleepError, OutOfMemoryError


@dataclass(frozen=True)
class FreedMemory:
    """The memory of its device that a model freed when it fell asleep, in bytes."""

    kv_bytes: int
    weights_bytes: int
    """0 on the CPU, where offloading has no effect."""


class Weights:
    """The weights of one model. Only the thread that runs the model may call it.

    The storages of the tensors are moved, not the tensors. The tensor objects and their devices stay the same for
    everything that refers to them (tied weights, the state of a quantized layer, accelerate's hooks). So weights of
    every kind can be offloaded, from any number of GPUs; but nothing may use them meanwhile. Memory that only other
    objects reference, such as bitsandbytes' scales, is not offloaded.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._offloaded: list[tuple[torch.UntypedStorage, torch.UntypedStorage]] = []
        """Storages on the device, which are empty now, and their copies on the host."""

    @property
    def bytes(self) -> int:
        """Their size, on the device or offloaded."""
        return sum(storage.nbytes() for storage in self._storages()) + sum(
            copy.nbytes() for _, copy in self._offloaded
        )

    def offload(self) -> int:
        """Move all weights to the host's memory, unless they are there already. Returns the number of bytes moved.

        Raises `OutOfMemoryError` if the host has too little memory, and `ModelCannotSleepError`; then nothing has
        moved.
        """
        if self._offloaded:
            return 0
        moving = [storage for storage in self._storages() if not _is_host(storage.device)]
        if not all(storage.resizable() for storage in moving):
            raise ModelCannotSleepError(
                "The model's weights are in memory that can't be lent to others. POST /unload_model gives it back; "
                "then the model has to be loaded again."
            )
        needed, free = sum(storage.nbytes() for storage in moving), psutil.virtual_memory().available
        try:
            if needed > free:
                raise MemoryError
            copies = [torch.UntypedStorage(storage.nbytes()).copy_(storage, False) for storage in moving]
        except MemoryError as error:
            raise OutOfMemoryError(
                f"The weights take {needed / 1e9:.1f} GB, and in the host's memory, where they are to wait, "
                f"{free / 1e9:.1f} GB are free. End what else uses it, or give the model up: POST /unload_model.",
                needed_bytes=needed,
                free_bytes=free,
            ) from error
        for storage in moving:
            storage.resize_(0)
        self._offloaded = list(zip(moving, copies, strict=True))
        return needed

    def restore(self) -> None:
        """Move them back. Raises `OutOfMemoryError` if the device has too little memory; then nothing has moved."""
        try:
            for storage, copy in self._offloaded:
                storage.resize_(copy.nbytes())
        except (MemoryError, torch.OutOfMemoryError) as error:
            for storage, _ in self._offloaded:
                storage.resize_(0)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            needed = sum(copy.nbytes() for _, copy in self._offloaded)
            free = sum(
                torch.cuda.mem_get_info(device)[0]
                for device in {storage.device for storage, _ in self._offloaded}
                if device.type == "cuda"
            )
            raise OutOfMemoryError(
                f"The model takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free where it was. "
                "End what else uses that memory, then POST /wake again.",
                needed_bytes=needed,
                free_bytes=free,
            ) from error
        for storage, copy in self._offloaded:
            storage.copy_(copy, False)
        self._offloaded = []

    def _storages(self) -> list[torch.UntypedStorage]:
        """The storages of the weights, each once, without empty ones."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        found = (plain.untyped_storage() for tensor in tensors for plain in _plain(tensor))
        return list({storage.data_ptr(): storage for storage in found if storage.nbytes()}.values())


def _plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors with a storage that `tensor` consists of: a quantized tensor may consist of several."""
    parts = getattr(tensor, "__tensor_flatten__", None)
    if parts is None:
        yield tensor
    else:
        for name in parts()[0]:
            yield from _plain(getattr(tensor, name))


def _is_host(device: torch.device) -> bool:
    return device.type == "cpu"
