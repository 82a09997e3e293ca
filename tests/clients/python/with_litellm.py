"""litellm: chat, also as a stream; a tool; structured output; responses; embeddings.

It loads a list of prices from GitHub when it is imported, unless `LITELLM_LOCAL_MODEL_COST_MAP=True`.
"""

import json
import math
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from pydantic import BaseModel, Field

MESSAGES: Any = [{"role": "user", "content": "What is 37 * 52?"}]
CALCULATOR: Any = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Work out an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}


class Sample(BaseModel):
    """A sample in a freezer."""

    number: int = Field(ge=0, le=99)
    frozen: bool


limited: Any = {"model": "openai/hearth", "temperature": 0}
first: Any = litellm.completion(messages=MESSAGES, tools=[CALCULATOR], **limited)
[call] = first.choices[0].message.tool_calls
assert (call.function.name, json.loads(call.function.arguments)) == ("calculator", {"expression": "37 * 52"}), call
result: Any = {"role": "tool", "tool_call_id": call.id, "content": "1924"}
said: Any = [*MESSAGES, first.choices[0].message, result]
answer: Any = litellm.completion(messages=said, tools=[CALCULATOR], **limited)
assert answer.choices[0].message.content == "1924", answer
chunks: Any = list(litellm.completion(messages=said, tools=[CALCULATOR], stream=True, **limited))
assert "".join(one.choices[0].delta.content or "" for one in chunks) == "1924", chunks
streamed: Any = litellm.completion(messages=MESSAGES, tools=[CALCULATOR], stream=True, **limited)
[call] = litellm.stream_chunk_builder(list(streamed)).choices[0].message.tool_calls  # type: ignore[union-attr]
assert json.loads(call.function.arguments) == {"expression": "37 * 52"}, call
form: Any = litellm.completion(messages=MESSAGES, response_format=Sample, **limited)
Sample.model_validate_json(form.choices[0].message.content)

response: Any = litellm.responses(model="openai/hearth", input="hello", temperature=0)
assert response.status == "completed" and response.output[0].content[0].text, response
found: Any = litellm.embedding(model="openai/hearth-embedding", input=["a salt lake"])
assert math.isclose(sum(one * one for one in found.data[0]["embedding"]), 1, abs_tol=1e-5)
