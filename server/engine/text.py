"""A text that the model reads: its tokens, and its place in the KV cache."""

import threading
from collections.abc import Iterable

from server.engine.images import PreparedImage
from server.engine.kv_cache import Slot
from server.sdk.usage import Usage


class Text:
    """What the scheduler needs of each text. One thread creates it; the scheduler's thread reads it."""

    def __init__(
        self,
        tokens: list[int],
        cancelled: threading.Event | None,
        usage: Usage,
        images: Iterable[PreparedImage] = (),
    ) -> None:
        """`tokens` have the image tokens of `images`. `usage` is updated; `cancelled` may be set at any time."""
        self.tokens = tokens
        self.images = tuple(images)
        """Held here as long as the model may have to read them."""
        self.cancelled = cancelled or threading.Event()
        self.usage = usage
        self.slot: Slot | None = None
        self.abandoned = False
        """Its reader is gone."""

    @property
    def image_tokens(self) -> int:
        """The number of tokens of pictures."""
        return sum(image.length for image in self.images)

    @property
    def new(self) -> list[int]:
        """The tokens that are not cached yet."""
        assert self.slot is not None
        return self.tokens[len(self.slot.cached_tokens) :]

    def use(self, slot: Slot) -> None:
        """Take a slot, which has some of the tokens cached."""
        self.slot = slot

    def end(self, error: BaseException | None = None) -> None:
        """It is at its end; with `error`, its reader raises it."""
        raise NotImplementedError
