"""Trains the embedded model: `python -m server.embedded.train` rebuilds tokenizer and weights from a seed.

The loss is on what the model writes.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from server.embedded import corpus
from server.embedded.batches import Batch, Encoder, batches
from server.embedded.packed_llama import Weights, forward
from server.embedded.tokenizer import CHAT_TEMPLATE, train_tokenizer

WEIGHTS = Path(__file__).with_name("weights")
SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
}
TOKENIZER_SITUATIONS = 3000
PEAK_RATE, WARMUP, DECAY_FROM = 1e-3, 60, 0.45


def loss_of(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, int]:
    """The mean loss over the tokens that the model has to write, by their weights, and their number."""
    weights = Weights(model)
    importance = batch.written[1:]
    wanted = importance > 0
    logits = F.linear(forward(weights, batch)[:-1][wanted], weights.embedding)
    losses = F.cross_entropy(logits.float(), batch.tokens[1:][wanted], reduction="none")
    count = int(wanted.sum())
    return losses @ importance[wanted] / count, count


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
