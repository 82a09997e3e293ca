"""llm: models of `extra-openai-models.yaml`, for chat, responses and completions; tools; schemas; the log.

The file needs `api_key_name`: no key is sent otherwise. A model with `completion: true` logs no usage.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Without api_key_name no key is sent.
MODELS = """
- {{model_id: hearth, model_name: hearth, api_base: "{url}", api_key_name: hearth, supports_tools: true,
   supports_schema: true}}
- {{model_id: hearth-responses, model_name: hearth, api_base: "{url}", api_key_name: hearth, responses: true,
   supports_tools: true, supports_schema: true}}
- {{model_id: hearth-completion, model_name: hearth, api_base: "{url}", api_key_name: hearth, completion: true}}
"""
QUESTION = "What is 37 * 52?"
CALCULATOR = '''
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    left, right = expression.split("*")
    return str(int(left) * int(right))
'''
SAMPLE = {"type": "object", "properties": {"frozen": {"type": "boolean"}}, "required": ["frozen"]}


def command(*arguments: str) -> str:
    """What `llm` prints."""
    ended = subprocess.run([sys.executable, "-m", "llm", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


with tempfile.TemporaryDirectory() as folder:
    os.environ["LLM_USER_PATH"] = folder
    Path(folder, "extra-openai-models.yaml").write_text(MODELS.format(url=os.environ["OPENAI_BASE_URL"]))
    command("keys", "set", "hearth", "--value", os.environ["OPENAI_API_KEY"])
    for name in ("hearth", "hearth-responses"):
        assert command("-m", name, "-o", "temperature", "0", "--functions", CALCULATOR, QUESTION) == "1924"
    logged = json.loads(command("logs", "--json", "-n", "0"))
    assert [bool(one["tool_calls"]) for one in logged] == [True, False] * 2, logged
    assert all(one["input_tokens"] and one["output_tokens"] for one in logged), logged

    # The same package in Python.
    import llm

    defined: dict[str, object] = {}
    exec(CALCULATOR, defined)
    for name in ("hearth", "hearth-responses"):
        model = llm.get_model(name)
        texts = {model.prompt("hello", stream=stream, temperature=0).text() for stream in (True, False)}
        assert len(texts) == 1 and "" not in texts, texts
        for stream in (True, False):
            chain = model.chain(QUESTION, tools=[defined["calculator"]], stream=stream, options={"temperature": 0})
            assert chain.text() == "1924", chain
        sample = json.loads(model.prompt("sample 7, frozen", schema=SAMPLE, temperature=0).text())
        assert isinstance(sample["frozen"], bool), sample
    assert llm.get_model("hearth-completion").prompt("The sea", max_tokens=10).text()
