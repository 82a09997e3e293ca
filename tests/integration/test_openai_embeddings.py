"""`/v1/embeddings`: the embedding model's own vectors, and whose usage they are."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from openai import OpenAI

from server.documents.embedder import Embedder
from tests.support.server_process import Server

NAME = "hearth-embedding"
TEXTS = ["a salt lake", "the dead sea", "x", "tax law of 1923"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(device="cpu")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0, timeout=60) as client:
        yield client


def vectors(answer: Any) -> np.ndarray:
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return np.array([one.embedding for one in answer.data], dtype=np.float32)


def test_texts_and_tokens(embedder: Embedder, client: OpenAI) -> None:
    expected, ids = embedder.embed(TEXTS), [embedder.encode(text) for text in TEXTS]
    answer = client.embeddings.create(model=NAME, input=TEXTS, encoding_format="float")
    found = vectors(answer)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[1] > found[0] @ found[3]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids))
    assert answer.model == NAME
    for given in (ids, TEXTS):  # in base64, the client's default
        np.testing.assert_allclose(vectors(client.embeddings.create(model=NAME, input=given)), expected, atol=1e-5)
    for one in (TEXTS[0], ids[0]):
        single = client.embeddings.create(model=NAME, input=one)
        np.testing.assert_allclose(vectors(single), expected[:1], atol=1e-5)


def test_dimensions_and_base64(server: Server, embedder: Embedder) -> None:
    body: Any = {"model": NAME, "input": TEXTS[:2], "dimensions": 16, "encoding_format": "base64"}
    answer = server.session.post("/v1/embeddings", json=body).json()
    found = np.array([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]])
    cut = embedder.embed(TEXTS[:2])[:, :16]
    np.testing.assert_allclose(found, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)


def test_langchain(server: Server, embedder: Embedder) -> None:
    options: Any = {"base_url": f"{server.url}/v1", "api_key": server.token}
    embeddings = OpenAIEmbeddings(model=NAME, check_embedding_ctx_length=False, **options)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), embedder.embed(TEXTS), atol=1e-5)


def test_many_texts(client: OpenAI) -> None:
    texts = [f"sample {number % 7}" for number in range(300)]
    found = vectors(client.embeddings.create(model=NAME, input=texts))
    np.testing.assert_allclose(found[:7], found[7:14], atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_usage_is_counted(server: Server, client: OpenAI) -> None:
    def used() -> int:
        usage = server.session.get("/usage", params={"by": "model"}).json()["usage"]
        return next((one["tokens_processed"] for one in usage if one["model"] == NAME), 0)

    before = used()
    answer = client.embeddings.create(model=NAME, input=TEXTS)
    assert used() - before == answer.usage.total_tokens


@pytest.mark.parametrize(
    ("wanted", "param", "code", "message"),
    [
        ({"input": []}, "input", "invalid_request", "at least 1"),
        ({"input": ""}, "input", "invalid_request", "without characters"),
        ({"input": [[]]}, "input[0]", "invalid_request", "at least 1"),
        ({"input": ["x", ""]}, "input[1]", "invalid_request", "without characters"),
        ({"input": ["x", 5]}, "input[1]", "invalid_request", "string"),
        ({"input": ["x", "very long " * 300]}, "input[1]", "context_length_exceeded", "at most 256"),
        ({"input": [[99_999_999]]}, "input[0]", "invalid_request", "99999999"),
        ({"input": "x", "dimensions": 385}, "dimensions", "invalid_request", "384"),
        ({"input": "x", "dimensions": 0}, "dimensions", "invalid_request", "1"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format", "invalid_request", "base64"),
        ({"input": ["x"] * 2049}, "input", "invalid_request", "2048"),
    ],
)
def test_what_is_refused(server: Server, wanted: dict[str, Any], param: str, code: str, message: str) -> None:
    answer = server.session.post("/v1/embeddings", json={"model": NAME, **wanted})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error
    assert message in error["message"]


def test_another_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=NAME) as refused:
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert refused.value.code == "model_not_found"
