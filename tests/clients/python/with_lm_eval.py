"""lm-eval: a log-likelihood task by `local-completions`, a generative one by `local-chat-completions`.

A log-likelihood task sends tokens: it needs the files of the model's tokenizer.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
import lm_eval

WEIGHTS = Path(__file__).parents[3] / "server" / "embedded" / "weights"
"""The tokenizer of the embedded model: log-likelihood tasks send its tokens."""
URL = os.environ["OPENAI_BASE_URL"]
DOCUMENTS = [
    {"text": "hello", "choices": ["Hello! How can I help?", "Nineteen purple horses ate."], "answer": 0},
    {"text": "hello", "choices": ["The of and which under.", "Hello! How can I help?"], "answer": 1},
]


def evaluate(model: str, arguments: dict[str, Any], task: dict[str, Any], **more: Any) -> Any:
    results = lm_eval.simple_evaluate(model=model, model_args=arguments, tasks=[task], bootstrap_iters=0, **more)
    assert results is not None
    return results


with tempfile.TemporaryDirectory() as folder:
    data = Path(folder, "documents.jsonl")
    data.write_text("".join(f"{json.dumps(one)}\n" for one in DOCUMENTS))
    local = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}

    choices = {
        **local,
        "task": "choices",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    arguments = {
        "model": "hearth",
        "base_url": f"{URL}/completions",
        "tokenizer": str(WEIGHTS),
        "tokenizer_backend": "huggingface",
    }
    found = evaluate("local-completions", arguments, choices)
    assert found["results"]["choices"]["acc,none"] == 1, found["results"]

    written = {
        **local,
        "task": "written",
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 50},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    chat = {"model": "hearth", "base_url": f"{URL}/chat/completions"}
    found = evaluate("local-chat-completions", chat, written, apply_chat_template=True)
    assert found["results"]["written"]["exact_match,none"] == 1, found["samples"]
