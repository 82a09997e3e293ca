"""Models of a real server: one beside the other, chosen by name, unloaded, asleep."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
import requests
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.server_process import REPOSITORY, Server, end, start

QUESTION = {"question": "What is 37 * 52?"}
WINDOW = 2048
"""Tokens that the second model reads, half as many as the first: so they can be distinguished."""

# Says which model a tool is given, by the longest prompt that it reads.
ASKING = '''
from langchain_core.tools import tool

from server.sdk import PromptTooLongError


def build_tool(llm):
    @tool
    def calculator(expression: str) -> str:
        """Work out an arithmetic expression."""
        try:
            return llm.invoke("why? " * 5_000).text
        except PromptTooLongError as error:
            return str(error.details["limit"])

    return calculator
'''
WAITING = '''
import pathlib
import time

from langchain_core.tools import tool


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    pathlib.Path("begun").touch()
    while not pathlib.Path("go_on").exists():
        time.sleep(0.01)
    return "1924"
'''


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with another model: the embedded one, with a shorter window."""
    folder = tmp_path_factory.mktemp("models") / "second"
    shutil.copytree(REPOSITORY / "server" / "embedded" / "weights", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": WINDOW}))
    return str(folder)


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory, second: str) -> str:
    """A folder with a model that has no place in any machine."""
    folder = tmp_path_factory.mktemp("models") / "huge"
    shutil.copytree(second, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"hidden_size": 2**16, "intermediate_size": 2**18, "num_hidden_layers": 50})
    )
    return str(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, second: str) -> str:
    """A folder with a model of more than 100 MB, with random weights."""
    folder = tmp_path_factory.mktemp("models") / "large"
    shutil.copytree(second, folder)
    config = AutoConfig.from_pretrained(second, hidden_size=1024, intermediate_size=4096, num_hidden_layers=2)
    AutoModelForCausalLM.from_config(config, dtype="float32").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("models") / "server", REPOSITORY, {})
    try:
        server.wait_until_ready()
        for workspace, code in (("asking", ASKING), ("waiting", WAITING)):
            url = f"/workspaces/{workspace}/files/tools/calculator.py"
            server.session.put(url, data=code.encode()).raise_for_status()
        yield server
    finally:
        end(server)


@pytest.fixture
def shared(running: Server) -> Iterator[Server]:
    """A server whose only model, before and after each test, is the embedded one."""
    yield running
    for name in names(running):
        if name != "embedded":
            running.session.post("/unload_model", json={"model": name}).raise_for_status()


@pytest.fixture
def both(shared: Server, second: str) -> Server:
    """The same with a second model beside the first."""
    answer = shared.session.post("/load_model", json={"model": second, "replace": False})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["model"]["name"], answer.json()["model"]["state"]) == (second, "ready")
    return shared


def names(server: Server) -> list[str]:
    return [model["name"] for model in server.health()["models"]]


def ask(server: Server, **body: Any) -> dict[str, Any]:
    answer = server.session.post("/run_script", json={**QUESTION, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def error_of(answer: requests.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_a_question_chooses_its_model(both: Server, second: str) -> None:
    health = both.health()
    assert health["model"] == health["models"][0]
    assert [(model["name"], model["state"]) for model in health["models"]] == [
        ("embedded", "ready"),
        (second, "ready"),
    ]
    for name in ("embedded", second):
        answer = ask(both, model=name)
        assert (answer["answer"], answer["model"]) == ("1924", name)
        assert answer["provenance"]["model"]["name"] == name
    assert ask(both)["model"] == "embedded"
    error = error_of(both.session.post("/run_script", json={**QUESTION, "model": "third"}), 404)
    assert error["type"] == "model_not_resident"
    assert "'third'" in error["message"] and "embedded" in error["message"] and second in error["message"]


def test_a_tool_asks_the_model_that_its_run_uses(both: Server, second: str) -> None:
    for body, window in (({}, 4096), ({"model": second}, WINDOW), ({"model": "embedded"}, 4096)):
        answer = ask(both, workspace="asking", max_steps=1, **body)
        assert window - 512 <= int(answer["steps"][0]["observation"]) <= window


def test_a_replay_finds_its_model(both: Server, second: str) -> None:
    runs = {name: ask(both, model=name)["run_id"] for name in ("embedded", second)}
    for name, run in runs.items():
        again = both.session.post(f"/runs/{run}/replay").json()
        assert (again["model"], again["same_answer"]) == (name, True)
    both.session.post("/unload_model", json={"model": second}).raise_for_status()
    error = error_of(both.session.post(f"/runs/{runs[second]}/replay"), 409)
    assert error["type"] == "model_changed" and second in error["message"]
    assert both.session.post(f"/runs/{runs['embedded']}/replay").status_code == 200


def test_a_model_is_unloaded_by_name(both: Server, second: str) -> None:
    left = both.session.post("/unload_model", json={"model": second}).json()
    assert left["model"] == left["models"][0] == both.health()["model"]
    assert [model["name"] for model in left["models"]] == ["embedded"]
    error = error_of(both.session.post("/run_script", json={**QUESTION, "model": second}), 404)
    assert error["type"] == "model_not_resident"
    assert ask(both)["model"] == "embedded"


def test_the_memory_of_an_unloaded_model_is_given_back(shared: Server, large: str) -> None:
    process = psutil.Process(shared.process.pid)
    for turn in range(2):
        before = process.memory_info().rss
        loaded = shared.session.post("/load_model", json={"model": large, "replace": False}).json()["model"]
        assert loaded["memory_bytes"] > 100e6
        resident = process.memory_info().rss
        shared.session.post("/unload_model", json={"model": large}).raise_for_status()
        after = process.memory_info().rss
        assert resident - after > 0.8 * loaded["memory_bytes"]
        # The first time the process itself grows somewhat.
        assert after - before < (0.4 if turn == 0 else 0.2) * loaded["memory_bytes"]


def test_a_name_stands_for_one_model(shared: Server) -> None:
    body: dict[str, Any] = {"model": "embedded", "dtype": "bfloat16", "replace": False}
    error = error_of(shared.session.post("/load_model", json=body), 409)
    assert error["type"] == "model_name_taken" and "/unload_model" in error["message"]
    same = shared.session.post("/load_model", json={"model": "embedded", "replace": False})
    assert same.json()["model"] == shared.health()["model"]


def test_a_second_model_without_a_place_leaves_the_first_untouched(shared: Server, huge: str) -> None:
    before = shared.health()["model"]
    error = error_of(shared.session.post("/load_model", json={"model": huge, "replace": False}), 503)
    assert error["type"] == "out_of_memory"
    assert error["needed_bytes"] > error["free_bytes"] > 0
    assert shared.health()["model"] == before
    assert names(shared) == ["embedded"]
    assert ask(shared)["answer"] == "1924"


def test_sleeping_and_waking(both: Server, second: str) -> None:
    folder = both.output_file.parent
    ask(both, model=second)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(ask, both, workspace="waiting", model=second)
        both.wait_until((folder / "begun").exists, "the tool")
        assert both.health()["runs"] == {"running": 1, "queued": 0}
        sleeping = pool.submit(both.session.post, "/sleep")
        both.wait_until(lambda: both.health()["model"]["state"] == "asleep", "the sleep")
        for body in ({}, {"model": second}):
            error = error_of(both.session.post("/run_script", json={**QUESTION, **body}), 409)
            assert error["type"] == "model_asleep" and "/wake" in error["message"]
        assert not sleeping.done()
        (folder / "go_on").touch()
        assert running.result()["answer"] == "1924"
    slept = sleeping.result().json()
    assert [model["state"] for model in slept["models"]] == ["asleep", "asleep"]
    assert [given["model"] for given in slept["given_back"]] == ["embedded", second]
    assert all(given["kv_bytes"] > 0 and given["weights_bytes"] == 0 for given in slept["given_back"])
    assert both.health()["kv_bytes"] == 0
    assert error_of(both.session.post("/load_tools"), 409)["type"] == "model_asleep"
    assert both.session.post("/reload_modules").status_code == 200
    awake = both.session.post("/wake").json()
    assert [model["state"] for model in awake["models"]] == ["ready", "ready"]
    assert ask(both, model=second)["answer"] == ask(both)["answer"] == "1924"
    assert both.health()["kv_bytes"] > 0


def test_weights_in_8_bit_by_torchao(start_server: Callable[..., Server]) -> None:
    server = start_server(QUANTIZER="torchao")
    plain = server.health()["model"]
    assert plain["quantization"] == "none"
    loaded = server.session.post("/load_model", json={"load_in_8bit": True}).json()["model"]
    assert loaded["quantization"] == "int8"
    assert loaded["memory_bytes"] < 0.4 * plain["memory_bytes"]
    answer = ask(server)
    assert (answer["answer"], answer["provenance"]["model"]["quantization"]) == ("1924", "int8")
    assert "torchao" not in server.output and "Enum" not in server.output
