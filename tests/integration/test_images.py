"""Pictures over HTTP: through a real sandbox to a model that sees them, and to one that does not."""

import base64
import hashlib
import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.pictures import data_url, halves, hostile, saved, with_text
from tests.support.scripted_api import ScriptedApi
from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.uploads import data_folder, folder_of, upload

SEEING = "openai:scripted"
RED = saved(Image.new("RGB", (80, 40), "red"))
CAT = with_text("Warpage 12.5 um")


@pytest.fixture(scope="module")
def api() -> Iterator[ScriptedApi]:
    with ScriptedApi(lambda messages: {"answer": "a red picture"}).serving() as serving:
        yield serving  # type: ignore[misc]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, api: ScriptedApi) -> Iterator[Server]:
    """The embedded model, which reads text alone, and beside it one that takes images."""
    settings = {"BASE_URL": f"{api.url}/v1", "SANDBOX_SPARES": 1, "VISION": "true", "MAX_IMAGES": 4}
    started = start(tmp_path_factory.mktemp("images") / "server", REPOSITORY, settings)
    try:
        started.wait_until_ready()
        loaded = started.session.post("/load_model", json={"model": SEEING, "replace": False})
        assert loaded.status_code == 200, loaded.text
        yield started
    finally:
        end(started)


def ask(server: Server, *images: str, question: str = "What is it?", **more: Any) -> dict[str, Any]:
    body = {"question": question, "agent": "chat", "model": SEEING, "images": list(images), **more}
    got = server.session.post("/run_script", json=body)
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


def refused(server: Server, image: str, **more: Any) -> dict[str, Any]:
    body = {"question": "What is it?", "agent": "chat", "model": SEEING, "images": [image], **more}
    got = server.session.post("/run_script", json=body)
    assert got.status_code in (400, 404, 413, 422), got.text
    return {"status": got.status_code, **got.json()["error"]}


def sent_images(api: ScriptedApi) -> list[bytes]:
    """The pictures that the last request to the API had, as they were on the wire."""
    urls = [
        part["image_url"]["url"]
        for message in api.asked[-1]["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    return [base64.b64decode(url.partition("base64,")[2]) for url in urls]


def stored(server: Server) -> list[Path]:
    return sorted(path for path in (data_folder(server) / "sessions").glob("**/images/*") if path.is_file())


def is_red(content: bytes) -> bool:
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB").getpixel((2, 2))[0] > 200  # type: ignore[index]


def test_a_model_that_takes_images_gets_the_picture(server: Server, api: ScriptedApi) -> None:
    answer = ask(server, data_url(RED))
    assert answer["answer"] == "a red picture"
    [image] = answer["images"]
    [content] = sent_images(api)
    assert hashlib.sha256(content).hexdigest() == image["sha256"] and is_red(content)
    assert (image["width"], image["height"], image["media_type"]) == (80, 40, "image/png")
    assert image["seen"] is True and image["read_by"] == "model" and image["tokens"] == 3 * 2 + 16
    # The record has the same, and can be repeated with the same picture.
    record = server.session.get(f"/runs/{answer['run_id']}").json()
    assert record["images"] == [image] and f"[image {image['sha256'][:16]}: " in record["question"]
    replayed = server.session.post(f"/runs/{answer['run_id']}/replay")
    assert replayed.status_code == 200, replayed.text
    assert sent_images(api) == [content]


def test_the_same_picture_twice_is_one_file_and_is_sent_once(server: Server, api: ScriptedApi) -> None:
    assert upload(server, "twice", ("red.png", RED)).status_code == 201
    answer = ask(server, "red.png", data_url(RED), "hearth-file:red.png", session_id="twice")
    assert len(answer["images"]) == 1 and len(sent_images(api)) == 1
    ask(server, data_url(RED), session_id="twice")
    images = folder_of(server, "twice").parent / "images"
    assert len(list(images.iterdir())) == 1
    assert server.session.delete("/sessions/twice").status_code == 200
    assert not images.exists()


def test_no_base64_is_saved_or_logged(server: Server, api: ScriptedApi) -> None:
    noise = saved(Image.effect_noise((120, 90), 80))
    answer = ask(server, data_url(noise), session_id="quiet")
    [content] = sent_images(api)
    server.session.get("/sessions/quiet/export")
    # Inner parts of both, since base64 depends on where a text begins.
    hidden = {base64.b64encode(data[offset : offset + 60]) for data in (noise, content) for offset in (600, 601, 602)}
    folder = data_folder(server)
    looked_at = [path for path in folder.rglob("*") if path.is_file() and "images" not in path.parts[-3:]]
    assert any(path.read_bytes().startswith(b"SQLite") for path in looked_at), "the database is among them"
    for path in (*looked_at, server.output_file):
        text = path.read_bytes()
        assert not [part for part in hidden if part in text], path
        assert b"iVBORw0KGgo" not in text, path
    databases = [path for path in looked_at if path.read_bytes().startswith(b"SQLite")]
    with sqlite3.connect(databases[0]) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = str([row for name in tables for row in database.execute(f"SELECT * FROM {name}")])
    # Texts are compressed in some columns, so the record itself is read as well.
    record = server.session.get(f"/runs/{answer['run_id']}").text
    assert answer["images"][0]["sha256"] in record
    assert "base64," not in rows and "base64," not in record


def test_gps_is_stripped_and_the_orientation_obeyed(server: Server, api: ScriptedApi) -> None:
    for orientation in (1, 6, 8):
        answer = ask(server, data_url(halves(orientation), "image/jpeg"))
        [content] = sent_images(api)
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (80, 40) and not image.getexif() and b"Exif" not in content
            assert image.convert("RGB").getpixel((5, 20))[0] > 200  # type: ignore[index]
            assert image.convert("RGB").getpixel((75, 20))[2] > 200  # type: ignore[index]
        assert (answer["images"][0]["width"], answer["images"][0]["height"]) == (80, 40)


def test_openais_messages_have_pictures(server: Server, api: ScriptedApi) -> None:
    body: dict[str, Any]
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": data_url(RED), "detail": "low"}}
    text = {"type": "text", "text": "What is it?"}
    earlier: list[Any] = [{"role": "user", "content": [part, text]}, {"role": "assistant", "content": "A picture."}]
    body = {"model": "hearth/chat", "messages": [*earlier, {"role": "user", "content": "Which colour?"}]}
    # The default model reads text alone.
    answer = server.session.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    [image] = answer.json()["x_hearth"]["images"]
    assert image["seen"] is False and image["read_by"] == "ocr" and image["tokens"] == 0
    # By the model alone, and as a response.
    body = {"model": "hearth", "messages": [{"role": "user", "content": [text, part]}], "max_tokens": 8}
    answer = server.session.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["x_hearth"]["images"][0]["read_by"] == "ocr"
    assert answer.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 0
    items: list[Any] = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": data_url(RED)}]
    body = {"model": "hearth", "input": [{"role": "user", "content": items}], "max_output_tokens": 8}
    answer = server.session.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["input_tokens_details"]["image_tokens"] == 0
    # A model that takes images, of a session, by the form's route in JSON.
    assert upload(server, "form", ("red.png", RED)).status_code == 201
    named = {"type": "image_url", "image_url": {"url": "hearth-file:red.png"}}
    body = {"messages": [{"role": "user", "content": [text, named]}], "agent_type": "chat", "session_id": "form"}
    answer = server.session.post("/api/chat/completions", json={**body, "model": SEEING})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "a red picture"
    assert answer.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 22
    assert is_red(sent_images(api)[0])


def test_what_is_refused(server: Server) -> None:
    web = refused(server, "https://example.org/chart.png")
    assert web["status"] == 422 and "data URL" in web["message"]
    message: dict[str, Any] = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": "http://127.0.0.1/x.png"}],
    }
    answer = server.session.post("/v1/chat/completions", json={"model": "hearth", "messages": [message]})
    assert answer.status_code == 400 and "data URL" in answer.json()["error"]["message"]
    message = {"role": "assistant", "content": [{"type": "image_url", "image_url": data_url(RED)}]}
    answer = server.session.post("/v1/chat/completions", json={"model": "hearth", "messages": [message]})
    assert answer.status_code == 400 and "Only a message of the user" in answer.json()["error"]["message"]
    assert "Files of the server" in refused(server, "file:///etc/passwd")["message"]
    assert "session_id" in refused(server, "chart.png")["message"]
    assert refused(server, "../../secret.png", session_id="none")["type"] == "session_file_not_found"
    assert refused(server, "data:image/png;base64")["type"] == "invalid_request"
    assert refused(server, "data:image/png;base64,%%%")["type"] == "image_refused"
    many = server.session.post(
        "/run_script", json={"question": "?", "images": [data_url(with_text(str(n))) for n in range(5)]}
    )
    assert many.status_code == 422 and "HEARTH_MAX_IMAGES" in many.text
    large = server.session.post(
        "/run_script", json={"question": "?", "images": ["data:image/png;base64," + "A" * 2**21]}
    )
    assert large.status_code == 413 and "Upload pictures" in large.text


def test_hostile_pictures(server: Server) -> None:
    before = server.process.pid
    for name, content, good in list(hostile())[::5]:
        answer = server.session.post(
            "/run_script", json={"question": "?", "agent": "chat", "model": SEEING, "images": [data_url(content)]}
        )
        assert answer.status_code in ((200,) if good else (200, 413, 422) if good is None else (413, 422)), name
        if answer.status_code != 200:
            assert answer.json()["error"]["type"] in ("image_refused", "too_large"), name
    assert server.health()["status"] == "ok" and server.process.pid == before
    assert list((data_folder(server) / "sessions").glob("picture-*/files/sent")) == []


def test_a_model_that_reads_text_gets_the_text_of_the_picture(server: Server) -> None:
    answer = ask(server, data_url(CAT), model="embedded")
    [image] = answer["images"]
    assert image["seen"] is False and image["read_by"] == "ocr"
    assert "Warpage 12.5 um" in image["ocr_text"]
    assert "Warpage" not in server.session.get(f"/runs/{answer['run_id']}").json()["question"]


def test_agents_look_at_pictures_of_the_session(server: Server, api: ScriptedApi) -> None:
    assert upload(server, "look", ("red.png", RED), ("notes.txt", b"none")).status_code == 201
    before = len(api.asked)
    steps: Iterator[dict[str, Any]] = iter(
        [
            {"action": "look_at_image", "action_input": {"name": "red.png", "question": "Which colour?"}},
            {"answer": "red"},
            {"action": "look_at_image", "action_input": {"name": "blue.png", "question": ""}},
            {"answer": "none"},
        ]
    )
    heard: list[Any] = []

    def script(messages: Any) -> dict[str, Any]:
        heard.append(messages)
        if "red.png, 80 x 40]\nWhich colour?" in messages[-1]["content"]:
            return {"answer": "It is red."}
        return next(steps)

    api.script = script
    try:
        body = {"question": "Which colour?", "model": SEEING, "session_id": "look"}
        found = server.session.post("/run_script", json=body).json()
        missing = server.session.post("/run_script", json={**body, "question": "And blue?"}).json()
    finally:
        api.script = lambda messages: {"answer": "a red picture"}
    assert found["answer"] == "red", found
    [step] = found["steps"]
    assert (step["tool"], step["observation"]) == ("look_at_image", "It is red.")
    assert found["images"][0]["name"] == "red.png" and found["images"][0]["seen"] is True
    assert "Look at a picture and answer a question about it: red.png: look_at_image(" in json.dumps(heard[0])
    assert any("image_url" in json.dumps(asked) for asked in api.asked[before:])
    assert "has no file 'blue.png'" in missing["steps"][0]["error"]
