"""Pictures in forward passes: the vision tower's features, in place of the embeddings of image tokens."""

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from server.engine.images import FIRST_ID, ImageReader, PreparedImage

if TYPE_CHECKING:
    from server.engine.kv_cache import KVCache

FEATURE_BYTES = 256 * 1024**2
"""Maximum size of the features that stay on the device, beside those of the current pass."""
PROBE_SIZE = (96, 64)
#: Arguments of a model's forward that say which tokens are pictures: positions or attention depend on it.
TYPES = {"token_type_ids", "mm_token_type_ids"}


class ImageFeatures:
    """What a model reads in a pass: token ids, or embeddings with the features of pictures. Only the thread that
    runs the model may call it."""

    def __init__(self, model: PreTrainedModel, reader: ImageReader) -> None:
        self._model: Any = model
        self._reader = reader
        self._features: OrderedDict[int, torch.Tensor] = OrderedDict()

    @property
    def bytes(self) -> int:
        """The memory of the features. Any thread may read this."""
        return sum(features.nbytes for features in list(self._features.values()))

    def clear(self) -> None:
        """Free the features."""
        self._features.clear()

    @torch.inference_mode()
    def inputs(self, tokens: Sequence[int]) -> dict[str, torch.Tensor]:
        """The model's argument for `tokens`: `input_ids` (1, tokens), or `inputs_embeds` (1, tokens, width) if there
        are image tokens among them."""
        device = self._model.device
        if max(tokens) < FIRST_ID:
            return {"input_ids": torch.tensor([tokens], device=device)}
        ids = torch.tensor(tokens)
        numbers = ids // FIRST_ID
        known = ids.where(numbers == 0, self._reader.placeholder)
        embeddings: torch.Tensor = self._model.get_input_embeddings()(known.to(device))
        for number in numbers.unique().tolist():
            if number:
                places = (numbers == number).nonzero()[:, 0]
                features = self._of(self._reader.by_number(number))
                rows = features[(ids[places] % FIRST_ID).to(features.device)]
                embeddings[places.to(embeddings.device)] = rows.to(embeddings.device, embeddings.dtype)
        size = self.bytes
        while size > FEATURE_BYTES and len(self._features) > 1:
            size -= self._features.popitem(last=False)[1].nbytes
        return {"inputs_embeds": embeddings[None]}

    def _of(self, image: PreparedImage) -> torch.Tensor:
        """The features of a picture (its tokens, width)."""
        known = self._features.get(image.number)
        if known is None:
            found = self._model.get_image_features(
                **_moved(image.inputs, self._model), return_dict=True
            ).pooler_output
            known = torch.cat(list(found)) if isinstance(found, list | tuple) else found
            known = known.reshape(-1, known.shape[-1])
            if len(known) != image.length:
                raise RuntimeError(f"The vision tower gave {len(known)} features for {image.length} image tokens.")
            self._features[image.number] = known
        self._features.move_to_end(image.number)
        return known


class ImageProbe:
    """A test with a picture when a model is loaded: whether it reads pictures here as it does by itself."""

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        """Runs the model once with its own attention, so no KV cache may have changed that yet."""
        self._model = model
        self.reader: ImageReader | None = None
        self._problem = ""
        kind = type(model).__name__
        if TYPES & set(inspect.signature(model.forward).parameters):
            self._problem = (
                f"{kind} has positions or attention of its own for image tokens, which Hearth does not have"
            )
        elif not hasattr(model, "get_image_features"):
            self._problem = f"{kind} has no get_image_features, so its pictures can't be read apart from its texts"
        else:
            try:
                self._run(model, ImageReader(processor))
            except Exception as error:  # boundary: a model's and a processor's code, which may raise anything
                self._problem = f"a test with a picture failed ({type(error).__name__}: {error})"

    def _run(self, model: Any, reader: ImageReader) -> None:
        from PIL import Image

        width, height = PROBE_SIZE
        pixels = (torch.arange(width * height * 3) * 7919 % 256).to(torch.uint8)
        image = Image.frombytes("RGB", PROBE_SIZE, pixels.numpy().tobytes())
        self._image, given = reader.prepare_probe(image)
        self._tokens = reader.with_ids(given["input_ids"][0].tolist(), [self._image])
        with torch.inference_mode():
            self._expected = model(**_moved(given, model), use_cache=False, logits_to_keep=1).logits[0, -1].float()
        self.reader = reader

    def problem(self, kv_cache: "KVCache", allowed: float) -> str:
        """Why pictures can't be read with this KV cache, which is empty afterwards; no text if they can. It gets the
        features of pictures.

        `allowed`: by how much a logit may differ on average, in standard deviations.
        """
        if self.reader is None:
            return self._problem
        kv_cache.images = ImageFeatures(self._model, self.reader)
        try:
            slot = kv_cache.take(self._tokens)
            assert slot is not None, "nobody else uses the KV cache"
            middle = self._tokens.index(self._image.ids[0]) + self._image.length // 2
            for part in self._tokens[:middle], self._tokens[middle:]:
                logits = kv_cache.run([(slot, part)])[0]
        except Exception as error:  # boundary: of the model's code and the device
            return f"a test with a picture failed ({type(error).__name__}: {error})"
        finally:
            kv_cache.clear()
        if not (logits - self._expected).abs().mean() <= allowed * self._expected.std():
            return (
                "its logits after a picture are not those that it has by itself, so its attention does not fit here"
            )
        return ""


def _moved(inputs: Any, model: Any) -> dict[str, torch.Tensor]:
    """A processor's tensors on the model's device, numbers in its precision."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }
