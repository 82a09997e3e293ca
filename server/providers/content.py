"""Messages with pictures, in the content blocks that each provider's package translates for its API:
https://docs.langchain.com/oss/python/langchain/messages#multimodal"""

import base64
from collections.abc import Sequence
from typing import Any

from server.errors import ImageNotFoundError
from server.images.image_part import ImagePart, Images, keys_in, split

Sent = Sequence[dict[str, Any]]


def with_images(messages: list[dict[str, str]], images: Images) -> Sent:
    """`messages` with each of `images` after its first mark in a message of the user; the same list if there is no
    such mark. Raises `ImageNotFoundError`."""
    if not images or not any(key in images for one in messages for key in keys_in(one["content"])):
        return messages
    seen: set[str] = set()
    return [_with_blocks(one, images, seen) if one["role"] == "user" else one for one in messages]


def _with_blocks(message: dict[str, str], images: Images, seen: set[str]) -> dict[str, Any]:
    parts = list(split(message["content"], images, seen))
    if not any(isinstance(part, ImagePart) for part in parts):
        return message
    # Some APIs refuse a text of nothing but white space.
    kept = [part for part in parts if isinstance(part, ImagePart) or part.strip()]
    return {**message, "content": [_block(part) for part in kept]}


def _block(part: str | ImagePart) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    try:
        content = part.path.read_bytes()
    except OSError:
        raise ImageNotFoundError(f"The picture {part.name!r} was removed since it was sent. Send it again.") from None
    return {"type": "image", "base64": base64.b64encode(content).decode(), "mime_type": part.media_type}
