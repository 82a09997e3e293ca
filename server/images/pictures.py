"""The pictures of requests: taken in when a request comes, and made ready for its model when the run begins."""

from collections.abc import Callable
from typing import Protocol

from constants import Settings
from server.errors import InvalidRequestError
from server.files.folders import SessionFolders
from server.files.session_files import SessionFiles
from server.images.decoder import Decoder
from server.images.image_part import ImagePart
from server.images.ocr_reader import OcrReader
from server.images.scratch import remove_leftovers
from server.images.shown import ShownImage, not_seen, seen
from server.images.sources import Fetch, Sent, Sources
from server.images.store import ImageStore
from server.sandbox.sandboxes import Sandboxes

TEXT_SHARE = 1 / 4
"""The maximum of what a prompt has of OCR, all pictures together: a share of the model's context length."""
LONGEST_TEXT = 12_000
"""The same in characters. It is in the run's record as well."""
MOST_SAMPLED = 200
"""Files of a session that are looked at to find its pictures."""


class TakesImages(Protocol):
    """A model, as far as pictures go."""

    @property
    def takes_images(self) -> bool:
        """Whether it sees pictures."""

    @property
    def context_length(self) -> int: ...

    def image_tokens(self, part: ImagePart) -> int:
        """The maximum number of tokens that a picture takes, if it takes images."""


class Pictures:
    """Safe for any number of threads. Idle until the first picture."""

    def __init__(
        self,
        settings: Settings,
        sandboxes: Sandboxes,
        folders: SessionFolders,
        files: SessionFiles,
        fetch: Fetch | None = None,
    ) -> None:
        """`fetch`: gets pictures of the web; None: they are refused."""
        self.store = ImageStore(folders)
        self._most = settings.MAX_IMAGES
        self._folders = folders
        self._files = files
        self._sources = Sources(files, settings.MAX_IMAGE_BYTES, fetch)
        self._decoder = Decoder(sandboxes, folders, settings.IMAGE_SIDE)
        self._ocr = OcrReader(sandboxes, folders)

    def intake(self, workspace: str, session: str | None) -> "Intake":
        """For the pictures of one request."""
        return Intake(self, workspace, session, self._most)

    def take(self, source: str, workspace: str, session: str | None, *, is_url: bool, number: int = 1) -> ImagePart:
        """Decode and store a picture: the `number`th of its request, at a URL or a session's file of that name.

        Raises `ImageRefusedError`, `InvalidRequestError`, `TooLargeError`, `FileNotInSessionError`,
        `SandboxUnavailableError`, `StoreError`, `StorageFullError`, and what fetching raises.
        """
        if is_url:
            sent = self._sources.from_url(source, workspace, session)
        else:
            sent = self._sources.from_file(source, workspace, session)
        return self._stored(sent, workspace, session, number)

    def _stored(self, sent: Sent, workspace: str, session: str | None, number: int) -> ImagePart:
        name = sent.name or f"image-{number}"
        made = self._decoder.decode(name, sent.content)
        return self.store.add(workspace, session, name, made.content, made.size, made.media_type, made.notes)

    def names(self, workspace: str, session: str) -> list[str]:
        """The names of a session's pictures: its files that are some, and those that were sent with questions."""
        files = self._files.listing(workspace, session, MOST_SAMPLED, "").files
        stored = [part.name for part in self.store.all(workspace, session)]
        return [one.name for one in files if one.type.startswith("image/") and "svg" not in one.type] + stored

    def named(self, name: str, workspace: str, session: str) -> ImagePart:
        """A picture of a session by one of these names. Raises what `take` raises."""
        for part in self.store.all(workspace, session):
            if name in (part.name, part.key):
                return part
        return self.take(name, workspace, session, is_url=False)

    def shown(
        self,
        parts: list[ImagePart],
        model: TakesImages,
        cut: Callable[[str, int], str],
        check: Callable[[], None],
    ) -> list[ShownImage]:
        """How `model` gets the pictures: as pictures, or as text, `cut` to so many tokens. `check` is called while
        this waits, and raises to end it. Raises `ImageNotFoundError`."""
        if model.takes_images:
            return [seen(part, model.image_tokens(part)) for part in parts]
        tokens = int(model.context_length * TEXT_SHARE / max(len(parts), 1))
        most = LONGEST_TEXT // max(len(parts), 1)
        found = []
        for part in parts:
            reading = self._ocr.read(part.sha256, self.store.read(part), check)
            text = cut(reading.text[:most], tokens)
            if text != reading.text:
                text += f" ... ({len(reading.text) - len(text)} more characters)"
            found.append(not_seen(part, reading, text))
        return found

    def open(self) -> None:
        """Remove what an earlier server has left."""
        remove_leftovers(self._folders)

    def close(self) -> None:
        """End the process of OCR."""
        self._ocr.close()


class Intake:
    """The pictures of one request, in their order, each once. Not for several threads at once."""

    def __init__(self, pictures: Pictures, workspace: str, session: str | None, most: int) -> None:
        self.parts: list[ImagePart] = []
        self._pictures = pictures
        self._workspace = workspace
        self._session = session
        self._most = most
        self._marks: dict[str, str] = {}
        self._number = 0

    def mark(self, source: str, *, is_url: bool = True) -> str:
        """What stands in the text for a picture, which is decoded and stored. Raises what `Pictures.take` raises, and
        `InvalidRequestError` for too many."""
        if source in self._marks:
            return self._marks[source]
        self._number += 1
        if self._number > self._most:
            raise InvalidRequestError(
                "This server takes no pictures (HEARTH_MAX_IMAGES=0)."
                if not self._most
                else f"A request may have {self._most} pictures (HEARTH_MAX_IMAGES). Ask about fewer."
            )
        part = self._pictures.take(source, self._workspace, self._session, is_url=is_url, number=self._number)
        known = next((one for one in self.parts if one.sha256 == part.sha256), None)
        if known is None:
            self.parts.append(part)
        self._marks[source] = (known or part).mark
        return self._marks[source]
