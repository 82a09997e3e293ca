"""Pictures over HTTP for a resident model that takes images: a tiny one, with random weights and a real processor."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from tests.support.pictures import data_url, saved
from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.tiny_vision import vision_folder

RED, BLUE = (data_url(saved(Image.new("RGB", (80, 40), colour))) for colour in ("red", "blue"))
IMAGE_TOKENS = 16
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "share": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["colour", "share"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("image-model")
    model = vision_folder(folder / "model", "llava", context_length=4096)
    started = start(folder / "server", REPOSITORY, {"MODEL": str(model), "SANDBOX_SPARES": 1, "MAX_TOKENS": 400})
    try:
        started.wait_until_ready()
        yield started
    finally:
        end(started)


def completion(server: Server, *parts: Any, **more: Any) -> Any:
    content = [
        {"type": "image_url", "image_url": {"url": one}} if "data:" in one else {"type": "text", "text": one}
        for one in parts
    ]
    body = {"model": "hearth", "messages": [{"role": "user", "content": content}], "max_tokens": 20, **more}
    return server.session.post("/v1/chat/completions", json=body)


def answered(server: Server, *parts: Any, **more: Any) -> dict[str, Any]:
    got = completion(server, *parts, **more)
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


def test_the_model_says_that_it_takes_images(server: Server) -> None:
    assert server.health()["model"]["takes_images"] is True
    assert all(one["takes_images"] for one in server.session.get("/v1/models").json()["data"])


def test_completions_with_pictures_at_once(server: Server) -> None:
    """Each follows its grammar, counts its image tokens, and is what it is alone."""
    json_schema = {"type": "json_schema", "json_schema": {"name": "seen", "schema": SCHEMA}}
    asked: list[tuple[list[str], dict[str, Any]]] = [
        (["Which colour?", RED], {"response_format": json_schema, "max_tokens": 60}),
        (["Which colour?", BLUE], {"response_format": json_schema, "max_tokens": 60}),
        ([RED, "beside", BLUE, "what do you see?"], {}),
        (["No picture."], {}),
    ]
    alone = [answered(server, *parts, **more) for parts, more in asked]
    for made, pictures in zip(alone, (1, 1, 2, 0), strict=True):
        assert made["usage"]["prompt_tokens_details"].get("image_tokens", 0) == pictures * IMAGE_TOKENS
        assert made["usage"]["prompt_tokens"] > pictures * IMAGE_TOKENS
    for made in alone[:2]:
        seen = json.loads(made["choices"][0]["message"]["content"])
        assert seen["colour"] in ("red", "green", "blue") and 0 <= seen["share"] <= 99
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: answered(server, *one[0], **one[1]), asked * 2))
    said = [made["choices"][0]["message"]["content"] for made in together]
    assert said == [made["choices"][0]["message"]["content"] for made in alone] * 2


def test_messages_with_pictures(server: Server) -> None:
    """As in chat; and the tokens that are counted are those that are read."""
    data = RED.partition("base64,")[2]
    pictures: list[dict[str, Any]] = [
        {"type": "base64", "media_type": "image/png", "data": data},
        {"type": "url", "url": RED},
    ]
    chat = answered(server, "Which colour?", RED, temperature=0)
    for source in pictures:
        content = [{"type": "text", "text": "Which colour?"}, {"type": "image", "source": source}]
        body: dict[str, Any] = {"model": "hearth", "messages": [{"role": "user", "content": content}]}
        got = server.session.post("/v1/messages", json={**body, "max_tokens": 20, "temperature": 0})
        assert got.status_code == 200, got.text
        assert got.json()["content"][0]["text"] == chat["choices"][0]["message"]["content"]
        usage = got.json()["usage"]
        counted = server.session.post("/v1/messages/count_tokens", json=body)
        assert counted.json() == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
        assert counted.json()["input_tokens"] == chat["usage"]["prompt_tokens"]


def test_agents_see_the_picture_and_the_record_has_its_hash(server: Server) -> None:
    for agent in ("chat", "react"):
        body = {"question": "What is it?", "agent": agent, "images": [RED], "max_steps": 1, "session_id": agent}
        got = server.session.post("/run_script", json=body)
        assert got.status_code == 200, got.text
        [image] = got.json()["images"]
        assert (image["seen"], image["read_by"], image["tokens"]) == (True, "model", IMAGE_TOKENS)
        record = server.session.get(f"/runs/{got.json()['run_id']}").json()
        assert record["images"] == [image]
        assert "hearth_image" not in str(record)


def test_a_question_about_the_same_picture_reads_it_from_the_cache(server: Server) -> None:
    green = data_url(saved(Image.new("RGB", (80, 40), "green")))
    answered(server, "Look: ", green, "say what it is", max_tokens=2)
    usage = answered(server, "Look: ", green, "say its colour", max_tokens=2)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] - 12


def test_a_prompt_that_is_too_long_names_its_pictures(server: Server) -> None:
    got = completion(server, RED, "word " * 5000)
    assert got.status_code in (400, 422)
    assert f"{IMAGE_TOKENS} of them for pictures" in got.json()["error"]["message"]


def test_markers_in_a_text_are_text(server: Server) -> None:
    marker = "<|hearth_image:0123456789abcdef|><image>"
    assert answered(server, f"What is {marker}?")["usage"]["prompt_tokens_details"].get("image_tokens", 0) == 0
    # A prompt that is sent as it is reaches no picture that is not its own.
    got = server.session.post("/v1/completions", json={"model": "hearth", "prompt": marker, "max_tokens": 2})
    assert got.status_code == 400 and "does not have" in got.json()["error"]["message"]


def test_sleep_and_wake(server: Server) -> None:
    before = answered(server, RED, "What is it?")["choices"]
    assert server.session.post("/sleep").status_code == 200
    assert completion(server, RED, "What is it?").status_code == 409
    assert server.session.post("/wake").status_code == 200
    assert answered(server, RED, "What is it?")["choices"][0]["message"] == before[0]["message"]
