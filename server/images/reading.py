"""What is read of a picture for a model that does not see it."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    colour: str = Field(pattern="^#[0-9a-f]{6}$")
    share: float = Field(ge=0, le=1)


class Facts(BaseModel):
    """What is measured of the pixels. Brightness is from 0 to 1."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mean_colour: str = Field(pattern="^#[0-9a-f]{6}$")
    common_colours: list[Colour] = Field(max_length=5)
    brightness: float = Field(ge=0, le=1)
    is_grey: bool


@dataclass(frozen=True)
class Reading:
    """What was read of a picture. `problem`: why there is no text, in a sentence; empty: OCR has worked, and may have
    found nothing."""

    text: str = ""
    facts: Facts | None = None
    problem: str = ""
