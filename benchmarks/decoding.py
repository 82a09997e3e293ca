"""`python -m benchmarks.decoding`: guided agents at several widths.

With this engine; with guidance's own behind a lock; and the bare limit: batched forward passes of the same shapes
with nothing around them. Each run is an agent's turn: a prompt of some 300 tokens that lists tools, a thought, a
tool, its input. The models are the embedded one and one of random weights with about 120 million parameters (on a
GPU: 8 billion, in bfloat16).
"""

import argparse
import datetime
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import guidance
import torch
from guidance import gen, select
from transformers import AutoTokenizer, DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks import machine
from server.agent import prompts
from server.embedded import shipped
from server.engine import GuidedEngine, usage

WEIGHTS = Path(prompts.__file__).parent.parent / "embedded" / "weights"
SHAPES = {
    "120 million": {
        "hidden_size": 896,
        "intermediate_size": 2432,
        "num_hidden_layers": 12,
        "num_attention_heads": 14,
        "num_key_value_heads": 14,
    },
    "8 billion": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
    },
}
THOUGHT_TOKENS, INPUT_TOKENS = 16, 12


@dataclass(frozen=True)
class Figures:
    """Of one system at one width."""

    answers_per_second: float
    tokens_per_second: float
    passes_per_answer: float


def make_model(size: str, device: str) -> PreTrainedModel:
    if size == "embedded":
        embedded: PreTrainedModel = LlamaForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
        return embedded.to(device).eval()
    config = LlamaConfig(**{"vocab_size": 2048, "max_position_embeddings": 4096, **SHAPES[size]})
    torch.manual_seed(1)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
        model: PreTrainedModel = LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
    return model


def prompt(tokenizer: Any, number: int) -> str:
    """An agent's prompt; all share the list of tools."""
    tools = [(tool.name, tool.description, tool.schema) for tool in shipped.TOOLS]
    messages = prompts.messages(tools, f"What is {number} times {number + 7}, and how many days is that?")
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def turn() -> Any:
    """An agent's turn as a grammar; its length doesn't depend on what the weights are."""
    names = [prompts.ACTION + tool.name for tool in shipped.TOOLS]
    thought = gen(regex=r"[a-z ]+", max_tokens=THOUGHT_TOKENS)
    return (
        prompts.THOUGHT
        + thought
        + select(names)
        + prompts.ACTION_INPUT
        + gen(regex="[0-9]+", max_tokens=INPUT_TOKENS)
    )


def measured(run: Callable[[int], tuple[int, int]], width: int, runs: int) -> Figures:
    """`run` gives the tokens that it wrote and the forward passes that it took part in."""
    run(1)  # warms up
    with ThreadPoolExecutor(width) as pool:
        began = time.perf_counter()
        results = list(pool.map(run, range(10, 10 + runs)))
        seconds = time.perf_counter() - began
    tokens, passes = (sum(column) for column in zip(*results, strict=True))
    return Figures(runs / seconds, tokens / seconds, passes / runs)


def with_this_engine(model: PreTrainedModel, tokenizer: Any) -> Callable[[int], tuple[int, int]]:
    engine = GuidedEngine(model, tokenizer)

    def run(number: int) -> tuple[int, int]:
        with usage.measured() as used:
            _ = engine.program() + guidance.string(prompt(tokenizer, number)) + turn()
        return used.completion_tokens + used.forced_tokens, used.forward_passes

    return run


def with_guidance(model: PreTrainedModel, tokenizer: Any) -> Callable[[int], tuple[int, int]]:
    """guidance's own engine, one run at a time, with the one line that it lacks for Transformers 5."""
    original = DynamicCache.crop

    def crop(self: DynamicCache, length: int) -> None:
        original(self, length - self.get_seq_length() if length > 0 else length)

    DynamicCache.crop = crop  # type: ignore[method-assign]
    start = guidance.models.Transformers(model, tokenizer, echo=False)
    lock = threading.Lock()
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model.register_forward_hook(count)

    def run(number: int) -> tuple[int, int]:
        with lock:
            before = passes
            asked = prompt(tokenizer, number)
            lm = start + guidance.string(asked) + turn()
            written = str(lm)[len(asked) :]
            return len(tokenizer(written, add_special_tokens=False)["input_ids"]), passes - before

    return run


def bare(model: PreTrainedModel, tokenizer: Any, width: int, steps: int) -> Figures:
    """A loop of forward passes with a cache: the prompt once, then `steps` tokens for `width` texts."""
    tokens = torch.tensor([tokenizer(prompt(tokenizer, 10))["input_ids"]], device=model.device).repeat(width, 1)
    seconds = []
    for _ in range(3):
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            logits = model(tokens, past_key_values=cache, logits_to_keep=1).logits
            began = time.perf_counter()
            for _ in range(steps):
                logits = model(logits[:, -1:].argmax(-1), past_key_values=cache).logits
            if model.device.type == "cuda":
                torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    rate = width * steps / statistics.median(seconds)
    return Figures(rate / steps, rate, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--sizes", nargs="+", default=["embedded", "120 million"], choices=["embedded", *SHAPES])
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    print(f"Measured on {datetime.date.today()}: {machine.describe()}.\n")
    print("| model | at once | system | answers/s | tokens/s | forward passes an answer |\n|---|---|---|---|---|---|")
    for size in arguments.sizes:
        for width in arguments.widths:
            ours = measured(with_this_engine(make_model(size, device), tokenizer), width, max(16, 2 * width))
            theirs = measured(with_guidance(make_model(size, device), tokenizer), width, 16)
            limit = bare(make_model(size, device), tokenizer, width, round(ours.passes_per_answer))
            for system, figures in (("Hearth", ours), ("guidance, a lock", theirs), ("bare passes", limit)):
                print(
                    f"| {size} | {width} | {system} | {figures.answers_per_second:.2f} | "
                    f"{figures.tokens_per_second:.0f} | {figures.passes_per_answer:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
