"""openai: chat, responses, completions and embeddings, also as streams; tools; structured output by `parse`."""

import json
from typing import Any

from openai import OpenAI
from pydantic import BaseModel, Field

QUESTION = "What is 37 * 52?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
FUNCTION: Any = {
    "name": "calculator",
    "description": "Work out an arithmetic expression.",
    "parameters": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Sample(BaseModel):
    """A sample in a freezer."""

    number: int = Field(ge=0, le=99)
    frozen: bool


client = OpenAI()  # OPENAI_BASE_URL and OPENAI_API_KEY
limited: Any = {"model": "hearth", "temperature": 0}

# Chat, with a tool whose result becomes the answer.
tools: Any = [{"type": "function", "function": FUNCTION}]
with client.chat.completions.stream(messages=MESSAGES, tools=tools, **limited) as stream:
    said = stream.get_final_completion().choices[0].message
[call] = said.tool_calls or []
assert call.function.parsed_arguments == {"expression": "37 * 52"}, call
result: Any = {"role": "tool", "tool_call_id": call.id, "content": "1924"}
answer = client.chat.completions.create(messages=[*MESSAGES, said, result], tools=tools, **limited)
assert answer.choices[0].message.content == "1924", answer
chunks = client.chat.completions.create(messages=[*MESSAGES, said, result], tools=tools, stream=True, **limited)
assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "1924"
parsed = client.chat.completions.parse(messages=MESSAGES, response_format=Sample, **limited)
assert isinstance(parsed.choices[0].message.parsed, Sample), parsed

# Responses, the same.
tools = [{"type": "function", **FUNCTION}]
with client.responses.stream(input=QUESTION, tools=tools, **limited) as events:
    types = [event.type for event in events]
    first = events.get_final_response()
assert types[0] == "response.created" and types[-1] == "response.completed", types
[function] = [item for item in first.output if item.type == "function_call"]
assert json.loads(function.arguments) == {"expression": "37 * 52"}, function
output: Any = {"type": "function_call_output", "call_id": function.call_id, "output": "1924"}
second = client.responses.create(input=[output], previous_response_id=first.id, tools=tools, **limited)
assert second.output_text == "1924", second
sample = client.responses.parse(input=QUESTION, text_format=Sample, **limited).output_parsed
assert isinstance(sample, Sample), sample

# Completions and embeddings.
whole = client.completions.create(prompt="The sea", max_tokens=10, **limited).choices[0].text
streamed = client.completions.create(prompt="The sea", max_tokens=10, stream=True, **limited)
assert "".join(one.choices[0].text for one in streamed if one.choices) == whole != ""
vectors = client.embeddings.create(model="hearth-embedding", input=["a salt lake", "the dead sea", "tax law"])
lake, sea, law = (one.embedding for one in vectors.data)
assert sum(a * b for a, b in zip(lake, sea, strict=True)) > sum(a * b for a, b in zip(lake, law, strict=True))

# An agent with its own tools.
agent = client.chat.completions.create(model="hearth/react", messages=MESSAGES)
assert agent.choices[0].message.content == "1924", agent
