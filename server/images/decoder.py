"""From the bytes of a picture that somebody sent to a picture that Hearth made, by way of the sandbox."""

import io
import threading
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import ImageRefusedError, SandboxUnavailableError
from server.files.folders import SessionFolders
from server.images.scratch import scratch
from server.sandbox.sandboxes import Sandboxes

DECODE_SECONDS = 20.0
AT_ONCE = 2
"""Pictures that are decoded at the same time."""
JPEG_QUALITY = 90
PNG_LEVEL = 4
MOST_PNG_BYTES = 3_500_000
"""A larger one becomes a JPEG: in base64 it would have more than 5 MB, Anthropic's limit."""


class _Decoded(BaseModel):
    """The sandbox's reply, which a hostile picture may have made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    width: int = Field(ge=1, le=4096)
    height: int = Field(ge=1, le=4096)
    format: str = Field(max_length=20)
    original_width: int = Field(ge=1)
    original_height: int = Field(ge=1)
    is_lossy: bool
    notes: list[str] = Field(max_length=10)


@dataclass(frozen=True)
class MadeImage:
    """A picture as it is stored: `content` is a PNG or a JPEG without metadata."""

    content: bytes
    size: tuple[int, int]
    media_type: str
    notes: tuple[str, ...]


class Decoder:
    """Safe for any number of threads."""

    def __init__(self, sandboxes: Sandboxes, folders: SessionFolders, side: int) -> None:
        """`side`: pixels of the longer side, to which larger pictures are scaled."""
        self._sandboxes = sandboxes
        self._folders = folders
        self._side = side
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def decode(self, name: str, content: bytes) -> MadeImage:
        """The picture in `content`. `name`: for messages. The same bytes become the same picture.

        Raises `ImageRefusedError`, `SandboxUnavailableError`, `StoreError`, `StorageFullError`.
        """
        with self._places, scratch(self._folders) as folder:
            folder.write("sent", content)
            asked = {"do": "decode", "file": "sent", "pixels": "pixels", "side": self._side}
            try:
                reply = self._sandboxes.ask_alone(folder.name, asked, DECODE_SECONDS)
            except SandboxUnavailableError as error:
                raise SandboxUnavailableError(f"Pictures are decoded in the sandbox. {error.message}") from error
            if "refused" in reply:
                raise ImageRefusedError(f"The picture {name!r} can't be used. {str(reply['refused'])[:500]}")
            try:
                decoded = _Decoded.model_validate(reply)
            except ValidationError:
                raise ImageRefusedError(f"The picture {name!r} has made its decoder send nonsense.") from None
            pixels = folder.read("pixels", 3 * decoded.width * decoded.height)
        size = (decoded.width, decoded.height)
        made, media_type = _encoded(pixels, size, decoded.is_lossy)
        return MadeImage(made, size, media_type, tuple(note[:300] for note in decoded.notes))


def _encoded(pixels: bytes, size: tuple[int, int], is_lossy: bool) -> tuple[bytes, str]:
    """The pixels as PNG or JPEG, and the media type. Nothing is decoded here, so no picture can attack it."""
    from PIL import Image

    image = Image.frombytes("RGB", size, pixels)
    if not is_lossy:
        out = io.BytesIO()
        image.save(out, "PNG", compress_level=PNG_LEVEL)
        if out.tell() <= MOST_PNG_BYTES:
            return out.getvalue(), "image/png"
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue(), "image/jpeg"
