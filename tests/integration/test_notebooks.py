"""The notebooks run from top to bottom against a real server."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.server_process import REPOSITORY, Server, end, start

NOTEBOOKS = REPOSITORY / "notebooks"
Run = Callable[[str], list[tuple[str, str, list[Any]]]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose workspaces the notebooks may do with as they like."""
    made = start(tmp_path_factory.mktemp("notebooks") / "server", REPOSITORY, {})
    try:
        made.wait_until_ready()
        yield made
    finally:
        end(made)


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`run("quickstart")` runs a notebook, and gives each code cell's source, the text below it, and its outputs."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.runtime_file.parent.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))

    def execute(name: str) -> list[tuple[str, str, list[Any]]]:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
        code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
        return [(cell["source"], shown(cell), cell["outputs"]) for cell in code]

    return execute


def shown(cell: Any) -> str:
    """What stands below a cell, as text, without colours."""
    texts = (
        out.get("text") or "\n".join(out.get("traceback", [])) or out.get("data", {}).get("text/plain", "")
        for out in cell["outputs"]
    )
    return re.sub(r"\x1b\[[\d;]*m", "", "".join(texts))


def test_quickstart(run: Run) -> None:
    cells = run("quickstart")
    asked = [text for source, text, _ in cells if source == "%ask What is 37 * 52?"]
    assert "Observation: 1924\nAnswer: 1924\n" in asked[0] and "(main," in asked[0]
    assert "Observation: 37 * 52 = 1924\n" in asked[1] and "(quickstart," in asked[1]
    assert asked[2].splitlines()[:-1] == asked[1].splitlines()[:-1]
    [broken] = [text for source, text, _ in cells if source.endswith("calculater")]
    assert "-> 6 | calculater\nNameError" in broken and "was restored" in broken
    assert "live" in cells[-1][1]


def test_tools_live(run: Run) -> None:
    cells = run("tools_live")
    texts = {source: text for source, text, _ in cells}
    assert "shout(text)" in texts["lab.tools()"]
    assert texts["lab.files()"].split()[2::2] == ["tools/shout.py", "tools/texts.py"]
    [broken] = [text for source, text, _ in cells if "import regexes" in source]
    assert "-> 2 | import regexes\n" in broken and "ModuleNotFoundError" in broken
    out_of_order, repaired = (text for source, text, _ in cells if source == "%ask What is 37 * 52?")
    assert "The calculator is out of order." in out_of_order
    assert "Answer: 1924" in repaired


def test_jobs(run: Run) -> None:
    cells = run("jobs")
    [results] = [text for source, text, _ in cells if source.startswith("lab.cancel_job")]
    assert "37 %" in results and "74 %" in results and "11 %" in results
    last = next(text for source, text, _ in cells if source == "%jobs")
    assert last.count("succeeded") == 3 and last.count("cancelled") == 1
    [failed] = [text for source, text, _ in cells if source.startswith("failed")]
    assert "failed tool_failed: ValueError" in failed and "simulated 1" in failed
    assert "1924" in cells[-1][1]


def test_sandbox(run: Run) -> None:
    cells = run("sandbox")
    texts = {source: text for source, text, _ in cells}
    [described] = [text for source, text in texts.items() if "lab.analyse" in source]
    assert "read_csv" in described and "decimal=','" in described.replace('"', "'")
    [drawn] = [outputs[0]["data"]["text/html"] for source, _, outputs in cells if "plot.bar" in source]
    assert "&#x27;South&#x27;" in drawn and '<img src="data:image/png;base64,iVBOR' in drawn
    [ended] = [text for source, text in texts.items() if "os.abort" in source]
    assert "The interpreter was ended" in ended
    last = cells[-1][2][0]["data"]["text/html"]
    assert "<th>growth</th>" in last and "<td>0.48</td>" in last


def test_documents(run: Run) -> None:
    texts = {source: text for source, text, _ in run("documents")}
    assert "cooling.md" in texts["%docs search XR-450 --collection notebook"]
    assert texts['lab.wait_for_documents("notebook")'].count("ready") == 2
    [found] = [text for source, text in texts.items() if "how to bake" in source]
    assert "'bread.md'" in found and "'vectors': 1" in found
    [changed] = [text for source, text in texts.items() if "12 micrometres" in source]
    assert changed.strip() == "['The warpage is 12 micrometres now.']"


def test_compare_generations(run: Run) -> None:
    cells = run("compare_generations")
    [differ] = [text for source, text, _ in cells if "lab.diff" in source]
    assert '+    return f"{simple_eval(expression):.4f}"' in differ
    [compared] = [text for source, text, _ in cells if "lab.compare" in source]
    assert "done, 5 of 5 answered, 5 changed" in compared and "p = 0.0625" in compared
    [table] = [text for source, text, _ in cells if source.startswith("compared.rows")]
    assert re.search(r"What is 355 / 113\? +3\.1416 +3\.1 +3\.1416 +False +True$", table, re.MULTILINE)
    [plot] = cells[-1][2]
    assert len(plot["data"]["image/png"]) > 1000


def test_notebooks_are_kept_without_their_outputs() -> None:
    for file in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(file, as_version=4).cells:
            assert not cell.get("outputs"), f"{file.name} holds outputs"
            assert not cell.get("execution_count"), f"{file.name} was run"
