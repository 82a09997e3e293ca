"""The models that are decoded: folders of weights, from which every system loads its own."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from server.embedded import WEIGHTS
from server.model import LoadedModel, load_model

SHAPES: dict[str, dict[str, Any]] = {
    "120 million": {
        "hidden_size": 896,
        "intermediate_size": 2432,
        "num_hidden_layers": 12,
        "num_attention_heads": 14,
        "num_key_value_heads": 14,
        "vocab_size": 2048,
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
"""Models of random weights, by about how many they have."""


@dataclass(frozen=True)
class Weights:
    """A folder that holds a model. `size`: "embedded", or one of SHAPES. In 8 bit (bitsandbytes), or as they are:
    float32 on the CPU, bfloat16 on a GPU."""

    size: str
    folder: Path
    in_8bit: bool

    @property
    def name(self) -> str:
        return f"{self.size}, 8 bit" if self.in_8bit else self.size

    def load(self, quantizer: str = "bitsandbytes") -> LoadedModel:
        """The model, as the server loads it."""
        free_memory()
        return load_model(
            str(self.folder),
            load_in_8bit=self.in_8bit,
            device_map="auto",
            dtype="auto",
            int8_threshold=6.0,
            progress=lambda stage, done, total: None,
            quantizer=quantizer,
        )


def free_memory() -> None:
    """Give back what nobody holds any more: what is loaded next may need it."""
    gc.collect()
    torch.cuda.empty_cache()


def write(size: str, folder: Path) -> Path:
    """The folder of the model of that size, in `folder` unless it is there already."""
    if size == "embedded":
        return WEIGHTS
    folder = folder / size.replace(" ", "-")
    if folder.exists():
        return folder
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(max_position_embeddings=4096, **SHAPES[size], **ids)
    torch.manual_seed(1)
    gpu = torch.cuda.is_available()
    torch.set_default_dtype(torch.bfloat16 if gpu else torch.float32)
    with torch.device("cuda" if gpu else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    # What is no plain text is never the likeliest: so free text does not end by itself, and all of it is streamed.
    readable = {
        token
        for token in range(len(tokenizer))
        if token not in tokenizer.added_tokens_decoder and str(tokenizer.decode([token])).isascii()
    }
    others = [token for token in range(config.vocab_size) if token not in readable]
    model.lm_head.weight.data[others] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
