"""From an edit to an answer by the new code: with a reload, and with a restart of the same server."""

import time
from pathlib import Path

from tests.support.server_process import Server, copy_code, end, start

QUESTION = {"question": "What is 37 * 52?"}


def measure(folder: Path, reloads: int, restarts: int) -> dict[str, list[float]]:
    """Seconds from saving a tool to the answer that comes of it, and, for reloads, how much of it was the reload."""
    code = copy_code(folder)
    tool = code / "server" / "tools" / "calculator.py"
    text = tool.read_text()
    by_reload, reload_alone, by_restart = [], [], []

    def edit(number: int) -> None:
        tool.write_text(text.replace("return _written(", f'return "{number}: " + _written('))

    def check(server: Server, number: int) -> None:
        answer = server.session.post("/run_script", json=QUESTION).json()
        assert answer["steps"][0]["observation"] == f"{number}: 1924", answer

    server = start(folder / "reloads", code, {})
    try:
        server.wait_until_ready()
        for number in range(-3, reloads):  # the first three warm up
            began = time.perf_counter()
            edit(number)
            server.session.post("/reload_modules").raise_for_status()
            reloaded = time.perf_counter()
            check(server, number)
            if number >= 0:
                by_reload.append(time.perf_counter() - began)
                reload_alone.append(reloaded - began)
    finally:
        end(server)
    for number in range(restarts):
        server = start(folder / f"restart-{number}", code, {})
        try:
            server.wait_until_ready()
            began = time.perf_counter()
            edit(number)
            server.stop()
            server = start(folder / f"restarted-{number}", code, {})
            server.wait_until_ready()
            check(server, number)
            by_restart.append(time.perf_counter() - began)
        finally:
            end(server)
    return {
        "edit to new answer, by reload": by_reload,
        "of which edit and reload": reload_alone,
        "edit to new answer, by restart": by_restart,
    }
