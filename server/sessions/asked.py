"""Reading what people's code asks of its session."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from server.errors import InvalidRequestError
from server.runs.run import Run


class Asked(BaseModel):
    """One thing that may be asked."""

    model_config = ConfigDict(extra="forbid", strict=True)


def read(forms: TypeAdapter[Any], given: Mapping[str, Any], run: Run | None, whom: str) -> tuple[Any, Run]:
    """What `given` asks, and the run that asks. `whom`: is asked, in words. Raises `InvalidRequestError`."""
    try:
        asked = forms.validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(f"That can't be asked of {whom}: {place}: {first['msg']}.") from None
    if run is None:
        raise InvalidRequestError(f"{whom.capitalize()} can be asked in a run, and this code runs outside of one.")
    return asked, run
