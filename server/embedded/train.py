"""Trains the embedded model: `python -m server.embedded.train` rebuilds tokenizer and weights from a seed.

Each situation's list of tools is read once, and its examples each attend to it and to themselves alone, as in
serving, where every question has that prompt of its own. The loss is on what the model writes.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from server.embedded import corpus
from server.embedded.examples import Example, Situation
from server.embedded.tokenizer import CHAT_TEMPLATE, END, USER, train_tokenizer

WEIGHTS = Path(__file__).with_name("weights")
SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
}
TOKENIZER_SITUATIONS = 3000
SITUATIONS_A_STEP = 4
POOL = 32  # batches made at once, so that prompts of like length go together
#: What is a token or two counts for little beside whole texts, so it weighs more.
WEIGHT_OF_KIND = {"choose": 10.0, "earlier": 2.0}
LONGEST_PROMPT, LONGEST_EXAMPLE = 900, 800  # tokens; the few longer ones are left out
PEAK_RATE, WARMUP, DECAY_FROM = 1e-3, 60, 0.45


Span = slice


@dataclass(frozen=True)
class Batch:
    """Texts one behind another: `tokens`, their `positions`, and `written`, the weights of those that the model has
    to write, 0 for the others (three of one length). `texts` says where each text is, and where the prompt is that it
    stands behind: a text sees that prompt and itself alone."""

    tokens: torch.Tensor
    positions: torch.Tensor
    written: torch.Tensor
    texts: list[tuple[Span | None, Span]]


class Encoder:
    """Turns situations into tokens, exactly as the server's chat template and tokenizer would."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, situation: Situation) -> list[int]:
        """What all examples of a situation begin with."""
        system = corpus.system(situation)
        return self((self._rendered([{"role": "system", "content": system}], asked=False) if system else "") + USER)

    def example(self, situation: Situation, example: Example) -> tuple[list[int], list[float]]:
        """An example behind that, and the weights of its tokens: above 0 where the model writes."""
        turns = [turn for turn in corpus.conversation(situation, example) if turn["role"] != "system"]
        asked = self._rendered(turns, asked=True)
        tokens = self(asked.removeprefix(USER))
        weight = WEIGHT_OF_KIND.get(example.kind, 1.0)
        written = [0.0] * len(tokens)
        for text, by_model in corpus.assistant_parts(example):
            part = self(text)
            tokens += part
            written += [by_model * weight] * len(part)
        return [*tokens, *self(END)], [*written, weight]

    def _rendered(self, turns: list[dict[str, str]], asked: bool) -> str:
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asked))


def batches(encoder: Encoder, seed: int) -> Iterator[Batch]:
    rng = Random(seed + 1)
    stream = corpus.situations(seed)
    while True:
        pool = []
        for situation in itertools.islice(stream, POOL * SITUATIONS_A_STEP):
            prompt = encoder.prompt(situation)
            rows = [encoder.example(situation, example) for example in situation.examples]
            rows = [row for row in rows if len(row[0]) <= LONGEST_EXAMPLE]
            if rows and len(prompt) <= LONGEST_PROMPT:
                # As many in each situation: where some were too long, others come twice.
                pool.append((prompt, list(itertools.islice(itertools.cycle(rows), corpus.EXAMPLES_A_SITUATION))))
        pool.sort(key=lambda item: len(item[0]))
        groups = [pool[at : at + SITUATIONS_A_STEP] for at in range(0, len(pool), SITUATIONS_A_STEP)]
        rng.shuffle(groups)
        for group in groups:
            yield _batch(group, rng)


def _batch(situations: list[tuple[list[int], list[tuple[list[int], list[float]]]]], rng: Random) -> Batch:
    tokens: list[int] = []
    positions: list[int] = []
    written: list[float] = []
    texts: list[tuple[Span | None, Span]] = []

    def put(text: list[int], weights: list[float], first_position: int, behind: Span | None) -> Span:
        span = slice(len(tokens), len(tokens) + len(text))
        tokens.extend(text)
        positions.extend(range(first_position, first_position + len(text)))
        written.extend(weights)
        texts.append((behind, span))
        return span

    for prompt, rows in situations:
        behind = put(prompt, [0.0] * len(prompt), 0, None)
        gap = rng.randint(1, 900) if rng.random() < 0.2 else 0  # practice with distances
        for text, weights in rows:
            put(text, weights, len(prompt) + gap, behind)
    return Batch(torch.tensor(tokens), torch.tensor(positions), torch.tensor(written), texts)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, int]:
    """The mean loss over the tokens that the model has to write, by their weights, and their number."""
    weights = Weights(model)
    importance = batch.written[1:]
    wanted = importance > 0
    logits = F.linear(forward(weights, batch)[:-1][wanted], weights.embedding)
    losses = F.cross_entropy(logits.float(), batch.tokens[1:][wanted], reduction="none")
    count = int(wanted.sum())
    return losses @ importance[wanted] / count, count


class Weights:
    """The model's weights in bfloat16, those that are applied together joined; gradients go to the originals."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        def half(*parts: torch.Tensor) -> torch.Tensor:
            return torch.cat(parts).bfloat16() if len(parts) > 1 else parts[0].bfloat16()

        self.config = model.config
        self.embedding = half(model.model.embed_tokens.weight)
        self.norm = half(model.model.norm.weight)
        self.layers = [
            (
                half(layer.input_layernorm.weight),
                half(layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight),
                half(layer.self_attn.o_proj.weight),
                half(layer.post_attention_layernorm.weight),
                half(layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight),
                half(layer.mlp.down_proj.weight),
            )
            for layer in model.model.layers
        ]


def forward(weights: Weights, batch: Batch) -> torch.Tensor:
    """Llama's forward pass (as in Transformers' LlamaModel, in bfloat16, without padding and with fewer passes over
    memory: four times as fast here). Gives the hidden states (tokens, width)."""
    config = weights.config
    rope: Any = config.rope_parameters
    heads, width, eps = config.num_attention_heads, config.hidden_size, config.rms_norm_eps
    part = width // heads
    frequencies = rope["rope_theta"] ** -(torch.arange(0, part, 2) / part)
    angles = batch.positions[:, None].float() * frequencies
    cosine, sine = (torch.cat([wave, wave], -1)[:, None].bfloat16() for wave in (angles.cos(), angles.sin()))
    x = F.embedding(batch.tokens, weights.embedding)
    for first_norm, queries_keys_values, out, second_norm, gate_up, down in weights.layers:
        joined = F.linear(F.rms_norm(x, (width,), first_norm, eps), queries_keys_values)
        joined = joined.unflatten(-1, (3 * heads, part))
        turning = joined[:, : 2 * heads]
        left, right = turning.chunk(2, dim=-1)
        turning = turning * cosine + torch.cat([-right, left], -1) * sine
        by_head = torch.cat([turning, joined[:, 2 * heads :]], dim=1).transpose(0, 1).contiguous()
        attended = Attention.apply(by_head, batch.texts)
        x = x + F.linear(attended.transpose(0, 1).flatten(1), out)
        gate, up = F.linear(F.rms_norm(x, (width,), second_norm, eps), gate_up).chunk(2, dim=-1)
        x = x + F.linear(F.silu(gate) * up, down)
    return F.rms_norm(x, (width,), weights.norm, eps)


class Attention(torch.autograd.Function):
    """Attention of each text to its prompt and, causally, to itself. Takes the heads' queries, keys and values
    (3 heads, tokens, width of a head) and `Batch.texts`; gives (heads, tokens, width of a head).

    The kernel behind `scaled_dot_product_attention` takes twice as long on a CPU, forward and back, and wants
    texts padded to one length.
    """

    @staticmethod
    def forward(context: Any, by_head: torch.Tensor, texts: list[tuple[Span | None, Span]]) -> torch.Tensor:
        queries, keys, values = by_head.chunk(3)
        queries = queries * queries.shape[-1] ** -0.5
        future = torch.full([max(own.stop - own.start for _, own in texts)] * 2, -torch.inf).triu(1).to(keys.dtype)
        gives, all_shares = torch.empty_like(queries), []
        for behind, own in texts:
            length = own.stop - own.start
            scores = queries[:, own] @ _seen(keys, behind, own).mT
            scores[:, :, -length:] += future[:length, :length]
            shares = scores.softmax(-1)
            gives[:, own] = shares @ _seen(values, behind, own)
            all_shares.append(shares)
        context.texts = texts
        context.save_for_backward(by_head, *all_shares)
        return gives

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        by_head, *all_shares = context.saved_tensors
        queries, keys, values = by_head.chunk(3)
        scale = queries.shape[-1] ** -0.5
        result = torch.zeros_like(by_head)
        for_queries, for_keys, for_values = result.chunk(3)
        for (behind, own), shares in zip(context.texts, all_shares, strict=True):
            for_shares = gradient[:, own] @ _seen(values, behind, own).mT
            for_scores = torch._softmax_backward_data(for_shares, shares, -1, shares.dtype)
            for_scores *= scale
            for_queries[:, own] = for_scores @ _seen(keys, behind, own)
            _add(for_keys, behind, own, for_scores.mT @ queries[:, own])
            _add(for_values, behind, own, shares.mT @ gradient[:, own])
        return result, None


def _seen(rows: torch.Tensor, behind: Span | None, own: Span) -> torch.Tensor:
    return rows[:, own] if behind is None else torch.cat([rows[:, behind], rows[:, own]], dim=1)


def _add(to: torch.Tensor, behind: Span | None, own: Span, rows: torch.Tensor) -> None:
    if behind is not None:
        to[:, behind] += rows[:, : behind.stop - behind.start]
    to[:, own] += rows[:, own.start - own.stop :]


def rate_at(step: int, steps: int) -> float:
    """The learning rate's factor: up, level, down to nothing."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    level = DECAY_FROM * steps
    return 1.0 if step < level else max(0.0, (steps - step) / (steps - level))


def make_tokenizer(seed: int) -> PreTrainedTokenizerBase:
    def texts() -> Iterator[str]:
        for situation in itertools.islice(corpus.situations(seed), TOKENIZER_SITUATIONS):
            for example in situation.examples:
                yield example.question + "".join(text for text, _ in corpus.assistant_parts(example))
            if system := corpus.system(situation):
                yield system

    return train_tokenizer(texts())


def make_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    config = LlamaConfig(
        **SHAPE,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes an ordinary Transformers folder, the weights in bfloat16."""
    kept: Any = LlamaForCausalLM(model.config)
    kept.load_state_dict(model.state_dict())
    kept.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def train(steps: int, seed: int, folder: Path, resume: Path | None = None, go_on_from: Path | None = None) -> None:
    """Make tokenizer and weights in `folder`, with a checkpoint beside it every 250 steps.

    `resume` is such a checkpoint, of a training with the same seed and steps. `go_on_from` is a folder with a model
    that was made here: its tokenizer and weights are trained on, with everything else from the beginning.
    """
    torch.manual_seed(seed)
    tokenizer: PreTrainedTokenizerBase
    if go_on_from:
        tokenizer = AutoTokenizer.from_pretrained(go_on_from)
        model = LlamaForCausalLM.from_pretrained(go_on_from, dtype=torch.float32)
    else:
        tokenizer = make_tokenizer(seed)
        model = make_model(tokenizer)
    encoder = Encoder(tokenizer)
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps)) for optimizer in optimizers
    ]
    first, checkpoint = 0, folder.with_suffix(".checkpoint")
    if resume:
        state = torch.load(resume)
        model.load_state_dict(state["model"])
        for part, saved in zip(optimizers, state["optimizers"], strict=True):
            part.load_state_dict(saved)
        first = state["step"]
        for schedule in schedules:
            for _ in range(first):
                schedule.step()
    progress = tqdm(range(first, steps), desc="training", mininterval=5)
    running, started, written = math.nan, time.monotonic(), 0
    for step, batch in zip(progress, batches(encoder, seed + 1000 * (first + 1)), strict=False):
        loss, count = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        running = loss.item() if math.isnan(running) else 0.97 * running + 0.03 * loss.item()
        written += count
        if step % 20 == 0:
            progress.set_postfix(
                loss=f"{running:.4f}", tokens_per_second=f"{written / (time.monotonic() - started):.0f}"
            )
        if step % 250 == 249:
            states = [optimizer.state_dict() for optimizer in optimizers]
            torch.save({"model": model.state_dict(), "optimizers": states, "step": step + 1}, checkpoint)
            save(model, tokenizer, folder)
    save(model, tokenizer, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=WEIGHTS)
    parser.add_argument("--resume", type=Path, help="a checkpoint of an interrupted training")
    parser.add_argument("--go-on-from", type=Path, help="a folder with weights to train on")
    arguments = parser.parse_args()
    train(arguments.steps, arguments.seed, arguments.folder, arguments.resume, arguments.go_on_from)


if __name__ == "__main__":
    main()
