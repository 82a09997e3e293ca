"""How reloadable code is named: inside the process, and to the people who wrote it.

A researcher knows `server.tools.calculator` in `server/tools/calculator.py`. Inside the process the same
module is called `hearth_3f2a91c04b7e_7.tools.calculator`, so that generations live side by side, and its code
says that it comes from `server/tools/calculator.py@90b1c2d3e4f5`. The twelve digits are the hash of the
file's bytes: such a name never means two texts, so a traceback always shows the lines that were executed.
"""

import hashlib
import itertools
import re

SERVER = "server"
RELOADABLE = ("agent", "model", "tools")  # the parts of `server` that a generation is made of

BEGINNING = "hearth_"
"""What the private names of modules begin with."""
_PACKAGE = re.compile(rf"{BEGINNING}[0-9a-f]{{12}}_\d+\b")
_FILENAME = re.compile(rf"({SERVER}/[^\n\"@]+\.py)@[0-9a-f]{{12}}")
_loads = itertools.count(1)


def new_package(generation: str) -> str:
    """A private package name for one load of a generation. The same content loaded twice gets two names."""
    return f"{BEGINNING}{generation}_{next(_loads)}"


def package_of(name: str) -> str | None:
    """The private package at the head of a module's name (or of a path entry); None for any other name."""
    if not name.startswith(BEGINNING):  # quicker: a reload asks about every module of the process
        return None
    found = _PACKAGE.match(name)
    return found.group() if found else None


def is_reloadable(value: object) -> bool:
    """Whether `value` is a class or a function of a generation, or an object of such a class."""
    own = getattr(value, "__module__", None) if callable(value) else None
    return any(isinstance(name, str) and package_of(name) for name in (own, type(value).__module__))


def executed_filename(path: str, data: bytes) -> str:
    """The name under which the code of a file is executed. `path` is relative to `server/`."""
    return f"{SERVER}/{path}@{hashlib.sha256(data).hexdigest()[:12]}"


def file_of(filename: str) -> str | None:
    """`server/tools/x.py` for a name made by `executed_filename`; None for any other name."""
    found = _FILENAME.fullmatch(filename)
    return found.group(1) if found else None


def readable(text: str) -> str:
    """`text` (a message, a traceback, a log line) with the names that the researcher knows."""
    return _FILENAME.sub(r"\1", _PACKAGE.sub(SERVER, text))
