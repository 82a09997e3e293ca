"""Records the picture of README.md: a session in a notebook, with a real server, as an SVG.

`make picture` writes `first-session.svg` beside this file. The output of the cells is complete; only its lines are
wrapped. The picture needs no other file and no font of its own, and has a light and a dark style.
"""

import os
import re
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import nbformat
from nbclient import NotebookClient

from tests.support.server_process import REPOSITORY, Server, end, start

PICTURE = Path(__file__).with_name("first-session.svg")
CELL_SECONDS = 120
ASK = "%ask What is the temperature of freezer F7?"


@dataclass(frozen=True)
class Panel:
    """A part of the session: `cells` are executed one after the other."""

    title: str
    cells: tuple[str, ...]


SESSION = (
    Panel(
        "A function becomes a tool",
        (
            "%load_ext hearth\n%hearth --workspace alice",
            '%%tool\ndef freezer_temperature(freezer: str) -> str:\n    """Tell the temperature of a freezer."""\n'
            '    return "-81 °C"',
            ASK,
        ),
    ),
    Panel(
        "Edit it, ask again: the model stays loaded",
        (
            '%%tool\ndef freezer_temperature(freezer: str) -> str:\n    """Tell the temperature of a freezer."""\n'
            '    return f"{freezer}: -80.6 °C"',
            ASK,
        ),
    ),
    Panel(
        "Broken code is refused, old code answers",
        (
            "%%tool\nimport freezer_sensors\n\ndef freezer_temperature(freezer: str) -> str:\n"
            '    """Tell the temperature of a freezer."""\n    return freezer_sensors.read(freezer)',
            ASK,
        ),
    ),
    Panel(
        "A crash ends one run, and nothing else",
        (
            "%%tool\nimport ctypes\n\ndef freezer_temperature(freezer: str) -> str:\n"
            '    """Tell the temperature of a freezer."""\n    return str(ctypes.string_at(0))',
            ASK,
            "%ask What is 37 * 52?",
        ),
    ),
)


@dataclass(frozen=True)
class Recorded:
    """A cell and the text that was shown below it."""

    source: str
    output: str
    failed: bool


def record(server: Server, folder: Path) -> list[list[Recorded]]:
    """Run the session in a kernel whose working folder is `folder`. Returns the cells of each panel."""
    cells = [nbformat.v4.new_code_cell(cell) for panel in SESSION for cell in panel.cells]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY / "notebooks"),
            "XDG_RUNTIME_DIR": str(server.runtime_file.parents[1]),
            "IPYTHONDIR": str(folder / "ipython"),
        }
    )
    recorded = iter([_recorded(cell) for cell in notebook.cells])
    return [[next(recorded) for _ in panel.cells] for panel in SESSION]


def _recorded(cell: Any) -> Recorded:
    failed = any(one["output_type"] == "error" for one in cell["outputs"])
    texts = [
        "\n".join(one["traceback"]) if one["output_type"] == "error" else one.get("text") or one["data"]["text/plain"]
        for one in cell["outputs"]
    ]
    return Recorded(cell["source"], re.sub(r"\x1b\[[\d;]*m", "", "".join(texts)), failed)


# Drawing, in pixels


COLUMNS = 56
"""The longest line of a panel, in characters."""
CHARACTER, LINE = 7.2, 17.0
PAD, GAP, TITLE = 10.0, 24.0, 30.0
WIDTH = COLUMNS * CHARACTER + 2 * PAD
STYLE = """
svg { --page: #ffffff; --cell: #f3f5f7; --edge: #d0d7de; --text: #1f2328; --title: #0550ae; --error: #b3261e; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --cell: #1b222b; --edge: #3d444d; --text: #e6edf3; --title: #79c0ff; --error: #ff9492; }
}
.page { fill: var(--page); }
.cell { fill: var(--cell); stroke: var(--edge); }
text { fill: var(--text); font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }
.title { fill: var(--title); font: bold 14px system-ui, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
.answer { font-weight: bold; }
.error { fill: var(--error); }
"""


def draw(recorded: list[list[Recorded]]) -> str:
    """The SVG of the panels, two in a row."""
    panels = [_panel(number, *one) for number, one in enumerate(zip(SESSION, recorded, strict=True), 1)]
    body, top = "", GAP
    for left, right in zip(panels[::2], panels[1::2], strict=True):
        body += f'<g transform="translate({GAP:g} {top:g})">\n{left[0]}</g>\n'
        body += f'<g transform="translate({2 * GAP + WIDTH:g} {top:g})">\n{right[0]}</g>\n'
        top += max(left[1], right[1]) + GAP
    width = 3 * GAP + 2 * WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" width="{width:g}" '
        f'height="{top:g}">\n<style>{STYLE}</style>\n<rect class="page" width="100%" height="100%" rx="8"/>\n'
        f"{body}</svg>\n"
    )


def _panel(number: int, panel: Panel, cells: list[Recorded]) -> tuple[str, float]:
    """The elements of a panel, and its height."""
    drawn, top = f'<text class="title" y="14">{number}. {escape(panel.title)}</text>\n', TITLE
    for cell in cells:
        lines = cell.source.splitlines()
        height = len(lines) * LINE + PAD
        drawn += f'<rect class="cell" y="{top:g}" width="{WIDTH:g}" height="{height:g}" rx="4"/>\n'
        drawn += _lines(lines, top + PAD / 2, "code")
        top += height + PAD / 2
        shown = [part for line in cell.output.splitlines() for part in _wrapped(line)]
        drawn += _lines(shown, top, "error" if cell.failed else "output")
        top += len(shown) * LINE + PAD * (1.5 if shown else 0.5)
    return drawn, top


def _lines(lines: list[str], top: float, kind: str) -> str:
    # With a length, since the reader's font may be wider than ours.
    return "".join(
        f'<text class="{"answer" if line.startswith("Answer: ") else kind}" x="{PAD:g}" '
        f'y="{top + (number + 0.75) * LINE:g}" '
        f'textLength="{len(line) * CHARACTER:g}" lengthAdjust="spacingAndGlyphs">{escape(line)}</text>\n'
        for number, line in enumerate(lines)
        if line.strip()
    )


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, COLUMNS, subsequent_indent="  ", break_on_hyphens=False) or [""]


def words(svg: str) -> list[str]:
    """The words of a picture, without what differs in each recording: hashes, times and ports."""
    texts = (one.text or "" for one in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))
    text = " ".join(texts)
    for pattern in (r"\b[0-9a-f]{12}\b", r"\b\d+\.\d(?= s\b)", r"(?<=127\.0\.0\.1:)\d+"):
        text = re.sub(pattern, "...", text)
    return text.split()


def main() -> None:
    """Record the session, and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder) / "server", REPOSITORY, {"PORT": 5001})
        try:
            server.wait_until_ready()
            PICTURE.write_text(draw(record(server, Path(folder))), encoding="utf-8")
        finally:
            end(server)


if __name__ == "__main__":
    main()
