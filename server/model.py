"""The recipe that loads a model: its files, device and precision. Reloadable.

A model is a Transformers folder with safetensors, a Hugging Face id, or a GGUF file. Code that comes with a model is
never run. torch and transformers are imported only when a model is loaded, so that a reload does not wait for them.
Over 400 lines, so that the recipe is one file that people can copy and change.
"""

import gc
import importlib.resources
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.errors import (
    HearthError,
    ModelLoadError,
    ModelNotFoundError,
    NoChatTemplateError,
    NotACausalModelError,
    OutOfMemoryError,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

# The files of a repository that are needed to load a model: no pickles, no second copies of the weights.
FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
OTHER_FILES = ["*/*", "consolidated*"]
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "tekken.json")
LONGEST_HEADER = 100_000_000  # bytes, of a file of safetensors

HUB_SECONDS = 10  # for the first answer of the hub

HEADROOM = 1.15  # accelerate fills a device to 90 % and offloads the rest

# The first one warns at every matrix product, the second one at import about 4-bit weights, which are not used here.
CHATTY_LOGGERS = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")


# The name of the quantization, by the library.
QUANTIZATIONS = {"bitsandbytes": "8bit", "torchao": "int8", "torchao_fp8": "fp8"}


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready for inference: in eval mode and without gradients.

    `quantization` is "8bit" (bitsandbytes), "int8" or "fp8" (torchao), "none", or the method with which its author
    quantized it.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    quantization: str
    processor: Any = None
    """Of a model that takes images."""
    no_images: str = "The model takes no images."
    """Why there is no processor, in a sentence."""


def load_model(
    name: str,
    *,
    load_in_8bit: bool | None,
    device_map: str,
    dtype: str,
    int8_threshold: float,
    progress: Progress,
    quantizer: str = "bitsandbytes",
) -> LoadedModel:
    """Load the model `name` and its tokenizer.

    `name`: "embedded" (the included model), a folder, a GGUF file (`.gguf`), whose weights are dequantized, or a
    Hugging Face id; an id in the cache needs no network. `load_in_8bit`: None means yes on a GPU, unless the model is
    quantized already. `device_map`: as in accelerate ("auto", "cuda:1", "cpu", ...). `dtype`: "bfloat16", "float32",
    or "auto", which is bfloat16 on a GPU and float32 on the CPU. `quantizer`: the library for 8-bit weights.
    "bitsandbytes" multiplies in 8 bit, except activations above `int8_threshold`. "torchao" and "torchao_fp8" store
    8-bit integers or floats and multiply in `dtype`.

    `progress(stage, done, total)` is called meanwhile, also from other threads: "download" (bytes, only if files are
    downloaded), "tokenizer", "weights" (tensors), "ready". tqdm shows the same on the console.

    Raises ModelNotFoundError, NotACausalModelError, NoChatTemplateError, OutOfMemoryError (`needed_bytes`,
    `free_bytes`), and ModelLoadError for everything else. Not promised: that it respects the memory limit of a
    container. Calls must not overlap, because Transformers has only one progress hook.
    """
    folder, file = _find(name, progress)
    with _explaining(name):
        import torch
        from transformers import AutoConfig, BitsAndBytesConfig, TorchAoConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **file)
        _require_causal(name, config)

        for weights in sorted(folder.glob("*.safetensors")) if not file else ():
            _require_all_bytes(weights)
        progress("tokenizer", 0, 1)
        processor, no_images = (None, LoadedModel.no_images) if file else _load_processor(config, folder)
        tokenizer = _load_tokenizer(name, folder, file, processor)
        progress("tokenizer", 1, 1)

        on_gpu = torch.cuda.is_available() and not device_map.startswith("cpu")
        given = "gguf" if file else _given_quantization(config)
        quantization = _choose_quantization(name, given, load_in_8bit, on_gpu, quantizer)
        options: dict[str, Any] = {"device_map": device_map, "dtype": _torch_dtype(dtype, on_gpu)}
        if given and not file:
            needed = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        else:
            unloaded = _without_weights(config, options["dtype"])
            needed = _estimate_bytes(unloaded, in_8bit=quantization in QUANTIZATIONS.values())
            # Pictures are read in full precision: a vision tower is small, and its activations have large outliers.
            kept = _modules_in_full(unloaded)
            if quantization == "8bit":
                options["quantization_config"] = BitsAndBytesConfig(
                    load_in_8bit=True, llm_int8_threshold=int8_threshold, llm_int8_skip_modules=kept
                )
            elif quantization != "none" and not file:
                from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

                kind = Int8WeightOnlyConfig if quantization == "int8" else Float8WeightOnlyConfig
                options["quantization_config"] = TorchAoConfig(kind(), modules_to_not_convert=kept)

        for logger in CHATTY_LOGGERS:
            logging.getLogger(logger).setLevel(logging.ERROR)
        with _within_memory(name, needed, device_map, on_gpu), _reporting_weights(progress):
            options |= file if file else {"use_safetensors": True}
            loaded: Any = _loader(config).from_pretrained(
                folder, trust_remote_code=False, output_loading_info=True, **options
            )
        model, report = loaded
        _require_whole(name, model, report, on_gpu)
        model.eval().requires_grad_(False)
    progress("ready", 1, 1)
    return LoadedModel(model, tokenizer, name, quantization, processor, no_images)


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """Raise Transformers' errors about a broken model as a ModelLoadError."""
    try:
        yield
    except HearthError:
        raise
    except Exception as error:  # boundary: Transformers, with files from any author
        if "trust_remote_code" in str(error):
            reason = "it needs its own code, which Hearth never runs. Use a model that Transformers supports"
        else:
            reason = f"{type(error).__name__}: {error}"
        raise ModelLoadError(f"{name} could not be loaded: {reason}") from error


# Finding the files


def _find(name: str, progress: Progress) -> tuple[Path, dict[str, str]]:
    """The folder with the model's files, downloaded if needed, and Transformers' option for a single file in it."""
    path = os.path.expanduser(name)
    if path.lower().endswith(".gguf"):
        if not os.path.isfile(path):
            raise ModelNotFoundError(f"There is no file {path} on the server.")
        return Path(path).parent, {"gguf_file": Path(path).name}
    if name == "embedded":
        folder = Path(str(importlib.resources.files("server.embedded"))) / "weights"
    elif os.path.isdir(path):
        folder = Path(path)
    else:
        folder = _fetch(name, progress)
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(f"The folder {folder} is not a model: it has no config.json.")
    return folder, {}


def _fetch(name: str, progress: Progress) -> Path:
    """The folder of a Hugging Face id, from the cache or downloaded."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    files: dict[str, Any] = {"allow_patterns": FILES, "ignore_patterns": OTHER_FILES}
    try:
        folder = Path(snapshot_download(name, local_files_only=True, **files))
        if any(folder.glob("*.safetensors")):
            return folder
    except HFValidationError as error:
        raise ModelNotFoundError(
            f"{name!r} is neither a folder on the server nor a Hugging Face id like Qwen/Qwen3-8B."
        ) from error
    except LocalEntryNotFoundError:
        pass  # The usual case for a new model: it is not, or not completely, in the cache.

    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)  # snapshot_download has no such time limit
        return Path(snapshot_download(name, tqdm_class=_download_bar(progress), **files))
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"{name} is gated. Accept its terms at https://huggingface.co/{name}, then log in where the "
            "server runs with `hf auth login`, or set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"There is no folder {name} here, and no model {name} on Hugging Face that this machine may see. "
            "Check the spelling; for a private model log in with `hf auth login`, or set HF_TOKEN."
        ) from error
    except Exception as error:  # boundary: the network and the disk
        raise ModelNotFoundError(
            f"There is no folder {name} here, the Hugging Face cache does not have all of {name}, and it "
            f"could not be fetched ({type(error).__name__}: {error}). Check the connection, or give "
            "a local folder."
        ) from error


def _download_bar(progress: Progress) -> type:
    from tqdm.auto import tqdm

    class DownloadBar(tqdm):
        def update(self, n: float | None = 1) -> Any:
            shown = super().update(n)
            # The hub opens several bars. This one counts the bytes that are on the disk.
            if self.desc.startswith("Reconstruct"):
                progress("download", int(self.n), int(self.total or 0))
            return shown

    return DownloadBar


# The model's configuration


def _require_causal(name: str, config: "PreTrainedConfig") -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    with_images = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
    architectures = config.architectures or []
    # Transformers has a causal class for BERT, too; only the architecture shows that its weights are not causal.
    writes = not architectures or any(
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        or kind in with_images
        or kind.endswith("ForConditionalGeneration")
        for kind in architectures
    )
    known = _has_vision(config) or type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    encodes = config.is_encoder_decoder or getattr(config.get_text_config(), "is_encoder_decoder", False)
    if not writes or encodes or not known:
        raise NotACausalModelError(
            f"{name} ({', '.join(architectures) or config.model_type}) is not a causal language model. "
            "Hearth needs one that writes text from left to right, such as Llama, Qwen or Mistral."
        )


def _has_vision(config: "PreTrainedConfig") -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and getattr(config, "vision_config", None) is not None


def _loader(config: "PreTrainedConfig") -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if _has_vision(config) else AutoModelForCausalLM


def _load_processor(config: "PreTrainedConfig", folder: Path) -> tuple[Any, str]:
    """The processor of a model with a vision tower; or None, and the reason in a sentence. Then the model is loaded
    all the same, and reads texts."""
    if not _has_vision(config):
        return None, LoadedModel.no_images
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # boundary: Transformers, with files from any author and packages that may be missing
        reason = " ".join(str(error).split())
        log.warning("the processor of %s can't be loaded: %s: %s", folder, type(error).__name__, reason)
        return None, f"The model takes images, but its processor can't be loaded: {reason[:300]}"
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        return (
            None,
            "The model takes images, but its folder has no processor for them, like preprocessor_config.json.",
        )
    return processor, ""


def _require_all_bytes(weights: Path) -> None:
    """Raises ModelLoadError for a file that is cut off: https://huggingface.co/docs/safetensors#format"""
    size = weights.stat().st_size
    with weights.open("rb") as opened:
        try:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, LONGEST_HEADER)))
            header.pop("__metadata__", None)
            needed = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ModelLoadError(f"{weights} is no safetensors file, or is cut off. Fetch it again.") from None
    if size < needed:
        raise ModelLoadError(f"{weights} is cut off: it has {size} bytes, of {needed}. Fetch it again.")


def _load_tokenizer(name: str, folder: Path, file: dict[str, str], processor: Any) -> "PreTrainedTokenizerBase":
    """The tokenizer of the folder, or the one of its processor."""
    from transformers import AutoTokenizer

    if not file and not any(found for pattern in TOKENIZER_FILES for found in folder.glob(pattern)):
        raise ModelLoadError(f"The folder {folder} has no tokenizer, like a file tokenizer.json. Fetch it again.")
    tokenizer: PreTrainedTokenizerBase
    if processor is not None:
        # Some processors have added tokens to it.
        tokenizer = processor.tokenizer
        tokenizer.chat_template = processor.chat_template or tokenizer.chat_template
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **file)
    if not tokenizer.chat_template:
        raise NoChatTemplateError(
            f"The tokenizer of {name} has no chat template, so Hearth can't write a conversation for it. "
            "Use the model's instruct or chat variant, or put a chat_template.jinja into its folder."
        )
    return tokenizer


def _given_quantization(config: "PreTrainedConfig") -> str | None:
    """The author's quantization; None if there is none."""
    given = getattr(config, "quantization_config", None)
    if not given:
        return None
    return "8bit" if given.get("load_in_8bit") else str(given.get("quant_method", "unknown"))


def _choose_quantization(
    name: str, given: str | None, load_in_8bit: bool | None, on_gpu: bool, quantizer: str
) -> str:
    if given is None:
        if not (on_gpu if load_in_8bit is None else load_in_8bit):
            return "none"
        if quantizer not in QUANTIZATIONS:
            raise ModelLoadError(f"quantizer is {quantizer!r}; it must be {' or '.join(QUANTIZATIONS)}.")
        return QUANTIZATIONS[quantizer]
    if load_in_8bit is not None and load_in_8bit != (given == "8bit"):
        raise ModelLoadError(
            f"{name} is quantized already ({given}), and load_in_8bit is {load_in_8bit}. Use its default."
        )
    return given


def _torch_dtype(dtype: str, on_gpu: bool) -> "torch.dtype":
    import torch

    if dtype == "auto":
        return torch.bfloat16 if on_gpu else torch.float32
    known = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if dtype not in known:
        raise ModelLoadError(f"dtype is {dtype!r}; it must be auto, {' or '.join(known)}.")
    return known[dtype]


# Loading


def _without_weights(config: "PreTrainedConfig", dtype: "torch.dtype") -> "PreTrainedModel":
    """The model on the meta device."""
    import torch

    with torch.device("meta"):
        model: PreTrainedModel = _loader(config).from_config(config, dtype=dtype, trust_remote_code=False)
    return model


def _modules_in_full(model: "PreTrainedModel") -> list[str] | None:
    """The modules that aren't quantized: the vision tower, and what Transformers leaves out by itself. None: only
    the latter."""
    from transformers import PreTrainedModel
    from transformers.quantizers.base import get_keys_to_not_convert

    vision = getattr(model.config, "vision_config", None)
    towers = [
        name
        for name, module in model.named_modules()
        if vision is not None and isinstance(module, PreTrainedModel) and module.config is vision
    ]
    return [*get_keys_to_not_convert(model), *towers] if towers else None


def _estimate_bytes(model: "PreTrainedModel", in_8bit: bool) -> int:
    """The size of the loaded weights. `model` is on the meta device."""
    import torch

    head = model.get_output_embeddings()
    kept = _modules_in_full(model) or []
    in_bytes = {
        layer.weight
        for name, layer in model.named_modules()
        if in_8bit
        and isinstance(layer, torch.nn.Linear)
        and layer is not head
        and not any(name == one or name.startswith(f"{one}.") for one in kept)
    }
    return sum(weight.numel() * (1 if weight in in_bytes else weight.element_size()) for weight in model.parameters())


@contextmanager
def _within_memory(name: str, needed: int, device_map: str, on_gpu: bool) -> Iterator[None]:
    """Raise OutOfMemoryError if fewer than `needed` bytes are free, or if memory runs out in this context."""
    import torch

    free = _free_bytes(device_map, on_gpu)

    def shortage(details: str) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"{name} does not fit: its weights take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free "
            f"{'on the GPU' if on_gpu else 'in memory'}{details}. Use a smaller model, load it in 8 bit, or "
            "stop other programs that use this memory.",
            needed_bytes=needed,
            free_bytes=free,
        )

    if needed * HEADROOM > free:
        raise shortage("")
    try:
        yield
    except Exception as error:  # boundary: each library has its own out-of-memory error
        from server.engine.kv_cache import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # They refer to the half-loaded model.
        gc.collect()
        torch.cuda.empty_cache()
        raise shortage(f", which was not enough ({error})") from error


def _require_whole(name: str, model: "PreTrainedModel", report: dict[str, Any], on_gpu: bool) -> None:
    missing = sorted(report["missing_keys"])
    if missing:  # Transformers initializes them with random numbers.
        raise ModelLoadError(f"{name} is incomplete: {len(missing)} weights are missing, such as {missing[0]}.")
    elsewhere = {"cpu", "disk"}.intersection(map(str, getattr(model, "hf_device_map", {}).values()))
    if on_gpu and elsewhere:
        raise OutOfMemoryError(
            f"{name} does not fit: parts of it would be offloaded from the GPU ({', '.join(elsewhere)}). "
            "Use a smaller model, load it in 8 bit, or stop other programs that use the GPU."
        )


def _free_bytes(device_map: str, on_gpu: bool) -> int:
    if not on_gpu:
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    torch.cuda.empty_cache()
    if device_map.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device_map))[0]
    return sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))


@contextmanager
def _reporting_weights(progress: Progress) -> Iterator[None]:
    """Report the progress of Transformers' bar over the weights."""
    from tqdm.auto import tqdm
    from transformers.utils import logging as transformers_logging

    class WeightsBar(tqdm):
        def __iter__(self) -> Iterator[Any]:
            for done, item in enumerate(super().__iter__()):
                progress("weights", done, self.total)
                yield item
            progress("weights", self.total, self.total)

    def make_bar(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (WeightsBar if kwargs.get("desc") == "Loading weights" else factory)(*args, **kwargs)

    previous = transformers_logging.set_tqdm_hook(make_bar)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)
