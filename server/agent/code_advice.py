"""What can be said of code before it runs: that it can't work in the sandbox. Advice for the model that wrote it, and
no protection: the sandbox is that."""

import ast
from collections.abc import Iterator, Sequence

NETWORK = frozenset(
    "aiohttp boto3 ftplib httpx imaplib paramiko poplib requests selenium smtplib socketserver telnetlib urllib3 "
    "websocket websockets".split()
)
"""Modules of the network, of which there is none."""
NETWORK_PARTS = {"urllib.request", "xmlrpc.client", "http.client", "http.server"}
SCREENS = frozenset("tkinter turtle pygame PyQt5 PyQt6 PySide6 curses".split())
"""Modules of a screen or a terminal."""
ASKS = {"input": "nobody is there to answer", "breakpoint": "there is no terminal"}


def advice(code: str, blocked: Sequence[str] = ()) -> str | None:
    """The first problem of `code`, with its line, as a sentence; None: there is none to be seen. `blocked`: modules
    that are not to be imported."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno}: it is not valid Python ({error.msg})."
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it is not valid Python ({error})."
    if not tree.body:
        return "there is no code in it."
    for node in ast.walk(tree):
        for problem in _problems(node, blocked):
            return f"line {getattr(node, 'lineno', 1)}: {problem}"
    return None


def _problems(node: ast.AST, blocked: Sequence[str]) -> Iterator[str]:
    for name in _imported(node):
        top = name.partition(".")[0]
        if any(name == one or name.startswith(f"{one}.") for one in blocked):
            yield f"{name} is not to be imported here."
        elif top in NETWORK or name in NETWORK_PARTS:
            yield f"{name} needs a network, and there is none."
        elif top in SCREENS:
            yield f"{name} needs a screen, and there is none."
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKS:
        yield f"{node.func.id}() can't work: {ASKS[node.func.id]}."


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
    return []
