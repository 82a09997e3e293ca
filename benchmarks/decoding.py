"""Guided decoding for many at once: a part of `make bench`; `python -m benchmarks.decoding` takes `--widths` and
`--sizes` besides.

Each question is an agent's turn behind a prompt of some 380 tokens that lists tools: a thought, a tool, its input.
Side by side, at several widths (questions at a time): this engine; guidance's own behind a lock; `transformers serve`
without and with continuous batching, and llama.cpp's server, which write free text of the same length; and bare
forward passes with nothing around them, one for each token that the model chooses. Then the time to the first token
behind a prefix of 2,000 tokens, cold and warm; a forward pass with each kind of weights; and in how many passes the
agent writes its steps, beside the tokens that they have.

The models are the embedded one and one of random weights with about 120 million parameters; on a GPU 8 billion as
well, in bfloat16 and in 8 bit. On a GPU it is the same command, in a checkout with a virtual environment whose torch
is CUDA's. Nothing is downloaded; 8 billion need some 40 GiB of GPU memory, and 20 GiB where temporary files go.
"""

import argparse
import datetime
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import requests
import torch
from transformers import AutoTokenizer

from benchmarks import machine, models, systems
from benchmarks.models import Weights
from benchmarks.questions import QUESTIONS
from benchmarks.systems import Answer, Ask
from benchmarks.tables import milliseconds, p95, print_table
from server.agent import CustomAgentGuidance
from server.engine import GuidedEngine
from server.engine.offload import Weights as ModelWeights
from server.engine.slot_kv_cache import SlotKVCache
from server.model import QUANTIZATIONS
from server.sdk import ResidentChatModel
from server.tools import load_tools

WIDTHS = (1, 4, 16, 64)
PREFIX_TOKENS = 2000
COLUMNS = (
    "model",
    "at once",
    "system",
    "n",
    "answers/s",
    "tokens/s",
    "first token p50",
    "first token p95",
    "forward passes an answer",
)
PREFIX_COLUMNS = ("prefix of 2,000 tokens", "first token cold", "n", "first token warm", "n", "warm of cold")
PRECISION_COLUMNS = ("model", "weights", "size", "a pass of one token", "of 16")
STEPS_COLUMNS = ("the agent's steps for", "tokens, a pass each when decoded freely", "guided passes", "of those")


@dataclass(frozen=True)
class Figures:
    """Of one system at one width. `answers` of its questions, in so many `seconds` in all."""

    answers: Sequence[Answer]
    seconds: float

    @property
    def tokens(self) -> float:
        """Of an answer, on average."""
        return statistics.mean(answer.tokens for answer in self.answers)

    @property
    def chosen(self) -> float:
        """Of its tokens, on average, those that the model chose."""
        return statistics.mean(answer.chosen for answer in self.answers)

    @property
    def passes(self) -> float | None:
        passes = [answer.passes for answer in self.answers if answer.passes is not None]
        return statistics.mean(passes) if passes else None

    def row(self) -> list[str]:
        rate = len(self.answers) / self.seconds
        first = [answer.first_token for answer in self.answers]
        passes = "-" if self.passes is None else f"{self.passes:.1f}"
        shown = [f"{rate:.2f}", f"{rate * self.tokens:.0f}"]
        return [str(len(first)), *shown, milliseconds(statistics.median(first)), milliseconds(p95(first)), passes]


def measured(ask: Ask, texts: Sequence[str], width: int) -> Figures:
    """`texts` asked `width` at a time."""
    with ThreadPoolExecutor(width) as pool:
        began = time.perf_counter()
        answers = list(pool.map(ask, texts))
        return Figures(answers, time.perf_counter() - began)


def side_by_side(weights: Weights, widths: Sequence[int], few: bool) -> list[list[str]]:
    """The rows of a model, by width. Each system is asked at all widths before the next one is loaded."""
    tokenizer = AutoTokenizer.from_pretrained(weights.folder)
    numbers = count(10)  # nobody is asked the same twice
    rows: dict[int, list[list[str]]] = {width: [] for width in widths}

    def texts(how_many: int) -> list[str]:
        asked = (f"What is {number} times {number + 7}, and how many days is that?" for number in numbers)
        return [systems.prompt(tokenizer, next(asked)) for _ in range(how_many)]

    def measure(name: str, system: AbstractContextManager[Ask], rounds: int) -> dict[int, Figures]:
        found = {}
        with system as ask:
            ask(texts(1)[0])  # warms up
            for width in widths:
                _progress(f"{weights.name}: {name}, {width} at once")
                found[width] = measured(ask, texts(width if few else max(8, rounds * width)), width)
                rows[width].append([weights.name, str(width), name, *found[width].row()])
        return found

    def measure_server(name: str, system: AbstractContextManager[Ask], rounds: int) -> None:
        try:
            measure(name, system, rounds)
        except (AssertionError, requests.RequestException) as error:  # boundary: another's program
            _progress(f"{weights.name}: {name} failed, and has no rows for what is left: {error}")

    ours = measure("Hearth", systems.hearth(weights), 2)
    measure("guidance, a lock", systems.guidance_behind_a_lock(weights), 1)
    tokens = round(statistics.mean(figures.tokens for figures in ours.values()))
    measure_server("transformers serve", systems.serve(weights, tokens, continuous_batching=False), 1)
    measure_server("the same, continuous batching", systems.serve(weights, tokens, continuous_batching=True), 2)
    if not torch.cuda.is_available():
        measure_server("llama.cpp's server", systems.llamacpp(weights, tokens, slots=max(widths)), 2)
    for width in widths:
        _progress(f"{weights.name}: bare passes, {width} at once")
        passes = round(ours[width].chosen)
        seconds = statistics.median(systems.bare_passes(weights, texts(width + 1), passes, 1 if few else 3))
        rate = width / seconds
        shown = [f"{rate:.2f}", f"{rate * ours[width].tokens:.0f}", "-", "-", str(passes)]
        rows[width].append([weights.name, str(width), "bare passes", "1" if few else "3", *shown])
    return [row for width in widths for row in rows[width]]


def prefix(weights: Weights, few: bool) -> list[str]:
    """Time to the first token behind a prefix that nobody knows yet, and behind one that is in KV memory."""
    tokenizer = AutoTokenizer.from_pretrained(weights.folder)
    cold, warm = [], []
    with systems.hearth(weights) as ask:
        ask(systems.prompt(tokenizer, "hello"))  # warms up
        for number in range(1 if few else 5):
            _progress(f"{weights.name}: prefix {number}")
            words = " ".join(f"{number} and {other}" for other in range(PREFIX_TOKENS // 5))
            known = tokenizer.decode(tokenizer(words)["input_ids"][:PREFIX_TOKENS])
            cold.append(ask(f"{known}\nWhat is 3 * 4?").first_token)
            warm += [ask(f"{known}\n{other}, what is that?").first_token for other in range(2 if few else 5)]
    ratio = statistics.median(warm) / statistics.median(cold)
    shown = [text for times in (cold, warm) for text in (milliseconds(statistics.median(times)), str(len(times)))]
    return [weights.name, *shown, f"{100 * ratio:.0f} %"]


def precisions(weights: Weights, few: bool) -> list[list[str]]:
    """A forward pass behind 400 tokens, of one token and of 16, with each kind of weights."""
    rows = []
    for quantizer in (None, *QUANTIZATIONS):
        _progress(f"{weights.name}: {quantizer}")
        loaded = replace(weights, in_8bit=quantizer is not None).load(quantizer or "")
        memory = SlotKVCache(loaded.model, 2**32)
        slot = memory.take(range(1000, 1400))
        assert slot is not None
        memory.run([(slot, range(1000, 1400))])
        shown = []
        for width in (1, 16):
            seconds = []
            for _ in range(3 if few else 20):
                slot.cached_tokens = slot.cached_tokens[:400]
                began = time.perf_counter()
                memory.run([(slot, [7] * width)]).tolist()
                seconds.append(time.perf_counter() - began)
            shown.append(milliseconds(statistics.median(seconds)))
        size = f"{ModelWeights(loaded.model).bytes / 2**20:.0f} MiB"
        rows.append([weights.size, loaded.quantization, size, *shown])
    return rows


def passes_of_steps(weights: Weights) -> list[list[str]]:
    """What the agent itself writes to answer questions, and in how many passes."""
    loaded = weights.load()
    engine = GuidedEngine(loaded.model, loaded.tokenizer)
    tools = load_tools(ResidentChatModel(get_engine=lambda: engine))
    agent = CustomAgentGuidance(engine, tools, max_steps=6)
    rows, sums = [], [0, 0]

    def add(what: str, tokens: int, passes: int) -> None:
        rows.append([what, str(tokens), str(passes), f"{100 * passes / tokens:.0f} %"])

    for question in QUESTIONS:
        used = agent(question).usage
        counted = used["completion_tokens"] + used["forced_tokens"], used["forward_passes"]
        add(question, *counted)
        sums = [before + more for before, more in zip(sums, counted, strict=True)]
    add("all of them", *sums)
    engine.close()
    return rows


def report(folder: Path, widths: Sequence[int] = WIDTHS, sizes: Sequence[str] = (), few: bool = False) -> None:
    """Print the tables; weights are written to `folder`. `sizes`: all that this machine is made for unless it says
    which. `few`: as little of everything as can be, to see that it runs."""
    sizes = sizes or ("embedded", *models.SHAPES)[: None if torch.cuda.is_available() else 2]
    kinds = [
        Weights(size, models.write(size, folder), in_8bit)
        for size in sizes
        for in_8bit in ((False, True) if size == "8 billion" else (False,))
    ]
    print_table(COLUMNS, (row for weights in kinds for row in side_by_side(weights, widths, few)))
    print_table(PREFIX_COLUMNS, [prefix(weights, few) for weights in kinds])
    print_table(
        PRECISION_COLUMNS, (row for weights in kinds if not weights.in_8bit for row in precisions(weights, few))
    )
    embedded = Weights("embedded", models.write("embedded", folder), in_8bit=False)
    print_table(STEPS_COLUMNS, passes_of_steps(embedded))


def _progress(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--sizes", nargs="+", default=(), choices=["embedded", *models.SHAPES])
    arguments = parser.parse_args()
    print(f"Measured on {datetime.date.today()}: {machine.describe()}.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), arguments.widths, arguments.sizes)


if __name__ == "__main__":
    main()
