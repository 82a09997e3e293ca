"""The recipe, with tiny models that are made here, and a hub that is a local server."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    T5Config,
)
from transformers.utils import logging as transformers_logging

from server.embedded import WEIGHTS
from server.engine import GuidedEngine
from server.errors import (
    ModelLoadError,
    ModelNotFoundError,
    NoChatTemplateError,
    NotACausalModelError,
    OutOfMemoryError,
)
from server.model import LoadedModel, load_model
from tests.support import gguf_file

TOKENS = torch.tensor([[2, 3, 2, 1]])

Event = tuple[str, int, int]


def load(name: str | Path, progress: Callable[[str, int, int], None] | None = None, **options: Any) -> LoadedModel:
    given = {"load_in_8bit": None, "device_map": "cpu", "dtype": "auto", "int8_threshold": 6.0} | options
    return load_model(str(name), progress=progress or (lambda stage, done, total: None), **given)


def llama(**changes: Any) -> LlamaConfig:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    }
    return LlamaConfig(**(sizes | changes))


def write_tokenizer(folder: Path, chat_template: str | None = "{{ messages[0]['content'] }}") -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "hello": 2, "world": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="</s>", chat_template=chat_template
    )
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with random weights, which nobody changes."""
    folder = tmp_path_factory.mktemp("models") / "tiny llama"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama()).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture
def tiny(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, which no setting for Hugging Face reaches but those given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=inherited | environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=200,
    )


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = loaded.model(TOKENS).logits
    return result


# What is loaded


def test_a_folder_is_loaded_in_float32_on_the_cpu(pristine: Path) -> None:
    loaded = load(pristine)
    assert loaded.name == str(pristine)
    assert loaded.quantization == "none"
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.tokenizer.encode("hello world") == [2, 3]
    original = AutoModelForCausalLM.from_pretrained(pristine).eval()
    assert torch.equal(logits(loaded), original(TOKENS).logits)


@pytest.mark.parametrize("device_map", ["auto", "cpu"])
def test_the_dtype_can_be_chosen(pristine: Path, device_map: str) -> None:
    loaded = load(pristine, dtype="bfloat16", device_map=device_map, load_in_8bit=False)
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}


def test_8bit_on_the_cpu_is_real(pristine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = load(pristine, load_in_8bit=True, int8_threshold=3.5)
        close = torch.nn.functional.cosine_similarity(logits(loaded), logits(load(pristine)), dim=-1)
    assert loaded.quantization == "8bit"
    layers = [layer for layer in loaded.model.modules() if isinstance(layer, Linear8bitLt)]
    assert len(layers) == 2 * 7
    assert {layer.weight.dtype for layer in layers} == {torch.int8}
    assert {layer.state.threshold for layer in layers} == {3.5}
    assert close.min() > 0.99
    assert [record.name for record in caplog.records if "bitsandbytes" in record.name] == []


@pytest.mark.parametrize(
    ("quantizer", "kind", "stored"),
    [("torchao", "int8", torch.int8), ("torchao_fp8", "fp8", torch.float8_e4m3fn)],
)
def test_8bit_by_torchao_is_stored_in_8_bit_and_multiplied_in_full(
    pristine: Path, quantizer: str, kind: str, stored: torch.dtype
) -> None:
    loaded = load(pristine, load_in_8bit=True, quantizer=quantizer)
    assert loaded.quantization == kind
    weights: list[Any] = [getattr(layer, "weight", None) for layer in loaded.model.modules()]
    quantized = [weight.qdata for weight in weights if hasattr(weight, "qdata")]
    assert len(quantized) == 2 * 7
    assert {stored_weight.dtype for stored_weight in quantized} == {stored}
    plain = logits(load(pristine))
    assert logits(loaded).dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(logits(loaded), plain, dim=-1).min() > 0.99
    assert load(pristine, load_in_8bit=False, quantizer=quantizer).quantization == "none"


def test_a_model_that_comes_quantized_stays_so(pristine: Path, tmp_path: Path) -> None:
    load(pristine, load_in_8bit=True).model.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    loaded = load(tmp_path)
    assert loaded.quantization == "8bit"
    assert any(isinstance(layer, Linear8bitLt) for layer in loaded.model.modules())
    with pytest.raises(ModelLoadError, match="is quantized already"):
        load(tmp_path, load_in_8bit=False)


def test_a_gguf_file_is_loaded(tmp_path: Path) -> None:
    """What it writes is what the model writes that it was made of."""
    embedded = load("embedded")
    file = gguf_file.write(tmp_path / "a model.gguf", WEIGHTS)
    loaded = load(file)
    assert (loaded.name, loaded.quantization, loaded.model.dtype) == (str(file), "gguf", torch.float32)
    said = [{"role": "user", "content": "What is 37 * 52?"}]
    encoded: Any = embedded.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_tensors="pt")
    tokens = encoded["input_ids"]
    assert loaded.tokenizer.decode(tokens[0]) == embedded.tokenizer.decode(tokens[0])
    assert loaded.tokenizer.chat_template == embedded.tokenizer.chat_template
    assert loaded.tokenizer.eos_token == embedded.tokenizer.eos_token
    models: list[Any] = [loaded.model, embedded.model]
    written, wanted = (model.generate(tokens, max_new_tokens=30, do_sample=False) for model in models)
    assert written.equal(wanted)
    engine = GuidedEngine(loaded.model, loaded.tokenizer)
    assert engine.complete(said, max_tokens=5)
    engine.close()


def test_a_gguf_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"There is no file .*/missing\.gguf on the server"):
        load(tmp_path / "missing.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ModelLoadError, match=r"broken\.gguf could not be loaded"):
        load(tmp_path / "broken.gguf")
    whole = gguf_file.write(tmp_path / "whole.gguf", WEIGHTS).read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelLoadError, match=r"half\.gguf could not be loaded"):
        load(tmp_path / "half.gguf")


def test_tied_embeddings_are_not_taken_for_missing(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(llama(tie_word_embeddings=True)).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    model = load(tmp_path).model
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_progress_is_reported_and_shown(pristine: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    load(pristine, lambda *event: events.append(event))
    total = len(load_file(pristine / "model.safetensors"))
    assert events == [
        ("tokenizer", 0, 1),
        ("tokenizer", 1, 1),
        *[("weights", done, total) for done in range(total + 1)],
        ("ready", 1, 1),
    ]
    assert "Loading weights: 100%" in capfd.readouterr().err


def test_the_progress_hook_is_given_back(pristine: Path, tiny: Path) -> None:
    load(pristine)
    (tiny / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelLoadError):
        load(tiny)
    assert transformers_logging.set_tqdm_hook(None) is None


# What can't be loaded


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"is not a model: it has no config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b/c", "/no/such/folder", "./nowhere", "two words", "x" * 300, "a\0b"])
def test_a_name_that_can_be_no_id_is_not_looked_up(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="neither a folder on the server nor a Hugging Face id"):
        load(name)


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(architectures=["BertForMaskedLM"]),
        T5Config(architectures=["T5ForConditionalGeneration"]),
        llama(architectures=["LlamaForSequenceClassification"]),
        llama(architectures=["LlamaModel"]),
    ],
    ids=lambda config: config.architectures[0],
)
def test_a_model_that_is_not_causal_is_refused(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(NotACausalModelError, match=config.architectures[0]):
        load(tmp_path)


def test_a_tokenizer_without_a_chat_template_is_refused(tiny: Path) -> None:
    (tiny / "chat_template.jinja").unlink()
    with pytest.raises(NoChatTemplateError, match="no chat template"):
        load(tiny)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    remove_weights(folder)


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_a_shard(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    remove_weights(folder)
    names = dict.fromkeys(weights, "model-00001-of-00002.safetensors")
    names["lm_head.weight"] = "model-00002-of-00002.safetensors"
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(weights, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})


def change_a_size(folder: Path) -> None:
    llama(hidden_size=32, architectures=["LlamaForCausalLM"]).save_pretrained(folder)


def break_the_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def name_an_unknown_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "from_next_year"}')


def remove_the_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


@pytest.mark.parametrize(
    ("breaking", "what"),
    [
        (remove_weights, "safetensors"),
        (cut_weights, r"model\.safetensors is cut off: it has \d+ bytes, of \d+"),
        (empty_weights, r"model\.safetensors is no safetensors file, or is cut off"),
        (pickle_weights, "safetensors"),
        (drop_a_weight, r"1 weights are missing, such as model\.layers\.1\.mlp\.up_proj\.weight"),
        (drop_a_shard, "model-00002-of-00002"),
        (change_a_size, "size"),
        (break_the_config, "config.json"),
        (name_an_unknown_kind, "from_next_year"),
        (remove_the_tokenizer, "has no tokenizer, like a file tokenizer.json"),
    ],
)
def test_a_broken_folder_is_an_error_that_says_what_is_broken(
    tiny: Path, breaking: Callable[[Path], None], what: str
) -> None:
    breaking(tiny)
    with pytest.raises(ModelLoadError, match=what) as raised:
        load(tiny)
    assert str(tiny) in str(raised.value)


def test_code_that_comes_with_a_model_never_runs(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    config |= {
        "model_type": "own_code",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (tiny / "config.json").write_text(json.dumps(config))
    (tiny / "own.py").write_text(f"open({str(tiny / 'it_ran')!r}, 'w')")
    with pytest.raises(ModelLoadError, match="needs its own code, which Hearth never runs"):
        load(tiny)
    assert not (tiny / "it_ran").exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"device_map": "moon"}, "moon"),
        ({"dtype": "int3"}, "int3"),
        ({"quantizer": "hammer", "load_in_8bit": True}, "hammer"),
    ],
)
def test_an_option_that_does_not_exist_is_an_error(pristine: Path, options: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelLoadError, match=what):
        load(pristine, **options)


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    llama(
        hidden_size=2**16, intermediate_size=2**18, num_hidden_layers=50, architectures=["LlamaForCausalLM"]
    ).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    needed = {}
    for load_in_8bit in (False, True):
        with pytest.raises(OutOfMemoryError, match="does not fit") as raised:
            load(tmp_path, load_in_8bit=load_in_8bit)
        needed[load_in_8bit] = raised.value.details["needed_bytes"]
        assert needed[load_in_8bit] > raised.value.details["free_bytes"] > 0
    layers = 50 * (4 * 2**32 + 3 * 2**34)
    assert needed[False] == pytest.approx(4 * layers, rel=0.01)
    assert needed[True] == pytest.approx(layers, rel=0.01)


STARVED = """
import resource, sys
import torch, transformers
from server.errors import OutOfMemoryError
from server.model import load_model

def starve(stage, done, total):
    # From here on this process gets 100 MB more; the model takes 270.
    if (stage, done) == ("weights", 0):
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + 100 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

torch.ones(1)
try:
    load_model(
        sys.argv[1], load_in_8bit=False, device_map="cpu", dtype="float32", int8_threshold=0, progress=starve
    )
except OutOfMemoryError as error:
    print("refused", error.details["needed_bytes"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory the Linux way")
def test_memory_that_runs_out_while_loading_is_an_error(tmp_path: Path) -> None:
    config = llama(hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, dtype="bfloat16")
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    done = run_python(STARVED, str(tmp_path))
    assert done.stdout.startswith("refused "), done.stderr[-2000:]


# The hub


class Hub(BaseHTTPRequestHandler):
    """As much of huggingface.co as a download needs. `lab/tiny` is there, `lab/gated` wants a login,
    `lab/asleep` takes the question and never answers, and there is nothing else."""

    commit = "0123456789" * 4
    folder: Path
    closing: threading.Event

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        model = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if model == "lab/asleep":
            self.closing.wait()
        elif model not in ("lab/tiny", "lab/gated"):
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif "/tree/" in path:
            self.answer_json(
                [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name} for f in self.files()]
            )
        elif path.startswith("/api/"):
            self.answer_json(
                {"id": model, "sha": self.commit, "siblings": [{"rfilename": f.name} for f in self.files()]}
            )
        elif model == "lab/gated":
            self.answer(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        else:
            file = self.folder / path.rsplit("/", 1)[1]
            self.answer(200, file.read_bytes(), {"ETag": f'"{file.name}"', "X-Repo-Commit": self.commit})

    do_HEAD = do_GET

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def answer_json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's output is for the test."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    closing = threading.Event()
    handler = type("LocalHub", (Hub,), {"folder": folder, "closing": closing})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


ASKING = """
import json, sys
from server.errors import ModelError
from server.model import load_model

for name in sys.argv[1:]:
    events = []
    try:
        loaded = load_model(
            name, load_in_8bit=None, device_map="cpu", dtype="auto", int8_threshold=6.0,
            progress=lambda *event: events.append(event),
        )
        outcome = [loaded.name, [event for event in events if event[0] == "download"]]
    except ModelError as error:
        outcome = [error.code, error.message]
    print(json.dumps(outcome))
"""


def ask_hub(endpoint: str, cache: Path, *names: str) -> list[Any]:
    """What comes of loading `names`. In a new process, for the hub's address is read on import."""
    done = run_python(ASKING, *names, HF_ENDPOINT=endpoint, HF_HOME=str(cache), NO_PROXY="127.0.0.1")
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_hub_id_is_fetched_once_and_then_needs_no_network(pristine: Path, tmp_path: Path) -> None:
    with serving(pristine) as endpoint:
        ((name, downloads),) = ask_hub(endpoint, tmp_path, "lab/tiny")
    assert name == "lab/tiny"
    size = sum(file.stat().st_size for file in pristine.iterdir())
    assert downloads[-1] == ["download", size, size]
    # The server is gone.
    (name, downloads), (code, message) = ask_hub(endpoint, tmp_path, "lab/tiny", "lab/other")
    assert (name, downloads) == ("lab/tiny", [])
    assert code == "model_not_found"
    assert "could not be fetched" in message


def test_what_the_hub_does_not_give_is_explained(pristine: Path, tmp_path: Path) -> None:
    with serving(pristine) as endpoint:
        gated, missing, asleep = ask_hub(endpoint, tmp_path, "lab/gated", "lab/tinny", "lab/asleep")
    assert gated[0] == missing[0] == asleep[0] == "model_not_found"
    assert "lab/gated is gated" in gated[1]
    assert "Check the spelling" in missing[1]
    assert "could not be fetched" in asleep[1]
