"""instructor: the modes TOOLS, TOOLS_STRICT, JSON_SCHEMA and RESPONSES_TOOLS; partial objects as a stream; retries.

It needs a version of `openai` before 3.4.
"""

from typing import Any

import instructor
from instructor import Mode
from openai import OpenAI
from pydantic import BaseModel, Field, model_validator

refused: list[str] = []


class Sample(BaseModel):
    """A sample in a freezer."""

    number: int = Field(ge=0, le=99)
    frozen: bool


class SecondSample(Sample):
    """One whose first answer is refused, so that it is asked for again."""

    @model_validator(mode="after")
    def refuse_once(self) -> "SecondSample":
        if not refused:
            refused.append(str(self))
            raise ValueError("look again")
        return self


for mode in (Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON_SCHEMA, Mode.RESPONSES_TOOLS):
    client = instructor.from_openai(OpenAI(), mode=mode)
    question = [{"role": "user", "content": "sample 7, frozen"}]
    asked: dict[str, Any] = {"model": "hearth", "messages": question, "temperature": 0}
    sample, answer = client.create_with_completion(response_model=Sample, **asked)
    assert isinstance(sample, Sample) and answer.usage is not None, (mode, answer)
    *_, last = client.create_partial(response_model=Sample, **asked)
    assert (last.number, last.frozen) == (sample.number, sample.frozen), (mode, last, sample)
    refused.clear()
    again = client.create(response_model=SecondSample, max_retries=2, **asked)
    assert refused and isinstance(again, SecondSample), (mode, again)
