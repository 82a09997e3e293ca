"""The notebooks run from top to bottom against a real server."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.server_process import REPOSITORY, Server


def printed(cell: Any) -> str:
    """What a cell shows below itself."""
    return "".join(out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in cell["outputs"])


def test_quickstart(
    start_server: Callable[..., Server], code_copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = start_server(code=code_copy)
    notebooks = code_copy / "notebooks"
    notebooks.mkdir()
    shutil.copy2(REPOSITORY / "notebooks" / "quickstart.ipynb", notebooks)
    tool = code_copy / "server" / "tools" / "calculator.py"
    before = tool.read_text()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.runtime_file.parent.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(notebooks / "quickstart.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(notebooks)}}).execute()

    asked = [printed(cell) for cell in notebook.cells if cell["source"].endswith('ask("What is 37 * 52?")')]
    assert asked[0].splitlines()[0] == "calculator({'expression': '37 * 52'}) gave 1924"
    assert asked[0].splitlines()[-1] == "'1924'"
    assert "gave 37 * 52 = 1924" in asked[1]
    assert "server/tools/calculator.py" in asked[2] and "SyntaxError" in asked[2]
    assert "gave 37 * 52 = 1924" in asked[2]
    assert asked[3] == asked[0]
    assert tool.read_text() == before


def test_notebooks_are_kept_without_their_outputs() -> None:
    for file in (REPOSITORY / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(file, as_version=4).cells:  # type: ignore[no-untyped-call]
            assert not cell.get("outputs"), f"{file.name} holds outputs"
