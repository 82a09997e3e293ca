"""Tiny models that take images, with random weights and real processors, as folders that a recipe can load."""

import hashlib
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AddedToken, AutoConfig, AutoModelForImageTextToText, AutoTokenizer, PreTrainedConfig

from server.images.image_part import ImagePart

EMBEDDED = Path("server/embedded/weights")
VOCABULARY = 2112
SIDE = 56
PATCH = 14
TEXT = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
NAMES = {
    "llava": ["<image>"],
    "llava_next": ["<image>"],
    "idefics3": ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *TILES],
    "gemma3": ["<image_soft_token>", "<start_of_image>", "<end_of_image>"],
}
#: As the templates of such models: a message is a list of parts.
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{% for part in message.content %}"
    "{% if part.type == 'image' %}PICTURE{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}<|assistant|>"
)


def vision_folder(folder: Path, kind: str, context_length: int = 1024) -> Path:
    """`folder` with a model of that kind, its tokenizer and its processor."""
    # Some processors ask the tokenizer for names of such tokens.
    own = dict(zip(("image_token", "boi_token", "eoi_token"), NAMES[kind], strict=False)) if kind == "gemma3" else {}
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED, extra_special_tokens=own)
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in NAMES[kind]], True)
    config, processor = _MADE[kind](tokenizer)
    processor.chat_template = tokenizer.chat_template = TEMPLATE.replace(
        "PICTURE", "<start_of_image>" if kind == "gemma3" else "<image>"
    )
    config.get_text_config().max_position_embeddings = context_length
    torch.manual_seed(3)
    model = AutoModelForImageTextToText.from_config(config).eval().float()
    for weight in model.parameters():
        if weight.ndim > 1:  # wide apart, so that the argmax is never close
            torch.nn.init.normal_(weight, std=0.15)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(folder: Path, seed: int, size: tuple[int, int] = (80, 60)) -> ImagePart:
    """A picture of a few large squares, in a file."""
    chosen = random.Random(seed)
    squares = bytes(chosen.randrange(256) for _ in range(4 * 3 * 3))
    path = folder / f"{seed}.png"
    Image.frombytes("RGB", (4, 3), squares).resize(size, Image.Resampling.NEAREST).save(path)
    content = path.read_bytes()
    return ImagePart(path.name, hashlib.sha256(content).hexdigest(), *size, "image/png", len(content), path)


def _llava(tokenizer: Any) -> tuple[PreTrainedConfig, Any]:
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    config = AutoConfig.for_model(
        "llava",
        text_config=dict(TEXT),
        vision_config={"model_type": "clip_vision_model", "projection_dim": 32, **TOWER},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-1,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return config, LlavaProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)


def _llava_next(tokenizer: Any) -> tuple[PreTrainedConfig, Any]:
    from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor

    grids = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    config = AutoConfig.for_model(
        "llava_next",
        text_config=dict(TEXT),
        vision_config={"model_type": "clip_vision_model", "projection_dim": 32, **TOWER},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grids,
        vision_feature_layer=-1,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=grids,
    )
    return config, LlavaNextProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)


def _idefics3(tokenizer: Any) -> tuple[PreTrainedConfig, Any]:
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor

    config = AutoConfig.for_model(
        "idefics3",
        text_config=dict(TEXT),
        vision_config=dict(TOWER),
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    images = Idefics3ImageProcessorPil(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})
    return config, Idefics3Processor(images, tokenizer, image_seq_len=4)


def _gemma3(tokenizer: Any) -> tuple[PreTrainedConfig, Any]:
    """Its image tokens see each other in both directions."""
    from transformers import Gemma3ImageProcessorPil, Gemma3Processor

    config = AutoConfig.for_model(
        "gemma3",
        text_config={**TEXT, "model_type": "gemma3_text", "head_dim": 16, "sliding_window": 512},
        vision_config={"model_type": "siglip_vision_model", **TOWER},
        mm_tokens_per_image=4,
        image_token_id=tokenizer.image_token_id,
        boi_token_id=tokenizer.boi_token_id,
        eoi_token_id=tokenizer.eoi_token_id,
    )
    images = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return config, Gemma3Processor(images, tokenizer, image_seq_length=4)


_MADE = {"llava": _llava, "llava_next": _llava_next, "idefics3": _idefics3, "gemma3": _gemma3}
