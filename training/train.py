"""Trains the embedded model: `python -m training.train` makes tokenizer and weights from a seed.

The loss is on the tokens that the model writes. Training runs on a GPU if there is one (CUDA), otherwise on the CPU,
in mixed precision on both: activations in bfloat16; parameters, gradients and optimizer state in float32.
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

from server.embedded import WEIGHTS
from training import corpus, samples
from training.batches import GROUPS_PER_STEP, Batch, batches
from training.packed_forward import Weights, forward
from training.tokenizer import CHAT_TEMPLATE, Encoder, train_tokenizer

STEPS, LAYERS, WIDTH = 6000, 8, 256
HEAD_WIDTH = 64
TOKENIZER_GROUPS = 3000
#: The learning rate rises over the first steps, stays, and falls to 0 from this share of the steps on.
PEAK_RATE, WARMUP, DECAY_FROM = 1e-3, 60, 0.45
CHECKPOINT_STEPS = 250


def loss_of(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, int]:
    """The weighted mean loss over the tokens that the model has to write, and their number."""
    weights = Weights(model)
    loss_weights = batch.loss_weights[1:]
    written = loss_weights > 0
    logits = F.linear(forward(weights, batch)[:-1][written], weights.embedding)
    losses = F.cross_entropy(logits.float(), batch.tokens[1:][written], reduction="none")
    count = int(written.sum())
    return losses @ loss_weights[written] / count, count


def rate_at(step: int, steps: int) -> float:
    """The factor of the learning rate: linear warmup, constant, linear decay to 0."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    level = DECAY_FROM * steps
    return 1.0 if step < level else max(0.0, (steps - step) / (steps - level))


def make_tokenizer(seed: int) -> PreTrainedTokenizerBase:
    def texts() -> Iterator[str]:
        for group in itertools.islice(corpus.sample_groups(seed), TOKENIZER_GROUPS):
            for sample in group.samples:
                yield sample.question + "".join(text for text, _ in samples.assistant_parts(sample))
            if system := samples.system(group):
                yield system

    return train_tokenizer(texts())


def make_model(tokenizer: PreTrainedTokenizerBase, layers: int = LAYERS, width: int = WIDTH) -> LlamaForCausalLM:
    """A Llama with random weights. `width` is the hidden size, a multiple of 64."""
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        num_key_value_heads=width // HEAD_WIDTH,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms."""
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a Transformers folder, with the weights in bfloat16."""
    copy: Any = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def train(
    steps: int,
    seed: int,
    folder: Path,
    *,
    groups_per_step: int = GROUPS_PER_STEP,
    layers: int = LAYERS,
    width: int = WIDTH,
    resume: Path | None = None,
    continue_from: Path | None = None,
) -> None:
    """Writes tokenizer and weights to `folder` every 250 steps and at the end, with a checkpoint beside it.

    `resume` is such a checkpoint, of an interrupted training with the same arguments. `continue_from` is a folder
    that this function wrote: training starts from its tokenizer and weights, whatever `layers` and `width` say, with
    new optimizer state and a new learning rate schedule.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    tokenizer: PreTrainedTokenizerBase
    model: Any
    if continue_from:
        tokenizer = AutoTokenizer.from_pretrained(continue_from)
        model = LlamaForCausalLM.from_pretrained(continue_from, dtype=torch.float32)
    else:
        tokenizer = make_tokenizer(seed)
        model = make_model(tokenizer, layers, width)
    model.to(device)
    optimizers = make_optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps)) for optimizer in optimizers
    ]
    first, checkpoint = 0, folder.with_suffix(".checkpoint")
    if resume:
        state = torch.load(resume, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
        for schedule in schedules:
            for _ in range(first):
                schedule.step()
    progress = tqdm(range(first, steps), desc=f"training on {device}", mininterval=5)
    average, started, tokens = math.nan, time.monotonic(), 0
    stream = batches(Encoder(tokenizer), seed + 1000 * (first + 1), groups_per_step)
    for step, batch in zip(progress, stream, strict=False):
        loss, count = loss_of(model, batch.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        average = loss.item() if math.isnan(average) else 0.97 * average + 0.03 * loss.item()
        tokens += count
        if step % 20 == 0:
            speed = tokens / (time.monotonic() - started)
            progress.set_postfix(loss=f"{average:.4f}", tokens_per_second=f"{speed:.0f}")
        if (step + 1) % CHECKPOINT_STEPS == 0:
            states = [optimizer.state_dict() for optimizer in optimizers]
            torch.save({"model": model.state_dict(), "optimizers": states, "step": step + 1}, checkpoint)
            save(model, tokenizer, folder)
    save(model, tokenizer, folder)


def main() -> None:
    per_group = corpus.SAMPLES_PER_GROUP
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps ({STEPS})")
    parser.add_argument(
        "--batch",
        type=int,
        default=GROUPS_PER_STEP * per_group,
        help=f"samples in a step, a multiple of {per_group} ({GROUPS_PER_STEP * per_group})",
    )
    parser.add_argument("--layers", type=int, help=f"layers of the model ({LAYERS})")
    parser.add_argument("--width", type=int, help=f"hidden size, a multiple of {HEAD_WIDTH} ({WIDTH})")
    parser.add_argument("--seed", type=int, default=7, help="of corpus and initial weights (7)")
    parser.add_argument(
        "--folder", type=Path, default=WEIGHTS, help="where to write the model (server/embedded/weights)"
    )
    parser.add_argument("--resume", type=Path, help="checkpoint of an interrupted training with the same arguments")
    parser.add_argument(
        "--continue-from", type=Path, help="folder of a trained model to start from, instead of random"
    )
    arguments = parser.parse_args()
    layers = LAYERS if arguments.layers is None else arguments.layers
    width = WIDTH if arguments.width is None else arguments.width
    if arguments.steps < 1 or layers < 1:
        parser.error("--steps and --layers must be at least 1")
    if arguments.batch < 1 or arguments.batch % per_group:
        parser.error(f"--batch must be a multiple of {per_group}")
    if width < 1 or width % HEAD_WIDTH:
        parser.error(f"--width must be a multiple of {HEAD_WIDTH}")
    if arguments.continue_from and (arguments.layers, arguments.width) != (None, None):
        parser.error("--continue-from takes layers and width from its folder")
    train(
        arguments.steps,
        arguments.seed,
        arguments.folder,
        groups_per_step=arguments.batch // per_group,
        layers=layers,
        width=width,
        resume=arguments.resume,
        continue_from=arguments.continue_from,
    )


if __name__ == "__main__":
    main()
