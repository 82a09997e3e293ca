"""What agents and tools ask about pictures, over the worker's channel."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from server.errors import InvalidRequestError
from server.images.image_part import ImagePart, short_name
from server.images.pictures import Pictures
from server.runs.run import Run
from server.sdk import context
from server.sessions.asked import Asked, read

if TYPE_CHECKING:
    from server.engine import GuidedEngine
    from server.providers import RemoteModel

MOST_NAMES = 50


class _Look(Asked):
    """Make a picture one of the run's."""

    do: Literal["look"]
    name: Annotated[str, Field(min_length=1, max_length=500)]


class _Names(Asked):
    """The pictures that there are."""

    do: Literal["names"]


_any_call: TypeAdapter[Any] = TypeAdapter(Annotated[_Look | _Names, Field(discriminator="do")])


class ImageCalls:
    """Safe for any number of threads."""

    def __init__(self, pictures: Pictures, engine: "Callable[[], GuidedEngine | RemoteModel]") -> None:
        """`engine` returns the model of this context."""
        self._pictures = pictures
        self._engine = engine

    def do(self, given: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        """The answer to a call. Raises `InvalidRequestError`, and what `Pictures.take` and the model raise."""
        call, run = read(_any_call, given, run, "pictures")
        match call:
            case _Look():
                return self._look(call, run)
        return {"names": self._names(run)[:MOST_NAMES]}

    def has_images(self, run: Run) -> bool:
        """Whether there are pictures that the run's agent may look at."""
        return bool(self._names(run))

    def _names(self, run: Run) -> list[str]:
        own = [part.name for part in run.images.values()]
        if run.session_id is None:
            return own
        others = self._pictures.names(run.workspace, run.session_id)
        known = {short_name(part) for part in run.images.values()}
        return list(dict.fromkeys([*own, *(name for name in others if name not in known)]))

    def _look(self, call: _Look, run: Run) -> dict[str, Any]:
        part = self._found(call.name, run)
        model = self._engine()
        cut = model.tokenizer.cut if model.guided else model.cut
        [shown] = self._pictures.shown([part], model, cut, context.check_cancelled)
        # From now on the mark stands for the picture in what the run sends to its model.
        run.add_image(shown)
        return {"mark": part.mark, "seen": shown.seen, "text": shown.text}

    def _found(self, name: str, run: Run) -> ImagePart:
        for part in run.images.values():
            if name in (part.name, part.key, short_name(part), part.mark):
                return part
        if run.session_id is None:
            raise InvalidRequestError(
                f"There is no picture {name!r}. There are: {', '.join(self._names(run)) or 'none'}."
            )
        return self._pictures.named(name, run.workspace, run.session_id)
