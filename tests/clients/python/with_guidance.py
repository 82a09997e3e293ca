"""guidance: a captured text, and JSON of a type.

It sends JSON schemas alone: regular expressions and other grammars are refused by the client.
"""

import os
from typing import Any

import guidance
from guidance import assistant, user
from pydantic import BaseModel, Field


class Sample(BaseModel):
    """A sample in a freezer."""

    number: int = Field(ge=0, le=99)
    frozen: bool


model: Any = guidance.models.OpenAI("hearth", echo=False, base_url=os.environ["OPENAI_BASE_URL"])
with user():
    asked = model + "hello"
with assistant():
    answered = asked + guidance.gen("text", max_tokens=50)
    formed = asked + guidance.json("sample", schema=Sample, max_tokens=100)
assert answered["text"], answered
Sample.model_validate_json(formed["sample"])
