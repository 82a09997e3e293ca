"""Pictures as each provider's own package writes them on the wire."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.images.image_part import ImagePart
from server.providers import RemoteModel
from server.sdk import context
from tests.support.pictures import with_text
from tests.support.scripted_api import ScriptedApi

VENDORS = {"openai": "/v1", "anthropic": "", "google_genai": "", "mistralai": "/mistral/v1", "ollama": ""}
"""What their packages expect as the base of the URL."""


@pytest.fixture(scope="module")
def api() -> Iterator[ScriptedApi]:
    with ScriptedApi(lambda messages: {"answer": "a chart"}).serving() as serving:
        yield serving  # type: ignore[misc]


@pytest.fixture
def part(tmp_path: Path) -> ImagePart:
    file = tmp_path / "chart.png"
    file.write_bytes(with_text("42"))
    return ImagePart("chart.png", "a" * 64, 640, 160, "image/png", file.stat().st_size, file)


@pytest.mark.parametrize("vendor", list(VENDORS))
def test_a_picture_comes_after_its_mark_and_once(vendor: str, api: ScriptedApi, part: ImagePart) -> None:
    encoded = base64.b64encode(part.path.read_bytes()).decode()
    messages = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": f"Look: {part.mark}\nWhat is it?"},
        {"role": "assistant", "content": "A chart."},
        {"role": "user", "content": f"And {part.mark}?"},
    ]
    with (
        closing(RemoteModel(f"{vendor}:embedded", api.url + VENDORS[vendor], False, vision=True)) as model,
        context.scope(images={part.key: part}),
    ):
        before = model.count("What is it?")
        assert model.count(f"What is it? {part.mark}") >= before + part.tokens
        assert model.complete(messages, max_tokens=16) == "a chart"
    # Google's package writes base64 in its form for URLs.
    sent = json.dumps(api.asked[-1]).replace(encoded.replace("+", "-").replace("/", "_"), encoded)
    assert sent.count(encoded) == 1
    if vendor != "ollama":  # its pictures stand beside the text
        assert sent.index(part.mark) < sent.index(encoded) < sent.index("What is it?")
    if vendor in ("anthropic", "google_genai", "openai", "mistralai"):
        assert "image/png" in sent


def test_a_model_that_takes_none_gets_text_alone(api: ScriptedApi, part: ImagePart) -> None:
    with (
        closing(RemoteModel("openai:embedded", f"{api.url}/v1", False)) as model,
        context.scope(images={part.key: part}),
    ):
        assert model.takes_images is False
        assert model.count(part.mark) < part.tokens
        model.complete([{"role": "user", "content": part.mark}], max_tokens=16)
    assert api.asked[-1]["messages"] == [{"role": "user", "content": part.mark}]


def test_the_packages_say_who_takes_pictures(api: ScriptedApi) -> None:
    with closing(RemoteModel("openai:gpt-4o", f"{api.url}/v1", False)) as model:
        assert model.takes_images is True
    with closing(RemoteModel("openai:gpt-4o", f"{api.url}/v1", False, vision=False)) as model:
        assert model.takes_images is False
