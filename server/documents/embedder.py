"""Vectors of texts, by a sentence-embedding model that Transformers reads, offline by default."""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.documents.model_folder import ModelUnusableError, device_for, first_line, model_folder, packaged_folder
from server.documents.turn import Turn

if TYPE_CHECKING:
    import numpy as np

SETTING = "HEARTH_EMBEDDING_MODEL"
LONGEST = 256
"""Tokens of a text that are embedded, where the model's folder doesn't say another number."""
BATCH_TOKENS = {"cpu": 512, "cuda": 32_768}
"""Tokens of a batch, with padding. A query waits for at most one batch, and so does the resident model."""


_Batch = tuple[list[int], list[list[int]]]
"""Places in a list of inputs, and the tokens of these."""


class EmbeddingError(ModelUnusableError):
    """The embedding model can't be used; the message says why, and what to do."""


class Embedder:
    """Idle until its first use. Safe for any number of threads: one batch is computed at a time, queries come
    before the batches of texts, and these take turns."""

    def __init__(self, folder_or_id: str = "", device: str | None = None) -> None:
        """`folder_or_id`: a folder or an id of a sentence-embedding model; empty: the packaged one. `device`: None: a
        GPU if there is one with enough free memory, and else the CPU."""
        self._where = folder_or_id
        self._device = device
        self._loading = threading.Lock()
        self._model: _Model | None = None
        self._reading = threading.Lock()
        self._counting: _Counting | None = None
        self._turn = Turn()

    @property
    def name(self) -> str:
        """The hash of weights, configuration and pooling, 16 hex digits: vectors of other names don't compare."""
        return self._loaded().name

    @property
    def dimensions(self) -> int:
        """The length of its vectors."""
        return self._loaded().dimensions

    @property
    def window(self) -> int:
        """The number of a text's tokens that are embedded; the rest is cut off. Reads the tokenizer alone."""
        return self._counted().window

    def count_tokens(self, text: str) -> int:
        """The number of tokens, without the special ones. Reads the tokenizer alone: the weights take seconds."""
        return len(self._counted().tokenizer.encode(text, add_special_tokens=False).ids)

    @property
    def longest(self) -> int:
        """The number of tokens that it reads, the special ones included."""
        return self._counted().longest

    @property
    def vocabulary(self) -> int:
        """The number of its tokens."""
        return self._loaded().vocabulary

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, the special ones included. None are cut off."""
        ids: list[int] = self._counted().tokenizer.encode(text).ids
        return ids

    def embed_tokens(self, inputs: Sequence[list[int]]) -> "np.ndarray":
        """Vectors of tokens as they are, up to `longest` of them each: see `embed`."""
        return self._vectors(self._loaded(), self._loaded().batches_of(inputs), len(inputs), is_query=False)

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """Vectors of passages, float32 of shape (texts, dimensions), each of length 1. Raises `EmbeddingError`."""
        return self._embed(texts, is_query=False)

    def embed_query(self, text: str) -> "np.ndarray":
        """The vector of a query, before passages that wait. Raises `EmbeddingError`."""
        vector: np.ndarray = self.embed_queries([text])[0]
        return vector

    def embed_queries(self, texts: Sequence[str]) -> "np.ndarray":
        """The same for several: float32 of shape (texts, `dimensions`)."""
        return self._embed(texts, is_query=True)

    def _embed(self, texts: Sequence[str], is_query: bool) -> "np.ndarray":
        model = self._loaded()
        return self._vectors(model, model.batches(texts, is_query), len(texts), is_query)

    def _vectors(self, model: "_Model", batches: "Iterator[_Batch]", count: int, is_query: bool) -> "np.ndarray":
        import numpy as np

        vectors = np.zeros((count, model.dimensions), dtype=np.float32)
        for places, ids in batches:
            with self._turn.of(is_query):
                vectors[places] = model.forward(ids)
        if not np.isfinite(vectors).all():
            raise EmbeddingError(f"The embedding model {model.folder} gave numbers that are not finite.")
        return vectors

    def _loaded(self) -> "_Model":
        with self._loading:
            if self._model is None:
                self._model = _Model(_folder(self._where), self._device)
            return self._model

    def _counted(self) -> "_Counting":
        with self._reading:
            if self._counting is None:
                self._counting = _Counting(_folder(self._where))
            return self._counting


class _Counting:
    """The tokenizer, without Transformers and PyTorch. `window`: the tokens of a text that are embedded."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            _, _, self.longest = _read_folder(folder)
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except EmbeddingError:
            raise
        except Exception as error:  # boundary: tokenizers raises Exception itself
            raise EmbeddingError(
                f"{SETTING}: {folder / 'tokenizer.json'} can't be read: {first_line(error)}"
            ) from error
        # The packaged file has truncation to 128 tokens and padding on.
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.window = self.longest - self.tokenizer.num_special_tokens_to_add(False)


class _Model:
    """The weights on their device, and the tokenizer."""

    def __init__(self, folder: Path, device: str | None) -> None:
        self.folder = folder
        try:
            self._pooling, self._prefixes, self.longest = _read_folder(folder)
            self._load(device)
            self.name = _hash(folder, self._pooling, self.longest)
        except EmbeddingError:
            raise
        except Exception as error:  # boundary: Transformers raises whatever the files make it raise
            raise EmbeddingError(
                f"{SETTING}: {folder} can't be loaded as an embedding model: {first_line(error)}"
            ) from error

    def _load(self, device: str | None) -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        self._padding = tokenizer.pad_token_id or 0
        fast = tokenizer.backend_tokenizer.to_str()
        # Two of them: truncation is a state of the tokenizer, and threads share it. The packaged file has truncation
        # to 128 tokens and padding on.
        self.counting, self._encoding = Tokenizer.from_str(fast), Tokenizer.from_str(fast)
        for one in (self.counting, self._encoding):
            one.no_padding()
            one.no_truncation()
        self._encoding.enable_truncation(self.longest)
        self.special = self.counting.num_special_tokens_to_add(False)
        model = AutoModel.from_pretrained(
            self.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        ).eval()
        self.dimensions = int(model.config.hidden_size)
        self.vocabulary = int(model.config.vocab_size)
        self.device = device or device_for(sum(one.nbytes for one in model.parameters()), "The embedding model")
        self._model = model.to(self.device)

    def batches(self, texts: Sequence[str], is_query: bool) -> "Iterator[_Batch]":
        """The batches of `texts`, which are cut off after `longest` tokens."""
        prefix = self._prefixes["query" if is_query else "document"]
        encoded = self._encoding.encode_batch([prefix + text for text in texts])
        return self.batches_of([one.ids for one in encoded])

    def batches_of(self, inputs: Sequence[list[int]]) -> "Iterator[_Batch]":
        """The batches of tokens, by length, so that little is padded."""
        order = sorted(range(len(inputs)), key=lambda place: -len(inputs[place]))
        most = BATCH_TOKENS["cpu" if self.device == "cpu" else "cuda"]
        while order:
            size = max(1, most // max(1, len(inputs[order[0]])))
            batch, order = order[:size], order[size:]
            yield batch, [inputs[place] for place in batch]

    def forward(self, ids: list[list[int]]) -> "np.ndarray":
        import torch

        longest = max(map(len, ids))
        tokens = torch.tensor([one + [self._padding] * (longest - len(one)) for one in ids], device=self.device)
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids], device=self.device)
        with torch.inference_mode():
            hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state
            if self._pooling == "cls":
                pooled = hidden[:, 0]
            else:
                pooled = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
            vectors: np.ndarray = torch.nn.functional.normalize(pooled.float(), dim=1).cpu().numpy()
        return vectors


def _folder(where: str) -> Path:
    try:
        return model_folder(where, SETTING) if where else packaged_folder()
    except ModelUnusableError as error:
        raise EmbeddingError(str(error)) from error


def _read_folder(folder: Path) -> tuple[str, dict[str, str], int]:
    """Pooling, prefixes of queries and passages, and the longest text, from the files of sentence-transformers."""
    pooling = _json(folder / "1_Pooling" / "config.json")
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    if modes not in ([], ["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        raise EmbeddingError(f"{SETTING}: {folder} pools by {', '.join(modes)}; Hearth: by mean or cls.")
    prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
    prefixes = {kind: str(prompts.get(kind) or "") for kind in ("query", "document")}
    config = _json(folder / "config.json")
    if not config:
        raise EmbeddingError(f"{SETTING}: {folder} has no config.json, so it is no model's folder.")
    longest = int(_json(folder / "sentence_bert_config.json").get("max_seq_length") or LONGEST)
    longest = min(longest, int(config.get("max_position_embeddings") or longest))
    return ("cls" if modes == ["pooling_mode_cls_token"] else "mean"), prefixes, longest


def _json(path: Path) -> dict[str, Any]:
    """What is in a JSON file; empty if there is none."""
    if not path.is_file():
        return {}
    read = json.loads(path.read_text("utf-8"))
    return read if isinstance(read, dict) else {}


def _hash(folder: Path, pooling: str, longest: int) -> str:
    digest = hashlib.sha256(f"{pooling} {longest}".encode())
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json", folder / "tokenizer.json"]):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
