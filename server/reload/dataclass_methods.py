"""The methods that `dataclasses` writes, compiled once for all generations.

It writes them as text and executes that for every class. A reload makes the classes of all files anew, nearly all as
they were before, and a third of its time would be spent on compiling the same texts.
"""

import dataclasses
from functools import lru_cache
from types import CodeType
from typing import Any


def compile_once() -> None:
    """From now on `dataclasses` compiles equal texts once. What it makes of them is the same."""
    vars(dataclasses)["exec"] = _execute  # before the builtin of that name


def _execute(text: str, namespace: dict[str, Any], own: dict[str, Any]) -> None:
    exec(_compiled(text), namespace, own)


@lru_cache(maxsize=2048)
def _compiled(text: str) -> CodeType:
    return compile(text, "<string>", "exec", dont_inherit=True)
