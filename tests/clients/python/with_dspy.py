"""dspy: typed predictions by JSON schema, a tool's call, a stream, embeddings.

It uses neither tools nor JSON schemas with a model whose name it does not know, unless `register_provider` says
that the model has them.
"""

import asyncio
import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is loaded from GitHub
import dspy
from dspy.lm15 import AccessPolicy, ModelSupport, OpenAIChatCompat, ProviderDefinition, register_provider

URL = os.environ["OPENAI_BASE_URL"]


def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


# Of a model whose name it does not know, dspy supposes that it has neither tools nor JSON schemas.
register_provider(
    ProviderDefinition.chat(AccessPolicy(provider="hearth", base_url=URL), compat=OpenAIChatCompat()),
    supports=ModelSupport(function_calling=True, response_schema=True),
)
model = dspy.LM(
    "hearth/hearth", api_base=URL, api_key=os.environ["OPENAI_API_KEY"], temperature=0, max_tokens=300, cache=False
)
dspy.configure(lm=model, adapter=dspy.JSONAdapter())
[text] = model("hello")
assert text
sample: Any = dspy.Predict("sample -> number: int, frozen: bool")(sample="sample 7, frozen")
assert isinstance(sample.number, int) and isinstance(sample.frozen, bool), sample
thought: Any = dspy.ChainOfThought("sample -> number: int")(sample="sample 7, frozen")
assert isinstance(thought.reasoning, str) and isinstance(thought.number, int), thought


async def last_of_stream() -> Any:
    program = dspy.streamify(dspy.Predict("sample -> number: int, frozen: bool"))
    return [part async for part in program(sample="sample 7, frozen")][-1]


streamed = asyncio.run(last_of_stream())
assert (streamed.number, streamed.frozen) == (sample.number, sample.frozen), streamed

# Without an adapter: the embedded model was not trained on their prompts, and answers those with text.
[called] = model("What is 37 * 52?", tools=[dspy.Tool(calculator).format_as_litellm_function_call()])
function = called["tool_calls"][0]["function"]
assert (function["name"], json.loads(function["arguments"])) == ("calculator", {"expression": "37 * 52"}), called

found = dspy.Embedder("openai/hearth-embedding")(["a salt lake"])
assert abs((found**2).sum() - 1) < 1e-5, found
