"""A picture as a part of a message, and the mark that stands for it in a text."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK_DIGITS = 16
MARK = re.compile(rf"\[image ([0-9a-f]{{{MARK_DIGITS}}}): [^\[\]\n]{{1,160}}\]")
LONGEST_NAME = 100
PATCH = 27
"""Side of the square that counts as a token, in pixels, and rather too small: Anthropic counts 750 pixels a token
(https://docs.claude.com/en/docs/build-with-claude/vision), Qwen-VL squares of 28, OpenAI fewer."""
MARK_TOKENS = 16
"""Tokens that some models put around a picture."""


@dataclass(frozen=True)
class ImagePart:
    """A stored picture. `name`: what people and prompts call it. `path`: its file, a PNG or JPEG that Hearth made.
    `notes`: what was changed in it, in sentences."""

    name: str
    sha256: str
    width: int
    height: int
    media_type: str
    bytes: int
    path: Path
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What a mark calls it."""
        return self.sha256[:MARK_DIGITS]

    @property
    def mark(self) -> str:
        """What stands for it in a text."""
        shown = re.sub(r"[\[\]\s]+", " ", self.name)[:LONGEST_NAME]
        return f"[image {self.key}: {shown}, {self.width} x {self.height}]"

    @property
    def tokens(self) -> int:
        """The maximum number of tokens that it takes in a prompt, known before it is sent."""
        return math.ceil(self.width / PATCH) * math.ceil(self.height / PATCH) + MARK_TOKENS

    def as_json(self) -> dict[str, Any]:
        """As answers and records have it."""
        shown: dict[str, Any] = {
            "name": self.name,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "media_type": self.media_type,
            "bytes": self.bytes,
        }
        return {**shown, "notes": list(self.notes)} if self.notes else shown


def short_name(part: ImagePart) -> str:
    """The name of a stored picture that was sent without one."""
    return f"image-{part.sha256[:8]}"


Images = Mapping[str, ImagePart]
"""Pictures by their keys."""


def keys_in(text: str) -> list[str]:
    """The keys of all marks in `text`."""
    return MARK.findall(text) if "[image " in text else []


def tokens_in(text: str, images: Images) -> int:
    """The maximum tokens of the pictures whose marks are in `text`, each once."""
    return sum(images[key].tokens for key in set(keys_in(text)) if key in images) if images else 0


def split(text: str, images: Images, seen: set[str]) -> Iterator[str | ImagePart]:
    """`text` in parts: texts, which keep their marks, and after its mark each picture that is not in `seen` yet.
    Adds to `seen`. So a picture is sent once, wherever it is named."""
    start = 0
    for found in MARK.finditer(text):
        part = images.get(found[1])
        if part is not None and part.key not in seen:
            seen.add(part.key)
            yield text[start : found.end()]
            yield part
            start = found.end()
    if start < len(text):
        yield text[start:]
