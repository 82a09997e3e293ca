"""Pictures in prompts, in the threads of the callers: the processor, and the ids of image tokens.

In a prompt, a marker such as `<|hearth_image:1f3a9c02d4e5b6a7|>` stands for a picture of the run. The tokenizer puts
the text there that the model's processor writes for the picture, with one placeholder for each of its image tokens.
llguidance reads these placeholders. In the tokens of a sequence each has an id of its own instead, far above the
vocabulary: the number of the picture and the place in it. Equal pictures have equal ids, so they share cached
prefixes; different pictures never match.
"""

import itertools
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch

from server.errors import ImageNotFoundError, InvalidRequestError
from server.images.image_part import MARK_DIGITS, ImagePart, Images

if TYPE_CHECKING:
    from PIL.Image import Image

OPENING = "<|hearth_image:"
"""The beginning of a marker. It is protected like a control token, so no text of people or tools has one."""
MARKER = re.compile(rf"{re.escape(OPENING)}([0-9a-f]{{{MARK_DIGITS}}})\|>")
FIRST_ID = 1 << 32
"""The lowest id of an image token: the number of the picture is above these bits, the place in it below."""
PREPARED_BYTES = 256 * 1024**2
"""Maximum size of the pictures that stay prepared while no sequence uses them."""
NUMBERED = 10_000
"""Maximum number of pictures whose numbers are remembered. Forgotten ones are read again."""
#: What a processor returns for the text. The rest is for the vision tower.
OF_THE_TEXT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "text_replacement_offsets"}


@dataclass(eq=False)
class PreparedImage:
    """A picture as the model reads it. `text`: what stands for it in a prompt, with `length` placeholders. `inputs`:
    the arguments of the model's `get_image_features`, on the CPU."""

    number: int
    text: str
    length: int
    inputs: dict[str, torch.Tensor]

    @property
    def ids(self) -> range:
        """The ids of its tokens."""
        return range(self.number * FIRST_ID, self.number * FIRST_ID + self.length)

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.inputs.values())


class ImageReader:
    """The processor of one model. Safe for any number of threads, which prepare pictures one after the other."""

    def __init__(self, processor: Any) -> None:
        """`processor`: a Transformers processor with a tokenizer and an image processor. Raises ValueError for one
        without a placeholder."""
        self._processor = processor
        self.placeholder_name: str | None = getattr(processor, "image_token", None)
        placeholder = processor.tokenizer.get_vocab().get(self.placeholder_name)
        if not self.placeholder_name or placeholder is None:
            raise ValueError(f"{type(processor).__name__} has no placeholder for pictures.")
        self.placeholder: int = placeholder
        """The id of the placeholder in the vocabulary."""
        self._lock = threading.Lock()
        self._prepared: OrderedDict[str, PreparedImage] = OrderedDict()
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._next = itertools.count(1)
        self._by_number: WeakValueDictionary[int, PreparedImage] = WeakValueDictionary()

    def marker(self, part: ImagePart) -> str:
        """What stands for a picture in a prompt."""
        return f"{OPENING}{part.key}|>"

    def images_in(self, prompt: str, images: Images) -> list[PreparedImage]:
        """The pictures of the markers in `prompt`, in order. `images`: those that the run may show the model.

        Raises `InvalidRequestError` for a marker of another picture, and `ImageNotFoundError`.
        """
        if OPENING not in prompt:
            return []
        found = []
        for key in MARKER.findall(prompt):
            part = images.get(key)
            if part is None:
                raise InvalidRequestError(
                    f"The prompt has the marker of a picture, {key}, that this run does not have."
                )
            found.append(self.prepare(part))
        return found

    def expand(self, prompt: str, prepared: Sequence[PreparedImage]) -> str:
        """`prompt` with the placeholders of each picture in place of its marker."""
        texts = iter(prepared)
        return MARKER.sub(lambda _: next(texts).text, prompt) if prepared else prompt

    def with_ids(self, tokens: list[int], prepared: Sequence[PreparedImage]) -> list[int]:
        """`tokens` with the ids of the image tokens in place of the placeholders.

        Raises `InvalidRequestError` if the text has placeholders of its own beside the pictures.
        """
        if not prepared:
            return tokens
        ids = list(itertools.chain.from_iterable(one.ids for one in prepared))
        if tokens.count(self.placeholder) != len(ids):
            raise InvalidRequestError(
                f"The prompt has {tokens.count(self.placeholder)} placeholders ({self.placeholder_name}) for "
                f"{len(ids)} image tokens. Leave the placeholders out of the text."
            )
        rest = iter(ids)
        return [next(rest) if token == self.placeholder else token for token in tokens]

    def prepare(self, part: ImagePart) -> PreparedImage:
        """The picture, read from its file and processed unless it is prepared already. Raises
        `ImageNotFoundError`."""
        with self._lock:
            known = self._prepared.get(part.sha256) or self._in_use(part.sha256)
            if known is None:
                known = self._process(part.sha256, _opened(part))
            if part.sha256 not in self._prepared:
                self._prepared[part.sha256] = known
                size = sum(one.bytes for one in self._prepared.values())
                while size > PREPARED_BYTES and len(self._prepared) > 1:
                    size -= self._prepared.popitem(last=False)[1].bytes
            self._prepared.move_to_end(part.sha256)
            return known

    def prepare_probe(self, image: "Image") -> tuple[PreparedImage, Mapping[str, torch.Tensor]]:
        """A picture that is no run's, with the processor's own input for a text with it."""
        text = f"a {self.placeholder_name} b"
        return self._process("probe", image), dict(self._processor(text=[text], images=[image], return_tensors="pt"))

    def by_number(self, number: int) -> PreparedImage:
        """The picture of an image token, which a sequence uses."""
        return self._by_number[number]

    def _in_use(self, sha256: str) -> PreparedImage | None:
        """The picture, if a sequence still uses it."""
        number = self._numbers.get(sha256)
        return None if number is None else self._by_number.get(number)

    def _process(self, sha256: str, image: "Image") -> PreparedImage:
        made = self._processor(
            text=[self.placeholder_name],
            images=[image],
            return_tensors="pt",
            return_text_replacement_offsets=True,
        )
        [[replaced]] = made["text_replacement_offsets"]
        text: str = replaced["replacement"]
        inputs = {name: value for name, value in made.items() if name not in OF_THE_TEXT}
        prepared = PreparedImage(self._number(sha256), text, text.count(self.placeholder_name or ""), inputs)
        self._by_number[prepared.number] = prepared
        return prepared

    def _number(self, sha256: str) -> int:
        number = self._numbers.pop(sha256, None)
        self._numbers[sha256] = next(self._next) if number is None else number
        while len(self._numbers) > NUMBERED:
            self._numbers.popitem(last=False)
        return self._numbers[sha256]


def _opened(part: ImagePart) -> "Image":
    """Its pixels. The file is a PNG or a JPEG that Hearth has made."""
    from PIL import Image

    try:
        with Image.open(part.path, formats=("PNG", "JPEG")) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ImageNotFoundError(
            f"The picture {part.name!r} was removed since it was sent. Send it again."
        ) from error
