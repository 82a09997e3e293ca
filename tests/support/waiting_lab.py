"""Questions whose tool waits until a test lets it go on, and connections that a test may close."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

from tests.support.server_process import Server

WAITING = '''
import pathlib
import time

from langchain_core.tools import tool

@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression."""
    name = expression.replace(" ", "").replace("*", "x")
    pathlib.Path("begun-" + name).touch()
    while not pathlib.Path("go-on-" + name).exists():
        time.sleep(0.01)
    return "1924"
'''

HOLDING = '''
import pathlib
import time

from langchain_core.tools import tool

def build_tool(llm):
    @tool
    def calculator(expression: str) -> str:
        """Work out an arithmetic expression."""
        name = expression.replace(" ", "").replace("*", "x")
        pathlib.Path("begun-" + name).touch()
        while not pathlib.Path("go-on-" + name).exists():
            llm.invoke("x", max_tokens=1)
            time.sleep(0.05)
        return "1924"

    return calculator
'''
"""One that uses the model meanwhile, so that its run keeps its turn."""


class Lab:
    """A server whose calculator waits until the test lets it continue, each time with other numbers."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.folder = server.output_file.parent
        self.number = 11

    def question(self) -> str:
        """One that was not asked before."""
        self.number += 1
        return f"What is {self.number} * 52?"

    def begun(self) -> None:
        """Wait until the tool works on the last question."""
        self.server.wait_until((self.folder / f"begun-{self.number}x52").exists, "the tool")

    def go_on(self) -> None:
        """Let the tool answer the last question."""
        (self.folder / f"go-on-{self.number}x52").touch()

    def run(self, run_id: str) -> dict[str, Any]:
        record: dict[str, Any] = self.server.session.get(f"/runs/{run_id}").json()
        return record

    def running(self) -> dict[str, Any]:
        """The one that is."""

        def met() -> Any:
            runs = self.server.session.get("/runs", params={"limit": 5}).json()["runs"]
            return [run for run in runs if run["state"] == "running"]

        [run] = self.server.wait_until(met, "a run")
        return dict(run)

    def ends(self, run_id: str) -> dict[str, Any]:
        """The record of a run when it has ended."""
        self.server.wait_until(lambda: self.run(run_id)["state"] not in ("queued", "running"), "the end of the run")
        return self.run(run_id)


def connection(server: Server, accept: str, **body: Any) -> socket.socket:
    """A connection on which a question has been asked."""
    text = json.dumps(body).encode()
    url = urlsplit(server.url)
    connected = socket.create_connection((url.hostname, url.port or 0))
    head = f"POST /run_script HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {server.token}\r\n"
    connected.sendall(f"{head}Accept: {accept}\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
    return connected
