"""The scripts of clients: what their heads say, and the versions that are pinned."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
ENVIRONMENTS = {"python": ".venv-clients", "python_openai_2": ".venv-clients-openai-2"}
"""The virtual environments of the folders with scripts in Python."""
HEAD = ["client", "version", "what was done", "works"]


@dataclass(frozen=True)
class Script:
    """A script, and what its head says. `remark`: what users have to know; may be empty."""

    path: Path
    client: str
    version: str
    done: str
    remark: str

    @property
    def command(self) -> list[str]:
        """What runs it."""
        if self.path.suffix == ".mjs":
            return ["node", str(self.path)]
        return [str(REPOSITORY / ENVIRONMENTS[self.path.parent.name] / "bin" / "python"), str(self.path)]

    def row(self, works: bool) -> list[str]:
        """Its line of the table."""
        return [self.client, self.version, self.done, " ".join(["yes." if works else "no.", self.remark]).strip(" .")]


def scripts() -> Iterator[Script]:
    """All of them. Raises `ValueError` for a script whose head names no package that its folder pins."""
    paths = [*FOLDER.glob("*/with_*.py"), *FOLDER.glob("node/*.mjs")]
    for path in sorted(paths, key=lambda one: one.stem.removeprefix("with_")):
        head, _, remark = _head(path).partition("\n\n")
        client, _, done = " ".join(head.split()).partition(": ")
        version = _pins(path.parent).get(client.split(" ")[0])
        if version is None:
            raise ValueError(f"{path} names {client!r} in its first line: {path.parent.name} pins no such package.")
        yield Script(path, client, version, done.rstrip("."), " ".join(remark.split()))


def _head(path: Path) -> str:
    """The docstring, or the comment at the top."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    lines = text[: text.index("\nimport ")].strip().splitlines()
    return "\n".join(line.removeprefix("//").strip() for line in lines)


def _pins(folder: Path) -> dict[str, str]:
    """The versions of the packages of a folder."""
    package = folder / "package.json"
    if package.exists():
        pinned: dict[str, str] = json.loads(package.read_text(encoding="utf-8"))["dependencies"]
        return pinned
    text = (folder / "requirements.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)", text, re.M))
