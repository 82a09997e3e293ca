"""A model's weights, which can leave their device for the host's memory and come back."""

from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch
from transformers import PreTrainedModel

from server.errors import ModelCannotSleepError, OutOfMemoryError


@dataclass(frozen=True)
class GivenBack:
    """What a model gave up to fall asleep: bytes of its device's memory."""

    kv_bytes: int
    weights_bytes: int
    """0 where the device is the CPU: there is nowhere else for weights to go."""


class Weights:
    """The weights of one model. Belongs to the thread that runs the model.

    What moves is the memory below the tensors, not the tensors: these stay the objects that they are, on the devices
    that they name, whatever refers to them (tied weights, the state of a quantized layer, accelerate's hooks). So
    every kind of weights can move, on any number of GPUs; but nothing may touch them while they are away. Memory that
    only other objects know of, such as bitsandbytes' scales, stays where it is.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._away: list[tuple[torch.UntypedStorage, torch.UntypedStorage]] = []
        """Memory on the device, which is empty now, and what was in it."""

    @property
    def bytes(self) -> int:
        """What they take, here or there."""
        return sum(storage.nbytes() for storage in self._storages()) + sum(copy.nbytes() for _, copy in self._away)

    def move_out(self) -> int:
        """Move all that isn't in the host's memory there, unless they are away; gives how many bytes that were.

        Raises `OutOfMemoryError` where they find no place there, and `ModelCannotSleepError`; then nothing has moved.
        """
        if self._away:
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
        self._away = list(zip(moving, copies, strict=True))
        return needed

    def move_back(self) -> None:
        """Bring them back. Raises `OutOfMemoryError` where their place is taken; then nothing has moved."""
        try:
            for storage, copy in self._away:
                storage.resize_(copy.nbytes())
        except (MemoryError, torch.OutOfMemoryError) as error:
            for storage, _ in self._away:
                storage.resize_(0)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            needed = sum(copy.nbytes() for _, copy in self._away)
            free = sum(
                torch.cuda.mem_get_info(device)[0]
                for device in {storage.device for storage, _ in self._away}
                if device.type == "cuda"
            )
            raise OutOfMemoryError(
                f"The model takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free where it was. "
                "End what else uses that memory, then POST /wake again.",
                needed_bytes=needed,
                free_bytes=free,
            ) from error
        for storage, copy in self._away:
            storage.copy_(copy, False)
        self._away = []

    def _storages(self) -> list[torch.UntypedStorage]:
        """The memory below the weights, each piece once, empty ones left out."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        found = (plain.untyped_storage() for tensor in tensors for plain in _plain(tensor))
        return list({storage.data_ptr(): storage for storage in found if storage.nbytes()}.values())


def _plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors with memory of their own that `tensor` is made of: quantized ones may be made of several."""
    parts = getattr(tensor, "__tensor_flatten__", None)
    if parts is None:
        yield tensor
    else:
        for name in parts()[0]:
            yield from _plain(getattr(tensor, name))


def _is_host(device: torch.device) -> bool:
    return device.type == "cpu"
