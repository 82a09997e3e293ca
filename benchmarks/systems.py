"""What writes an agent's turn, side by side: each takes a prompt and says what writing behind it cost."""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import guidance
import requests
import torch
from guidance import gen, select
from transformers import DynamicCache, StaticCache

from benchmarks.models import Weights, free_memory
from server.agent import prompts
from server.engine import GuidedEngine
from server.engine.kv_cache import common_prefix
from server.sdk import context, usage
from tests.support import gguf_file
from tests.support.llamacpp_server import llamacpp_server
from tests.support.transformers_serve import transformers_serve
from training import shipped_tools

THOUGHT_TOKENS, INPUT_DIGITS = 16, 12


@dataclass(frozen=True)
class Answer:
    """`first_token`: seconds from the question. Of its `tokens` the model chose some, the grammar wrote the others.
    `passes`: forward passes that it took part in, None where the system does not report them."""

    first_token: float
    tokens: int
    chosen: int
    passes: int | None


Ask = Callable[[str], Answer]
"""Has a text continued, from any number of threads."""


def prompt(tokenizer: Any, question: str) -> str:
    """An agent's prompt; all share the list of tools."""
    tools = [(tool.name, tool.description, tool.schema) for tool in shipped_tools.TOOLS]
    messages = prompts.messages(tools, question)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def turn() -> Any:
    """An agent's turn as a grammar, also for a model that writes nonsense: a thought, a tool, its input."""
    names = [prompts.ACTION + tool.name for tool in shipped_tools.TOOLS]
    thought = gen(regex=r"[a-z ]+", max_tokens=THOUGHT_TOKENS)
    return prompts.THOUGHT + thought + select(names) + prompts.ACTION_INPUT + gen(regex=f"[0-9]{{{INPUT_DIGITS}}}")


@contextmanager
def hearth(weights: Weights) -> Iterator[Ask]:
    """This engine, in this process."""
    loaded = weights.load()
    engine = GuidedEngine(loaded.model, loaded.tokenizer)

    def ask(text: str) -> Answer:
        began = time.perf_counter()
        first: list[float] = []

        def hear(_: str, used: usage.Usage) -> None:
            if used.completion_tokens and not first:
                first.append(time.perf_counter() - began)

        with usage.measured() as used, context.scope(on_text=hear):
            _ = engine.program() + guidance.string(text) + turn()
        tokens = used.completion_tokens + used.forced_tokens
        return Answer(first[0], tokens, used.completion_tokens, used.forward_passes)

    yield ask
    engine.close()


@contextmanager
def guidance_behind_a_lock(weights: Weights) -> Iterator[Ask]:
    """guidance's own engine, one text at a time, with the one line that it lacks for Transformers 5."""
    original = DynamicCache.crop

    def crop(self: DynamicCache, length: int) -> None:
        original(self, length - self.get_seq_length() if length > 0 else length)

    patched: Any = DynamicCache
    patched.crop = crop
    loaded = weights.load()
    tokenizer: Any = loaded.tokenizer
    start = guidance.models.Transformers(loaded.model, tokenizer, echo=False)
    lock = threading.Lock()
    passed: list[float] = []
    loaded.model.register_forward_hook(lambda *_: passed.append(time.perf_counter()))

    def ask(text: str) -> Answer:
        began = time.perf_counter()
        with lock:
            passed.clear()
            written = str(start + guidance.string(text) + turn())[len(text) :]
            tokens = len(tokenizer(written, add_special_tokens=False)["input_ids"])
            return Answer(passed[0] - began, tokens, len(passed), len(passed))

    yield ask
    patched.crop = original


@contextmanager
def serve(weights: Weights, tokens: int, continuous_batching: bool) -> Iterator[Ask]:
    """`transformers serve`, a process that is asked over HTTP for free text of so many tokens. AssertionError where
    it does not start, or fails."""
    free_memory()
    gpu = torch.cuda.is_available()
    arguments = ["--device", "cuda" if gpu else "cpu"]
    if weights.in_8bit:
        arguments += ["--quantization", "bnb-8bit"]
    if continuous_batching:
        # On the CPU it takes most of the machine's memory at once unless a setting limits it, whatever is free.
        arguments += ["--continuous-batching", *(() if gpu else ("--cb-max-memory-percent", "0.1"))]
    wanted = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    body: dict[str, Any] = {"model": str(weights.folder), "generation_config": json.dumps(wanted)}
    with (
        tempfile.TemporaryDirectory() as folder,
        transformers_serve(weights.folder, Path(folder), *arguments) as url,
    ):
        yield _over_http(url, body, tokens)


@contextmanager
def llamacpp(weights: Weights, tokens: int, slots: int) -> Iterator[Ask]:
    """llama.cpp's own server over the same weights in float32, a process that is asked over HTTP for free text of so
    many tokens, `slots` at a time. As it comes from the package index, it runs on the CPU."""
    free_memory()
    with tempfile.TemporaryDirectory() as folder:
        file = gguf_file.write(Path(folder) / "model.gguf", weights.folder)
        with llamacpp_server(file, Path(folder) / "log.txt", slots, torch.get_num_threads()) as url:
            yield _over_http(url, {"max_tokens": tokens, "ignore_eos": True, "temperature": 0}, tokens)


def _over_http(url: str, body: dict[str, Any], tokens: int) -> Ask:
    def ask(text: str) -> Answer:
        began = time.perf_counter()
        first = 0.0
        chunk: dict[str, Any] = {}
        sent = {**body, "prompt": text, "stream": True, "stream_options": {"include_usage": True}}
        with requests.post(url + "/v1/completions", json=sent, stream=True, timeout=600) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith(b"data: {"):
                    chunk = json.loads(line.removeprefix(b"data: "))
                    first = first or time.perf_counter() - began
        assert chunk.get("usage"), chunk
        written = chunk["usage"]["completion_tokens"]
        assert written == tokens, f"asked for {tokens} tokens, it wrote {written}"
        return Answer(first, written, written, None)

    return ask


@torch.inference_mode()
def bare_passes(weights: Weights, texts: Sequence[str], passes: int, times: int) -> list[float]:
    """Seconds of the same forward passes with nothing around them: `texts` side by side but for the last, of which is
    known what they share, their own ends in the first pass, and then a token of each a pass."""
    loaded = weights.load()
    model: Any = loaded.model
    device = model.device
    *read, last = (loaded.tokenizer(text)["input_ids"] for text in texts)
    shared = min(common_prefix(last, one) for one in read)
    length = min(map(len, read))
    known: Any = DynamicCache(config=model.config)
    model(torch.tensor([last[:shared]], device=device), past_key_values=known, logits_to_keep=1)
    seconds = []
    for _ in range(times):
        # One that is written in place: a dynamic one is copied with each token.
        cache: Any = StaticCache(config=model.config, max_cache_len=length + passes)
        for number, layer in enumerate(known.layers):
            cache.update(*(part.repeat(len(read), 1, 1, 1) for part in (layer.keys, layer.values)), number)
        new = torch.tensor([one[shared:length] for one in read], device=device)
        began = time.perf_counter()
        for _ in range(passes):
            new = model(new, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds
