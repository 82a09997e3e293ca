"""How long one person waits beside others who keep the server busy, by what those use: tokens, time, or turns."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.server_process import REPOSITORY, Server, Session, end, start

SLEEPY = '''
import time

from langchain_core.tools import tool

@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    time.sleep(5)
    return "1924"
'''
QUESTIONS = {
    "many tokens": "Plan this: what is 37 * 52, and which weekday is 2026-12-25, and convert 3 miles to km?",
    "a tool that sleeps 5 s": "What is 37 * 52?",
    "many short questions": "hello",
}


def measure(folder: Path, clients: Sequence[int], times: int) -> dict[str, list[float]]:
    """Seconds until one person's short question is answered, alone and beside so many clients of others."""
    server = start(folder, REPOSITORY, {"MAX_RUNS": 256})
    try:
        server.wait_until_ready()
        _put(server, "light", "tools/note.txt", "x")
        _put(server, "heavy", "tools/note.txt", "x")
        _put(server, "sleepy", "tools/calculator.py", SLEEPY)
        found = {"alone": [_ask(server, "light", "hello") for _ in range(times)]}
        for kind, question in QUESTIONS.items():
            workspace = "sleepy" if "sleeps" in kind else "heavy"
            for number in clients:
                found[f"beside {number}, {kind}"] = _beside(server, workspace, question, number, times)
        return found
    finally:
        end(server)


def _beside(server: Server, workspace: str, question: str, clients: int, times: int) -> list[float]:
    stop = threading.Event()

    def keep_asking() -> None:
        with Session(server.url, server.token) as session:
            while not stop.is_set():
                body = {"question": question, "workspace": workspace}
                answer = session.post("/run_script", json=body)
                if answer.status_code == 429:
                    stop.wait(0.5)

    threads = [threading.Thread(target=keep_asking) for _ in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(2)  # until the queue is as long as it gets
    seconds = [_ask(server, "light", "hello") for _ in range(times)]
    stop.set()
    for thread in threads:
        thread.join()
    return seconds


def _ask(server: Server, workspace: str, question: str) -> float:
    began = time.perf_counter()
    answer = server.session.post("/run_script", json={"question": question, "workspace": workspace})
    answer.raise_for_status()
    return time.perf_counter() - began


def _put(server: Server, workspace: str, path: str, text: str) -> None:
    server.session.put(f"/workspaces/{workspace}/files/{path}", data=text.encode()).raise_for_status()
