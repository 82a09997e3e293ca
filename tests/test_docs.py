"""What the documents say is so: commands run, the example works, settings and files are those that there are."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constants import PREFIX, Settings
from server.errors import HearthError
from tests.server_process import REPOSITORY, Server

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The contents of the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_its_session_works(start_server: Callable[..., Server], code_copy: Path) -> None:
    server = start_server(code=code_copy)

    def run(command: str) -> Any:
        ended = subprocess.run(
            [
                "bash",
                "-euc",
                command.replace("http://localhost:5001", server.url).replace("localhost:5001", server.url),
            ],
            env={**os.environ, "TOKEN": server.token},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return json.loads(ended.stdout)

    def run_python(code: str) -> str:
        environment = {**os.environ, "TOKEN": server.token}
        ended = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        return ended.stdout.strip()

    curls = [
        one for block in blocks("sh") for one in re.findall(r"^curl.*?(?:<<'END'\n.*?^END$|$)", block, re.M | re.S)
    ]
    curls = [one for one in curls if "/hearth.py" not in one]  # what that is for, test_client.py tries
    asked, reloaded, chatted, put, overlaid, shouted, history, planned, said, session, notepad = map(run, curls)
    example = json.loads(blocks("json")[0].replace(", ...}", "}"))
    assert {name: asked[name] for name in ("answer", "function", "model", "steps")} == {
        name: example[name] for name in ("answer", "function", "model", "steps")
    }
    assert reloaded["changed"] == []
    assert chatted["choices"][0]["message"]["content"] == "1924"
    assert (put["workspace"], put["path"]) == ("alice", "tools/shout.py")
    assert overlaid["tools"]["added"].count("shout") == 1
    assert shouted["answer"] == "HELLO"
    assert planned["answer"] == "1924; Wednesday"
    assert session["messages"][1] | {"run_id": said["run_id"]} == session["messages"][1]
    assert notepad["entries"][0]["found"] == said["answer"] == "1924"
    assert history["live"] == shouted["generation"] == history["generations"][0]["generation"]

    [tool, with_openai, _] = blocks("python")
    [printed] = re.findall(r"^print.*# (.+)$", with_openai, re.MULTILINE)
    assert run_python(with_openai.replace("http://localhost:5001", server.url)) == printed
    (code_copy / "server" / "tools" / "freezer_temperature.py").write_text(tool)
    assert run(curls[1])["tools"]["added"] == ["freezer_temperature"]
    [question] = re.findall(r"Reload, and ask `(.+)`", README)
    assert server.session.post("/run_script", json={"question": question}).json()["answer"] == "-81 °C"


def test_its_table_has_every_setting() -> None:
    rows = dict(re.findall(rf"^\| `{PREFIX}(\w+)` \| [^|]+ \| (.+) \|$", README, re.MULTILINE))
    assert rows == {name: field.description for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize("target", re.findall(r"\bmake (run|test|lint|bench|eval-embedded|train)\b", README))
def test_its_make_targets_are_there(target: str) -> None:
    subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, timeout=60, check=True)


def test_it_names_errors_that_there_are() -> None:
    def codes(kind: type[HearthError]) -> set[tuple[str, str]]:
        return {(str(kind.status), kind.code)}.union(*(codes(one) for one in kind.__subclasses__()))

    named = set(re.findall(r"^\| (\d{3}) `(\w+)` \|", README, re.MULTILINE))
    assert len(named) > 5
    assert named <= codes(HearthError)


def test_the_architecture_names_every_file() -> None:
    [tree] = re.findall(
        r"^```\n(app\.py.*?)^```", (REPOSITORY / "ARCHITECTURE.md").read_text(), re.MULTILINE | re.DOTALL
    )
    named = set(re.findall(r"[\w/]+\.py\b|\w+/", tree))
    persistent = [file for file in (REPOSITORY / "server").rglob("*.py") if "embedded" not in file.parts]
    for file in persistent:
        if file.name != "__init__.py" and "tools" not in file.parent.parts:
            assert file.name in named, f"ARCHITECTURE.md does not name {file.relative_to(REPOSITORY)}"
    there = {file.name for file in REPOSITORY.rglob("*.py") if ".venv" not in file.parts}
    assert {name for name in named if name.endswith(".py")} <= there
