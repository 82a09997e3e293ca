"""The documents are true: their commands run, their answers are these, their tables have what the code has."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from constants import PREFIX, Settings
from server import sdk
from server.errors import HearthError
from tests.clients.scripts import HEAD, scripts
from tests.support.server_process import REPOSITORY, Server
from tests.support.websocket_client import address

DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "ARCHITECTURE.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
MOST_LINES = 150
"""Of README.md and of ARCHITECTURE.md."""
NOT_RUN = 18
"""Blocks that say why they aren't run: a token, a model to download or that writes code, a vendor's key, a
script that is a file, an endless stream, a backup, a file of questions."""
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
URLS = re.compile(r"(?:http://)?(?:localhost|gpubox):5001")
WEBSOCKET = "ws://gpubox:5002/ws"

MAKE = f"command make -n -C '{REPOSITORY}'"
NOTEBOOK = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in sys.argv[1:]:
    shell.run_cell(cell).raise_error()
"""

TOOLS = "docs/tools-and-agents.md"
CALLS = {
    "melting_point": ({"metal": "tin"}, "231.9"),
    "plate_value": ({"well": "B4"}, "B4: 0.42"),
    "reagent_stock": ({"reagent": "NaCl"}, "2 kg"),
    "papers_about": ({"subject": "enzymes"}, '["Sato 2020"]'),
    "count_primes": ({"below": 3000}, "430"),
    "tare": ({}, "done"),
    "count_of": ({"item": "NaCl"}, "0"),
}
"""Tools of that document, arguments for them, and what they give."""
CALLER = """
import json
from server.sdk import call_tool
from .agent import Agent, AgentResult

class Caller(Agent):
    name = "caller"

    def __call__(self, question, history=()):
        calls = json.loads(question).items()
        results = {name: call_tool(self.tools[name], given, self.tool_seconds) for name, given in calls}
        return AgentResult(json.dumps(results), None, [], {})
"""


@dataclass(frozen=True)
class Block:
    """A code block of a document. `reason`: why it isn't run, if it isn't. `shows_error`: the document shows an error
    as its answer."""

    document: Path
    line: int
    language: str
    text: str
    reason: str | None
    shows_error: bool

    def __str__(self) -> str:
        return f"{self.document.relative_to(REPOSITORY)}:{self.line}"


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text"))
        shows_error = text[found.end() :].lstrip().startswith('```json\n{"error":')
        yield Block(document, line, found["language"], found["text"], found["reason"], shows_error)


def table(document: str) -> list[list[str]]:
    """The cells of the rows of a document's tables, headings left out."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


class Reader:
    """Does what a reader does with the blocks of the documents, one after the other.

    `sh`: the commands are executed. `json`: what the last command has answered; `"..."` stands for any value, and
    `, ...` for more of them. `python`: a file where the first line names one, else a program whose lines with `print`
    say in a comment what they print. `ipython`: cells of one notebook. `make` only says what it would do.
    """

    def __init__(self, server: Server, code: Path, folder: Path) -> None:
        self._server = server
        self._code = code
        self._folder = folder
        self._environment = {
            **os.environ,
            "TOKEN": server.token,
            "PYTHONPATH": str(REPOSITORY / "notebooks"),
            "XDG_RUNTIME_DIR": str(server.runtime_file.parents[1]),
        }
        self._output = ""
        self._cells: list[str] = []

    def read(self, block: Block) -> None:
        """Raises `AssertionError` where the document is not true."""
        text = URLS.sub(self._server.url, block.text).replace(WEBSOCKET, address(self._server))
        if block.language == "ipython":
            self._cells.append(text)
            return
        if self._cells:
            self._run(block, [sys.executable, "-c", NOTEBOOK, *self._cells])
            self._cells = []
        file = re.match(r"# (server/\S+)\n", text)
        match block.language:
            case "sh":
                self._output = self._run(block, ["bash", "-euc", f'make() {{ {MAKE} "$@"; }}\n{text}'])
                self._fail_on_error(block)
            case "json":
                expected = json.loads(re.sub(r",\s*\.\.\.(?=[\]}])", "", text))
                self._check(block, self._answers()[-1], expected)
            case "python" if file:
                place = self._code / file[1]
                place.write_text(text, encoding="utf-8")
                for data in re.findall(r'joinpath\("(\S+)"\)', text):
                    place.with_name(data).write_text("NaCl,2 kg\n", encoding="utf-8")
            case "python":
                printed = self._run(block, [sys.executable, "-c", text]).splitlines()
                assert printed == re.findall(r"^print\(.*\)  # (.+)$", text, re.M), str(block)
            case other:
                assert other == "text", f"{block}: what is {other}?"

    def _run(self, block: Block, command: list[str]) -> str:
        ended = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, f"{block}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def _fail_on_error(self, block: Block) -> None:
        """Unless the document shows that the answer is an error."""
        failed = [line for line in self._output.splitlines() if re.match(r'{"error": ?{|event: error', line.strip())]
        assert not failed or block.shows_error, f"{block}: {self._output}"

    def _answers(self) -> list[Any]:
        """The JSON values that the last commands have printed."""
        found, rest, decoder = [], self._output.strip(), json.JSONDecoder()
        while rest:
            value, end = decoder.raw_decode(rest)
            found.append(value)
            rest = rest[end:].lstrip()
        return found

    def _check(self, block: Block, value: Any, expected: Any) -> None:
        if isinstance(expected, dict):
            assert isinstance(value, dict), f"{block}: {value}"
            for name, one in expected.items():
                assert name in value, f"{block}: no {name!r} in {value}"
                self._check(block, value[name], one)
        elif isinstance(expected, list):
            assert isinstance(value, list) and len(value) == len(expected), f"{block}: {value}"
            for one, other in zip(value, expected, strict=True):
                self._check(block, one, other)
        else:
            assert expected in ("...", value), f"{block}: {value!r} is not {expected!r}"


def check_tools(server: Server) -> None:
    """Call the tools of `main`, by an agent of a workspace over it."""
    body = {"workspace": "caller", "agent": "caller"}
    assert server.session.put("/workspaces/caller/files/agent/caller.py", data=CALLER).status_code == 201
    given = json.dumps({name: arguments for name, (arguments, _) in CALLS.items()})
    answer = server.session.post("/run_script", json={**body, "question": given}).json()
    assert json.loads(answer["answer"]) == {name: result for name, (_, result) in CALLS.items()}


def test_every_command_works_and_every_route_is_listed(
    start_server: Callable[..., Server], code_copy: Path, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    shutil.copytree(code_copy / "server", before, symlinks=True)
    server = start_server(code=code_copy, WS_PORT=0)
    not_run = []
    for document in DOCUMENTS:
        folder = tmp_path / document.relative_to(REPOSITORY).as_posix().replace("/", "-")
        folder.mkdir()
        reader = Reader(server, code_copy, folder)
        for block in blocks(document):
            if block.reason is None:
                reader.read(block)
            else:
                not_run.append(block)
        if document == REPOSITORY / TOOLS:
            check_tools(server)
        # One document's tools are not the next one's.
        for part in ("tools", "agent"):
            shutil.rmtree(code_copy / "server" / part)
            shutil.copytree(before / part, code_copy / "server" / part)
        assert server.session.post("/reload_modules").status_code == 200
    assert len(not_run) == NOT_RUN, [str(block) for block in not_run]

    described = server.session.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    routes = {re.sub(r"\{(\w+)\}", r"<\1>", route) for route in routes}
    routes |= {"GET /", "GET /openapi.json", "GET /hearth.py"}
    listed = [row[0].strip("`") for row in table("docs/http-api.md")[1:]]
    assert sorted(listed) == sorted(routes)


def test_every_setting_is_listed() -> None:
    rows = {row[0]: row[1:] for row in table("docs/settings.md")[1:]}
    assert {name: row[1] for name, row in rows.items()} == {
        f"`{PREFIX}{name}`": field.description for name, field in Settings.model_fields.items()
    }
    for name, field in Settings.model_fields.items():
        listed, default = rows[f"`{PREFIX}{name}`"][0], field.default
        if field.default_factory or default in (None, "") or isinstance(default, tuple):
            assert "`" not in listed, f"{name}: its default is described in words"
        else:
            shown = (
                str(default).lower()
                if isinstance(default, bool)
                else f"{default:g}"
                if isinstance(default, float)
                else default
            )
            assert listed == f"`{shown}`"


def test_every_error_is_listed() -> None:
    def codes(kind: type[HearthError]) -> set[tuple[str, str]]:
        return {(str(kind.status), kind.code)}.union(*(codes(one) for one in kind.__subclasses__()))

    text = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| (\d{3}) `(\w+)` \|", text, re.M)) == codes(HearthError)


def test_every_client_is_listed() -> None:
    """As `make test-clients` prints them."""
    head, *rows = table("docs/clients.md")
    assert head == HEAD
    assert rows == [script.row(True) for script in scripts()]


def test_every_name_of_the_sdk_is_listed() -> None:
    text = (REPOSITORY / TOOLS).read_text(encoding="utf-8")
    listed = {re.split(r"\W", cells[0].strip("`"))[0] for cells in table(TOOLS)}
    assert set(sdk.__all__) <= listed
    assert "`server.sdk`" in text


def anchors(document: Path) -> set[str]:
    """What GitHub calls the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, REPOSITORY / "benchmarks" / "RESULTS.md"], ids=lambda one: one.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            assert target.is_file(), f"{document.name} links to {link}"
            assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_these_are_short(name: str) -> None:
    assert len((REPOSITORY / name).read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_files_that_are_named_exist_and_every_folder_is_named() -> None:
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":
            continue  # it names what is gone
        made = {re.sub(r"^# ", "", block.text.splitlines()[0]) for block in blocks(document) if block.text}
        text = BLOCK.sub("", document.read_text(encoding="utf-8"))
        names = re.findall(r"`((?:server|tests|benchmarks|notebooks)/[\w/.]*\w)`", text)
        missing = [name for name in names if not (REPOSITORY / name).exists() and name not in made]
        assert missing == [], document.name
    architecture = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    packages = {file.parent.relative_to(REPOSITORY).as_posix() for file in REPOSITORY.glob("server/**/__init__.py")}
    assert [package for package in sorted(packages) if f"`{package}/`" not in architecture] == []
