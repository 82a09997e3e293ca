"""Models behind an API, with the vendors' own packages over real HTTP: what they answer, and how they fail."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
import requests
from langchain_core.tools import BaseTool

from constants import Settings
from server.agent import load_agents, prompts
from server.agent.agent import AgentResult
from server.embedded import WEIGHTS
from server.engine import GuidedEngine
from server.errors import (
    HearthError,
    ModelNotFoundError,
    ModelNotLoadedError,
    PromptTooLongError,
    ProviderError,
    ProviderNotInstalledError,
    ProviderRateLimitedError,
    ProviderUnauthorizedError,
    RunCancelledError,
    SchemaRefusedError,
    UnreadableReplyError,
)
from server.host import Host
from server.providers import RemoteModel
from server.providers.catalog import NO_KEY, PROVIDERS
from server.providers.failures import RetryableError, explained
from server.sdk import ResidentChatModel, context, usage
from server.tools import load_tools
from tests.support import gguf_file
from tests.support.event_stream import read
from tests.support.llamacpp_server import llamacpp_server
from tests.support.model_api import Fault, ModelApi
from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.transformers_serve import transformers_serve

KEY = "sk-key-0123456789-that-nobody-may-see"
NEW_KEY = "sk-key-9876543210-that-nobody-may-see"
VENDORS = {"openai": "/v1", "anthropic": "", "google_genai": "", "mistralai": "/mistral/v1", "ollama": ""}
"""What their packages expect as the base of the URL."""
HELLO = prompts.messages((), "hello")
NUMBER = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
AT_ONCE = {"Retry-After": "0"}


@pytest.fixture(scope="module")
def api(engine: GuidedEngine) -> Iterator[ModelApi]:
    """A server of models that takes `KEY`, or none."""
    with ModelApi(engine, {KEY, NEW_KEY, NO_KEY}).serving() as serving:
        yield serving


@pytest.fixture(autouse=True)
def no_faults(api: ModelApi) -> None:
    api.faults.clear()
    api.asked.clear()
    api.keys.clear()
    api.left.clear()
    api.waiting.clear()


@pytest.fixture(scope="module")
def models(api: ModelApi) -> Iterator[dict[str, RemoteModel]]:
    """A model of each vendor's, asked by its own package."""
    made = {name: RemoteModel(f"{name}:embedded", api.url + path, with_key=False) for name, path in VENDORS.items()}
    yield made
    for model in made.values():
        model.close()


def model_of(vendor: str, api: ModelApi, name: str = "embedded") -> closing[RemoteModel]:
    return closing(RemoteModel(f"{vendor}:{name}", api.url + VENDORS[vendor], with_key=False))


@pytest.fixture(params=list(VENDORS))
def model(request: pytest.FixtureRequest, models: dict[str, RemoteModel]) -> RemoteModel:
    return models[request.param]


def tools_of(model: RemoteModel) -> dict[str, BaseTool]:
    return load_tools(ResidentChatModel(get_engine=lambda: model))


def ask(model: RemoteModel, question: str, agent: str = "react") -> AgentResult:
    return load_agents()[agent](model, tools_of(model), 6)(question)


def test_importing_them_brings_nothing_heavy() -> None:
    heavy = ("torch", "guidance", "transformers", "langchain", "langchain_openai", "openai")
    script = (
        f"import sys, server.providers, server.models.background; print([m for m in {heavy} if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.strip() == "[]", ended.stderr


# What a model answers


def test_a_reply_is_streamed_and_counted(api: ModelApi, model: RemoteModel) -> None:
    streamed: list[str] = []
    with usage.measured() as used, context.scope(on_text=lambda text, _: streamed.append(text)):
        reply = model.complete(HELLO, max_tokens=30)
    assert reply and "".join(streamed) == reply
    assert (used.prompt_tokens, used.completion_tokens) == api.counted[-1]
    assert (used.forced_tokens, used.forward_passes) == (0, 0)


def test_a_reply_ends_where_it_should(model: RemoteModel) -> None:
    whole = model.complete(HELLO, max_tokens=30)
    streamed: list[str] = []
    with context.scope(on_text=lambda text, _: streamed.append(text)):
        assert model.complete(HELLO, max_tokens=30, stop=[whole[3:6]]) == whole[:3]
    assert "".join(streamed) == whole[:3]


def test_a_reply_fits_its_schema(model: RemoteModel) -> None:
    assert isinstance(json.loads(model.complete(HELLO, max_tokens=60, schema=NUMBER))["n"], int)
    assert json.loads(model.complete(HELLO, max_tokens=60, schema={"enum": ["a", "b"]})) in ("a", "b")


@pytest.mark.parametrize("schemas", ["taken", "refused", "ignored"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_the_default_agent_works_with_any(engine: GuidedEngine, vendor: str, schemas: str) -> None:
    with ModelApi(engine, schemas=schemas).serving() as api, model_of(vendor, api) as model:
        assert model.takes_schema == (schemas == "taken")
        result = ask(model, "What is 37 * 52?")
        assert (result.answer, result.function) == ("1924", "calculator")
        [step] = result.steps
        assert (step.input, step.observation) == ({"expression": "37 * 52"}, "1924")
        # A tool that asks the model, too.
        assert ask(model, "Is the mood of 'I love it' positive?").steps[0].observation == "positive"
        assert ask(model, "hello").steps == []


@pytest.mark.parametrize("agent", ["chat", "plan_execute", "auto"])
def test_the_other_agents_work_as_well(models: dict[str, RemoteModel], agent: str) -> None:
    result = ask(models["openai"], "What is 37 * 52?", agent)
    assert result.answer
    if agent == "auto":
        assert result.details["choice"]["probability"] is None
    if agent == "plan_execute":
        assert result.details["plan"]


def test_openai_itself_gets_strict_schemas(api: ModelApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", api.url + "/v1")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")  # as a mounted secret has it
    model = RemoteModel("openai:embedded")
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "enum": [1]},
            "word": {"type": "string", "enum": ["a"], "maxLength": 3},
        },
        "required": ["n"],
        "additionalProperties": False,
    }
    value = json.loads(model.complete(HELLO, max_tokens=60, schema=schema))
    assert value in ({"n": 1}, {"n": 1, "word": "a"}), "no null is left"
    sent = api.asked[-1]["response_format"]["json_schema"]
    assert sent["strict"] is True
    assert sent["schema"]["required"] == ["n", "word"]
    assert {"type": "null"} in sent["schema"]["properties"]["word"]["anyOf"]
    assert "max_completion_tokens" in api.asked[-1] and "max_tokens" not in api.asked[-1]
    assert ask(model, "What is 37 * 52?").answer == "1924"


def test_mistral_may_leave_out_what_may_be_left_out(api: ModelApi, models: dict[str, RemoteModel]) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "enum": [1]}, "word": {"type": "string", "enum": ["a"]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    value = json.loads(models["mistralai"].complete(HELLO, max_tokens=60, schema=schema))
    assert value in ({"n": 1}, {"n": 1, "word": "a"}), "no null is left"
    sent = api.asked[-1]["response_format"]["json_schema"]
    assert {"type": "null"} in sent["schema"]["properties"]["word"]["anyOf"]


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of `transformers serve` over the embedded model's weights."""
    with transformers_serve(WEIGHTS, tmp_path_factory.mktemp("serve"), "--device", "cpu") as url:
        yield url


def test_a_server_that_is_not_ours(relative: str) -> None:
    model = RemoteModel(f"openai:{WEIGHTS}", relative + "/v1", with_key=False)
    assert not model.takes_schema, "it overlooks them"
    # It writes each turn anew, which this model hasn't learned: only the first is as good as ever.
    step = ask(model, "What is 37 * 52?").steps[0]
    assert (step.tool, step.input, step.observation) == ("calculator", {"expression": "37 * 52"}, "1924")
    assert ask(model, "hello").steps == []


@pytest.fixture(scope="module")
def llamacpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteModel]:
    """llama.cpp's own server over the embedded model's weights."""
    folder = tmp_path_factory.mktemp("llamacpp")
    file = gguf_file.write(folder / "embedded.gguf", WEIGHTS)
    with llamacpp_server(file, folder / "log.txt") as url:
        yield RemoteModel("openai:any-name", url + "/v1", with_key=False)


def test_llama_cpps_server_holds_replies_to_a_schema(llamacpp: RemoteModel) -> None:
    assert llamacpp.takes_schema
    for _ in range(3):
        assert isinstance(json.loads(llamacpp.complete(HELLO, max_tokens=60, schema=NUMBER))["n"], int)
    with usage.measured() as used:
        assert llamacpp.complete(HELLO, max_tokens=10)
    assert 0 < used.completion_tokens <= 10


@pytest.mark.parametrize("agent", ["react", "chat", "plan_execute", "auto"])
def test_the_agents_work_on_llama_cpps_server(llamacpp: RemoteModel, agent: str) -> None:
    """Not that the answers are right: it splits texts in another way than the model has learned."""
    result = ask(llamacpp, "What is 37 * 52?", agent)
    assert result.answer
    assert all(step.tool in tools_of(llamacpp) for step in result.steps)


def test_another_hearth(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", server.token)
    model = RemoteModel("openai:embedded", server.url + "/v1")
    assert model.takes_schema
    with usage.measured() as used:
        whole = model.complete(HELLO, max_tokens=30)
    assert used.completion_tokens > 0
    assert model.complete(HELLO, max_tokens=30, stop=[whole[3:6]]) == whole[:3]
    bounded = {**NUMBER, "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}}
    assert 0 <= json.loads(model.complete(HELLO, max_tokens=60, schema=bounded))["n"] < 100
    agent = RemoteModel("openai:hearth/react", server.url + "/v1")
    assert not agent.takes_schema
    assert agent.complete([{"role": "user", "content": "What is 37 * 52?"}], max_tokens=200) == "1924"
    with pytest.raises(ModelNotFoundError, match="'nope'"):
        RemoteModel("openai:nope", server.url + "/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "another-token")
    with pytest.raises(ProviderUnauthorizedError, match="token is wrong"):
        RemoteModel("openai:embedded", server.url + "/v1")


# What goes wrong


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers=AT_ONCE),
        Fault(status=503, headers=AT_ONCE),
        Fault(status=529),
        Fault(status=500, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Fault("broken"),
        Fault("cut"),
        Fault("failing", status=503),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_what_passes_is_tried_again(api: ModelApi, model: RemoteModel, fault: Fault) -> None:
    alone = model.complete(HELLO, max_tokens=30)
    api.asked.clear()
    api.faults.append(fault)
    streamed: list[str] = []
    with context.scope(on_text=lambda text, _: streamed.append(text)):
        assert model.complete(HELLO, max_tokens=30) == alone
    assert "".join(streamed) == alone, "text that was sent before the connection broke is not sent again"
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=429, message="slow down, {key}", headers=AT_ONCE), ProviderRateLimitedError),
        (Fault(status=503, message="overloaded, {key}", headers=AT_ONCE), ProviderError),
    ],
)
def test_four_tries_are_enough(api: ModelApi, model: RemoteModel, fault: Fault, kind: type[HearthError]) -> None:
    api.faults.extend([fault] * 9)
    with pytest.raises(kind) as raised:
        model.complete(HELLO, max_tokens=30)
    assert type(raised.value) is kind
    assert fault.message.partition(",")[0] in raised.value.message
    assert len(api.asked) == 4


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault(status=400, message="bad {key}"), ProviderError, "bad"),
        (Fault(status=403, message="not you, {key}"), ProviderUnauthorizedError, "not you"),
        (Fault(status=429, message="enough", headers={"Retry-After": "999"}), ProviderRateLimitedError, "enough"),
        (Fault(status=429, message="insufficient_quota", headers=AT_ONCE), ProviderRateLimitedError, "quota"),
        (Fault(status=400, message="prompt is too long: 9 tokens"), PromptTooLongError, "9 tokens"),
        (Fault(status=400, message="The input token count exceeds what may be."), PromptTooLongError, "exceeds"),
        (Fault(status=422, message="x" * 5000), ProviderError, "xxx"),
    ],
)
def test_what_lasts_is_reported_at_once(
    api: ModelApi, model: RemoteModel, fault: Fault, kind: type[HearthError], said: str
) -> None:
    api.faults.append(fault)
    with pytest.raises(kind) as raised:
        model.complete(HELLO, max_tokens=30)
    assert type(raised.value) is kind
    assert said in raised.value.message and len(raised.value.message) < 1000
    assert len(api.asked) == 1
    if fault.status != 422:
        assert f": {fault.message.format(key=NO_KEY).rstrip('.')}." in raised.value.message, "its words alone"
    if said == "enough":
        assert raised.value.details == {"retry_after": 999}


@pytest.mark.parametrize("kind", ["withheld", "refused"])
@pytest.mark.parametrize("vendor", ["openai", "anthropic", "google_genai"])
def test_what_a_provider_withholds_is_reported(
    api: ModelApi, models: dict[str, RemoteModel], vendor: str, kind: str
) -> None:
    api.faults.append(Fault(kind))
    with pytest.raises(ProviderError, match=r"withheld|refused"):
        models[vendor].complete(HELLO, max_tokens=30)
    assert len(api.asked) == 1


def test_a_connection_that_breaks_with_a_code_of_its_own_passes() -> None:
    """As aiohttp's do, by which Google's package asks where that is installed."""
    broken = ConnectionError("Not enough data to satisfy transfer length header.")
    broken.code = 400  # type: ignore[attr-defined]
    assert isinstance(explained(broken, "google_genai:gemini", 8192), RetryableError)


def test_mistral_ends_what_it_cannot_finish_with_an_error(api: ModelApi, models: dict[str, RemoteModel]) -> None:
    api.faults.append(Fault("withheld"))
    assert models["mistralai"].complete(HELLO, max_tokens=30)
    assert len(api.asked) == 2


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_key_is_sent_and_never_shown(
    api: ModelApi, vendor: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    variable, url = PROVIDERS[vendor].keys[0], api.url + VENDORS[vendor]
    monkeypatch.setenv(variable, KEY)
    with closing(RemoteModel(f"{vendor}:embedded", url)) as model:
        busy = Fault(status=503, message="busy, {key}", headers=AT_ONCE)
        api.faults.extend([busy, Fault(status=403, message="not you, {key}")])
        with pytest.raises(ProviderUnauthorizedError, match=r": not you, \(secret\)\."):
            model.complete(HELLO, max_tokens=30)
    assert set(api.keys) == {KEY}
    monkeypatch.setenv(variable, KEY + "-wrong")
    with pytest.raises(ProviderUnauthorizedError) as raised:
        RemoteModel(f"{vendor}:embedded", url)
    assert KEY not in raised.value.message + caplog.text and "busy, (secret)" in caplog.text
    with monkeypatch.context() as wrong, pytest.raises(HearthError) as refused:
        wrong.setenv("ALL_PROXY", "socks4://127.0.0.1:9")  # of which some packages say what they were given
        RemoteModel(f"{vendor}:embedded", url)
    assert KEY[-2:] not in refused.value.message
    api.keys.clear()
    with model_of(vendor, api):
        assert set(api.keys) == {NO_KEY}, "nowhere that only a request has named"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_model_that_its_provider_does_not_know(api: ModelApi, vendor: str) -> None:
    with pytest.raises(ModelNotFoundError, match="missing"):
        model_of(vendor, api, "missing")


def test_a_server_that_is_not_there() -> None:
    began = time.monotonic()
    with pytest.raises(ProviderError, match="Connect call failed"):
        RemoteModel("openai:embedded", "http://127.0.0.1:9/v1")
    assert time.monotonic() - began < 15


def test_a_schema_that_a_provider_does_not_take(engine: GuidedEngine) -> None:
    with ModelApi(engine, schemas="refused").serving() as api:
        model = RemoteModel("openai:embedded", api.url + "/v1", with_key=False)
        with pytest.raises(SchemaRefusedError, match="structured output"):
            model.complete(HELLO, max_tokens=30, schema=NUMBER)


@pytest.mark.parametrize("kind", ["empty", "garbled"])
def test_an_unreadable_reply_is_asked_for_again(api: ModelApi, models: dict[str, RemoteModel], kind: str) -> None:
    # What is garbled may be mended twice before it is asked for anew.
    api.faults.extend([Fault(kind)] * 3)
    assert ask(models["openai"], "What is 37 * 52?").answer == "1924"
    assert len(api.asked) == 3 + 2
    mended = [body for body in api.asked if "This can't be read." in json.dumps(body["messages"])]
    assert len(mended) == (2 if kind == "garbled" else 0)


@pytest.mark.parametrize(("kind", "requests"), [("empty", 4), ("garbled", 6)])
def test_a_reply_that_stays_unreadable_is_reported(
    api: ModelApi, models: dict[str, RemoteModel], kind: str, requests: int
) -> None:
    api.faults.extend([Fault(kind)] * 20)
    with pytest.raises(UnreadableReplyError, match="asked 4 times"):
        ask(models["openai"], "What is 37 * 52?")
    assert len(api.asked) == requests


def test_a_run_that_is_cancelled_closes_the_connection(api: ModelApi, model: RemoteModel) -> None:
    with ThreadPoolExecutor(1) as pool:
        cancelled = threading.Event()
        api.faults.append(Fault("slow"))
        with context.scope(cancelled=cancelled):
            copied = copy_context()
        reply = pool.submit(copied.run, lambda: model.complete(HELLO, max_tokens=30))
        assert api.waiting.wait(60)
        cancelled.set()
        with pytest.raises(RunCancelledError):
            reply.result(10)
        assert api.left.wait(10)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_model_that_is_closed_answers_nothing(api: ModelApi, vendor: str) -> None:
    with ThreadPoolExecutor(1) as pool, model_of(vendor, api) as model:
        api.faults.append(Fault("slow"))
        reply = pool.submit(model.complete, HELLO, max_tokens=30)
        assert api.waiting.wait(60)
        model.close()
        with pytest.raises(ModelNotLoadedError):
            reply.result(10)
        assert api.left.wait(10)
        with pytest.raises(ModelNotLoadedError):
            model.complete(HELLO, max_tokens=30)


# What a model is called, and what it needs


@pytest.mark.parametrize("name", ["mistralai:small", "google_genai:gemini", "ollama:llama"])
def test_a_package_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = PROVIDERS[name.partition(":")[0]]
    for key in provider.keys:
        monkeypatch.setenv(key, KEY)
    monkeypatch.setitem(sys.modules, provider.module, None)  # Python's own way to hide it
    with pytest.raises(ProviderNotInstalledError) as raised:
        RemoteModel(name)
    assert raised.value.message.endswith(f"pip install {provider.requirement}")


@pytest.mark.parametrize("name", ["openai:x", "anthropic:x", "google_genai:x", "mistralai:x", "huggingface:x"])
def test_a_key_that_is_not_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = PROVIDERS[name.partition(":")[0]].keys
    for key in keys:
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(ProviderUnauthorizedError, match=f"{keys[0]} is not set"):
        RemoteModel(name)


def test_the_background_model(api: ModelApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    own: dict[str, Any] = {"MODEL": "openai:embedded", "BASE_URL": api.url + "/v1", "AUTOLOAD": False}
    for name in ("", "openai:small"):
        host = Host(Settings(**own, BACKGROUND_MODEL=name, DATA_DIR=tmp_path / f"data-{name}", SHUTDOWN_GRACE=0))
        asked: dict[str, Any] = {"workspace": "alice", "max_tokens": 30}
        if not name:
            with pytest.raises(ModelNotLoadedError):
                host.background.complete(HELLO, **asked)
            host.model_loader.load()
        assert host.background.complete(HELLO, **asked)
        assert "n" in json.loads(host.background.complete(HELLO, **asked, schema=NUMBER))
        assert {body["model"] for body in api.asked} == {name.removeprefix("openai:") or "embedded"}
        assert set(api.keys) == {KEY}
        api.asked.clear()
        host.close()
        with pytest.raises(HearthError):
            host.background.complete(HELLO, **asked)


def test_the_background_model_is_asked_for_json_in_words(
    engine: GuidedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ModelApi(engine, schemas="refused").serving() as api:
        settings = Settings(
            BACKGROUND_MODEL="openai:small", BASE_URL=api.url + "/v1", AUTOLOAD=False, DATA_DIR=tmp_path / "data"
        )
        host = Host(settings)
        host.background.complete(HELLO, workspace="alice", max_tokens=30, schema=NUMBER, words="Write JSON.")
        host.close()
        sent = api.asked[-1]
    assert "response_format" not in sent
    assert sent["messages"][-1]["content"] == "hello\n\nWrite JSON."


# A whole server, whose key stands in a file .env and which logs all there is to log


@pytest.fixture(scope="module")
def remote_server(api: ModelApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("remote") / "server"
    folder.mkdir()
    (folder / ".env").write_text(f"OPENAI_API_KEY={KEY}\nANTHROPIC_API_KEY={KEY}-wrong\n")
    with pytest.MonkeyPatch.context() as patch:
        for provider in PROVIDERS.values():
            for name in provider.keys:
                patch.delenv(name, raising=False)
        patch.setenv("ANTHROPIC_BASE_URL", api.url)
        hidden = tmp_path_factory.mktemp("hidden")
        (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['langchain_mistralai'] = None\n")
        patch.setenv("PYTHONPATH", str(hidden))
        settings: dict[str, object] = {"MODEL": "openai:embedded", "BASE_URL": api.url + "/v1", "LOG_LEVEL": "DEBUG"}
        made = start(folder, REPOSITORY, settings)
    try:
        made.wait_until_ready()
        yield made
    finally:
        end(made)
    written = [made.output_file, *(file for file in (folder / "data").rglob("*") if file.is_file())]
    assert len(written) > 1
    for key in (KEY, NEW_KEY):
        assert [file for file in written if key.encode() in file.read_bytes()] == []


def load(server: Server, **body: Any) -> requests.Response:
    return server.session.post("/load_model", json=body)


@pytest.fixture
def loaded(remote_server: Server, api: ModelApi) -> Server:
    """The server with its own model."""
    assert load(remote_server).status_code == 200
    api.asked.clear()
    api.keys.clear()
    return remote_server


def test_a_question_to_a_model_behind_an_api(loaded: Server, api: ModelApi) -> None:
    shown = loaded.health()["model"]
    assert (shown["name"], shown["state"]) == ("openai:embedded", "ready")
    assert (shown["device"], shown["quantization"], shown["memory_bytes"]) == (None, None, None)
    answer = loaded.session.post(
        "/run_script", json={"question": "What is 37 * 52?"}, headers={"Accept": "text/event-stream"}, stream=True
    )
    events = list(read(answer))
    last = events[-1].data
    assert (last["answer"], last["function"], last["model"]) == ("1924", "calculator", "openai:embedded")
    assert last["provenance"]["model"]["base_url"] == api.url + "/v1"
    assert last["usage"]["completion_tokens"] > 10
    assert [event.data["tool"] for event in events if event.kind == "step"] == ["calculator"]
    streamed = "".join(event.data["text"] for event in events if event.kind == "token")
    assert streamed.startswith('{"thought": ') and "37 * 52" in streamed
    assert set(api.keys) == {KEY}
    again = loaded.session.post(f"/runs/{last['run_id']}/replay").json()
    assert again["same_answer"] is True
    assert "hearth_tokens_total" in loaded.session.get("/metrics").text


def test_an_error_of_the_provider_is_an_answer(loaded: Server, api: ModelApi) -> None:
    api.faults.append(Fault(status=400, message="no, {key}"))
    answer = loaded.session.post("/run_script", json={"question": "What is 37 * 52?"})
    # It may have been the schema's fault, so it was asked without one, and answered.
    assert answer.status_code == 200, answer.text
    api.faults.append(Fault(status=429, message="quota of {key}", headers={"Retry-After": "999"}))
    answer = loaded.session.post("/run_script", json={"question": "What is 37 * 52?"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "999"
    error = answer.json()["error"]
    assert error["type"] == "provider_rate_limited"
    assert "quota of (secret)" in error["message"]


def test_a_run_of_it_can_be_cancelled(loaded: Server, api: ModelApi) -> None:
    api.waiting.clear()
    api.left.clear()
    api.faults.append(Fault("slow"))
    body: dict[str, Any] = {"question": "What is 37 * 52?", "detach": True}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(loaded.session.post, "/run_script", json=body)
        assert api.waiting.wait(60)
        [run] = [run for run in loaded.session.get("/runs").json()["runs"] if run["state"] == "running"]
        assert requests.delete(
            f"{loaded.url}/runs/{run['run_id']}", headers=dict(loaded.session.headers), timeout=60
        ).json()["cancelled"]
        assert asked.result(30).status_code == 499
    assert api.left.wait(10)


def test_models_are_switched_when_the_last_run_has_ended(loaded: Server, api: ModelApi) -> None:
    api.waiting.clear()
    api.faults.append(Fault("slow"))

    def post(path: str, **body: Any) -> requests.Response:
        return requests.post(loaded.url + path, json=body, headers=dict(loaded.session.headers), timeout=60)

    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(post, "/run_script", question="What is 37 * 52?", timeout=2)
        assert api.waiting.wait(60)
        other = {"model": "anthropic:embedded", "base_url": api.url}
        switched = pool.submit(post, "/load_model", **other)
        assert asked.result(60).json()["error"]["type"] == "run_timed_out"
        assert switched.result(60).json()["model"]["name"] == "anthropic:embedded"
    assert api.keys[-1] == NO_KEY, "a key goes nowhere that only a request has named"
    assert post("/run_script", question="What is 37 * 52?").json()["answer"] == "1924"


def test_a_new_key_is_taken_by_loading_again(loaded: Server, api: ModelApi) -> None:
    file = loaded.output_file.parent / ".env"
    before = file.read_text()
    try:
        file.write_text(f"OPENAI_API_KEY={NEW_KEY}\n")
        assert load(loaded).status_code == 200
    finally:
        file.write_text(before)
    assert api.keys and set(api.keys) == {NEW_KEY}


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({"model": "anthropic:embedded"}, 502, "provider_unauthorized", "Incorrect API key provided: (secret)"),
        ({"model": "openai:missing"}, 422, "model_not_found", "missing"),
        (
            {"model": "mistralai:small", "base_url": "http://127.0.0.1:9"},
            422,
            "provider_not_installed",
            "pip install",
        ),
        ({"model": "opneai:gpt"}, 422, "model_not_found", "openai, anthropic, google_genai"),
        ({"model": "openai:"}, 422, "model_not_found", "openai, anthropic, google_genai"),
        ({"model": "openai:embedded", "load_in_8bit": True}, 422, "invalid_request", "load_in_8bit"),
        ({"model": "embedded", "base_url": "http://127.0.0.1:9"}, 422, "invalid_request", "base_url"),
        ({"model": "openai:x", "base_url": "http://me:secret@127.0.0.1:9"}, 422, "invalid_request", "base_url"),
        ({"model": "openai:x", "base_url": "ftp://127.0.0.1"}, 422, "invalid_request", "base_url"),
        ({"model": "openai:x", "base_url": "http://[1"}, 422, "invalid_request", "base_url"),
    ],
)
def test_a_load_that_fails_leaves_the_model_that_is_there(
    loaded: Server, body: dict[str, Any], status: int, code: str, said: str
) -> None:
    answer = load(loaded, **body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["type"] == code
    assert said in answer.json()["error"]["message"] and KEY not in answer.text
    shown = loaded.health()["model"]
    assert (shown["name"], shown["state"]) == ("openai:embedded", "ready")
