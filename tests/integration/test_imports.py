"""Who may import whom, and what no module may be called."""

import ast
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server_process import Server

ROOT = Path(__file__).parents[2]

RELOADABLE = ("server.model", "server.tools", "server.agent")

# What makes the embedded model. The server only needs its weights.
TRAINING = ("training",)

# What people's code may import, and the folders that may not import more of the server's themselves.
FOR_PEOPLE = ("server.sdk",)
PEOPLES = ("server.tools", "server.agent")

NO_SUBJECT = {"util", "utils", "helper", "helpers", "manager", "managers"}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imported(source: str, package: str) -> Iterator[str]:
    """Every module that `source` imports anywhere, as a full name; `package` is what its dots start from."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parents = package.split(".")[: len(package.split(".")) + 1 - level] if level else []
                base = ".".join([*parents, *([module] if module else [])])
                yield base
                yield from (f"{base}.{name.name}" for name in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def reloadable_imports(source: str, package: str) -> list[str]:
    return [name for name in imported(source, package) if is_within(name, RELOADABLE)]


PERSISTENT = [
    file
    for file in [ROOT / "app.py", ROOT / "constants.py", *sorted((ROOT / "server").rglob("*.py"))]
    if not is_within(module_of(file), RELOADABLE)
]


@pytest.mark.parametrize("file", PERSISTENT, ids=module_of)
def test_persistent_code_never_imports_reloadable_code(file: Path) -> None:
    module = module_of(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    assert reloadable_imports(file.read_text(encoding="utf-8"), package) == []


SERVER = [
    *(ROOT / name for name in ("app.py", "constants.py", "notebooks/hearth.py")),
    *sorted((ROOT / "server").rglob("*.py")),
]


@pytest.mark.parametrize("file", SERVER, ids=module_of)
def test_the_server_never_imports_training(file: Path) -> None:
    module = module_of(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names = imported(file.read_text(encoding="utf-8"), package)
    assert [name for name in names if is_within(name, TRAINING)] == []


@pytest.mark.parametrize(
    "file",
    sorted(file for part in ("agent", "tools") for file in (ROOT / "server" / part).rglob("*.py")),
    ids=module_of,
)
def test_tools_and_agents_import_only_the_sdk_of_the_servers(file: Path) -> None:
    module = module_of(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    others = [
        name
        for name in imported(file.read_text(encoding="utf-8"), package)
        if is_within(name, ("server",)) and not is_within(name, (*FOR_PEOPLE, *PEOPLES))
    ]
    assert others == []


LISTS_MODULES = """
import json, os, signal, sys

def write(*_):
    found = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    with open(OUT + ".draft", "w") as file:
        json.dump(found, file)
    os.rename(OUT + ".draft", OUT)

signal.signal(signal.SIGUSR1, write)
"""


def test_a_running_server_has_loaded_none_of_peoples_code_but_the_recipe_of_the_model(
    start_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "modules.json"
    (tmp_path / "sitecustomize.py").write_text(f"OUT = {str(listed)!r}\n{LISTS_MODULES}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = start_server()
    for workspace in ("main", "alice"):
        own = "/workspaces/alice/files/tools/extra.py"
        assert server.session.put(own, data=b"import zipapp\nX = 1").ok
        question = {"question": "What is 37 * 52?", "workspace": workspace, "session_id": workspace}
        answer = server.session.post("/run_script", json=question)
        assert answer.status_code == 200, answer.text
        assert server.session.post("/reload_modules", json={"workspace": workspace}).ok
    server.process.send_signal(signal.SIGUSR1)
    server.wait_until(listed.exists, "the list of modules")
    modules = json.loads(listed.read_text())
    assert "server.host" in modules and "guidance" in modules
    assert "zipapp" not in modules
    assert [name for name in modules if is_within(name, PEOPLES + TRAINING)] == []
    data = server.runtime_file.parents[2] / "data"
    assert data.is_dir()
    loaded = [file for file in modules.values() if file is not None and Path(file).is_relative_to(data)]
    assert [Path(file).name for file in loaded] == ["model.py"]


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import server.tools", "server"),
        ("import server.tools.calculator as c", "server"),
        ("from server import agent", "server.http"),
        ("from server.agent.prompts import PROMPT", "server.http"),
        ("from . import model", "server"),
        ("from .model import load_model", "server"),
        ("from .. import tools", "server.http"),
        ("from ..agent import prompts", "server.runs"),
        ("def late():\n    from server.model import load_model", "server"),
        ("if TYPE_CHECKING:\n    from server.tools import load_tools", "server"),
        ("importlib.import_module('server.tools')", "server"),
        ("__import__('server.agent')", "server"),
    ],
)
def test_each_way_to_import_reloadable_code_is_seen(source: str, package: str) -> None:
    assert reloadable_imports(source, package) != []


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import server.errors, torch", "server"),
        ("from .modelling import x", "server"),
        ("from . import tools", "server.http"),
        ("from .model import x", "server.http"),
        ("from langchain_core.tools import BaseTool", "server.reload"),
        ("print('import server.tools')", "server"),
    ],
)
def test_other_imports_are_not_taken_for_it(source: str, package: str) -> None:
    assert reloadable_imports(source, package) == []


def test_every_module_is_called_after_its_subject() -> None:
    own = [*ROOT.glob("*.py")]
    for folder in ("server", "training", "tests", "benchmarks", "notebooks"):
        own += (ROOT / folder).rglob("*.py")
    names = {file: set(module_of(file).lower().replace("_", ".").split(".")) for file in own}
    assert [str(file) for file, words in names.items() if words & NO_SUBJECT] == []
