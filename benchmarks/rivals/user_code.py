"""The 20 files that somebody works on: a tool `shout`, a module `wording` that it imports, and 18 others."""

import os
import re
import shutil
from pathlib import Path

from tests.support.server_process import REPOSITORY

QUESTION = "Use shout on hello"
HELPERS = 18

HELPER = '''
"""Counts what texts consist of, kind {number}."""

from dataclasses import dataclass

LIMIT = {number}


@dataclass(frozen=True)
class Count{number}:
    """How often a word stands in a text."""

    word: str
    times: int


class Row{number}:
    """A text and its words."""

    def __init__(self, text: str) -> None:
        self.words = text.split()

    def counts(self) -> list[Count{number}]:
        """Its words, the most frequent first."""
        found = [Count{number}(word, self.words.count(word)) for word in sorted(set(self.words))]
        return sorted(found, key=lambda one: -one.times)


def fits_{number}(text: str, limit: int = 1000 + LIMIT) -> bool:
    """Has a text at most `limit` words?"""
    if limit < 0:
        raise ValueError("the limit is below nothing")
    return sum(one.times for one in Row{number}(text).counts()) <= limit
'''
WORDING = '''"""Which edit of the wording this is."""

# {padding}
EDIT = {edit}
'''
TOOL = '''"""Writes texts large."""

from langchain_core.tools import ToolException, tool

{imports}
from .wording import EDIT

# {padding}
CHECKS = [{checks}]
{halfway}

@tool
def shout(text: str) -> str:
    """Write a text in capital letters."""
    if not all(fits(text) for fits in CHECKS):
        raise ToolException("the text is too long")
    return f"{{text.upper()}} {edit} {{EDIT}}"{unclosed}
'''
UNCLOSED = ".removesuffix("
HALFWAY = '\nLOUDNESS = {"loud": 1}["silent"]\n'


def write_all(tools: Path) -> None:
    """Write the 20 files as edit 0 into the folder `tools`, with what makes it a package, and nothing else."""
    shutil.rmtree(tools, ignore_errors=True)
    tools.mkdir(parents=True)
    shutil.copy2(REPOSITORY / "server" / "tools" / "__init__.py", tools)
    for number in range(HELPERS):
        _save(tools / f"helper_{number}.py", HELPER.format(number=number))
    edit(tools, 0)


def edit(tools: Path, number: int, unclosed: bool = False, halfway: bool = False) -> None:
    """Save both files of edit `number`, `wording` first.

    With `unclosed` the tool has a syntax error, with `halfway` it raises a KeyError half-way through its import.
    """
    # Edits that follow each other differ in size: Python takes a module's bytecode for current where the second and
    # the size are the same, and people don't save twice a second as a benchmark does.
    padding = "-" * (number % 60 + 1)
    numbers = range(HELPERS)
    _save(tools / "wording.py", WORDING.format(edit=number, padding=padding))
    text = TOOL.format(
        edit=number,
        padding=padding,
        imports="\n".join(f"from .helper_{one} import fits_{one}" for one in numbers),
        checks=", ".join(f"fits_{one}" for one in numbers),
        halfway=HALFWAY if halfway else "",
        unclosed=UNCLOSED if unclosed else "",
    )
    _save(tools / "shout.py", text)


def read(observation: str) -> tuple[int, int]:
    """The numbers of the tool's edit and of the wording's that a result of `shout` names."""
    found = re.fullmatch(r"HELLO (\d+) (\d+)", observation)
    if found is None:
        raise ValueError(f"no result of shout: {observation!r}")
    return int(found[1]), int(found[2])


def _save(file: Path, text: str) -> None:
    """Save as most editors do, so that nobody reads half a file."""
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)
