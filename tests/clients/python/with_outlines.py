"""outlines: a text, JSON of a type, and a stream of JSON.

It sends JSON schemas alone: regular expressions and other grammars are refused by the client.
"""

import json
from typing import Any

import outlines
from openai import OpenAI
from pydantic import BaseModel, Field


class Sample(BaseModel):
    """A sample in a freezer."""

    number: int = Field(ge=0, le=99)
    frozen: bool


model = outlines.from_openai(OpenAI(), "hearth")
limited: Any = {"temperature": 0, "max_tokens": 200}
assert model("hello", **limited)
Sample.model_validate_json(model("sample 7, frozen", Sample, **limited))
assert isinstance(json.loads(model("sample 7, frozen", dict, **limited)), dict)
Sample.model_validate_json("".join(model.stream("sample 7, frozen", Sample, **limited)))
