"""Who may import whom, and what no module may be called."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RELOADABLE = ("server.model", "server.tools", "server.agent")

# Code that runs beside the server and reaches the agent as a person would: the embedded model's training.
NOT_IN_THE_SERVER = ("server.embedded",)

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
    if not is_within(module_of(file), RELOADABLE + NOT_IN_THE_SERVER)
]


@pytest.mark.parametrize("file", PERSISTENT, ids=module_of)
def test_persistent_code_never_imports_reloadable_code(file: Path) -> None:
    module = module_of(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    assert reloadable_imports(file.read_text(encoding="utf-8"), package) == []


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
    for folder in ("server", "tests", "benchmarks", "notebooks"):
        own += (ROOT / folder).rglob("*.py")
    names = {file: set(module_of(file).lower().replace("_", ".").split(".")) for file in own}
    assert [str(file) for file, words in names.items() if words & NO_SUBJECT] == []
