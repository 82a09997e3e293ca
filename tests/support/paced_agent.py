"""An agent that writes, calls a tool, and waits until a test lets it answer with what the test has chosen."""

import itertools
import json
from pathlib import Path
from typing import Any

from tests.support.server_process import Server

AGENT = """
import json
import time
from dataclasses import asdict
from pathlib import Path

from server.sdk import check_cancelled, tell_step, usage

from . import prompts
from .agent import Agent, AgentResult, Citation, Step


class Paced(Agent):
    name = "paced"

    def __call__(self, question, history=()):
        script = json.loads(Path(f"script-{question}").read_text())
        step = Step("I look into it.", "look", {"at": script["observation"]}, script["observation"])
        with usage.measured() as used:
            self.open(prompts.conversation(prompts.CHAT, question, history)).write("", 8)
            tell_step(step)
            while not Path(f"go-on-{question}").exists():
                check_cancelled()
                time.sleep(0.02)
        citations = [Citation(**one) for one in script["citations"]]
        return AgentResult(script["answer"], "look", [step], asdict(used), script["details"], citations)
"""
NUMBERS = itertools.count(1)


class Paced:
    """Questions to the agent `paced` of the workspace `paced` of a server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.folder = server.output_file.parent
        url = "/workspaces/paced/files/agent/paced.py"
        assert server.session.put(url, data=AGENT.encode()).status_code in (200, 201)
        answer = server.session.post("/reload_modules", json={"workspace": "paced"})
        assert answer.status_code == 200, answer.text

    def question(self, answer: str, waits: bool = False, observation: str = "seen", **more: Any) -> str:
        """A question that is answered so; if it `waits`, after `go_on`."""
        question = f"paced {next(NUMBERS)}"
        script = {"answer": answer, "observation": observation, "citations": [], "details": {}, **more}
        (self.folder / f"script-{question}").write_text(json.dumps(script))
        if not waits:
            self.go_on(question)
        return question

    def go_on(self, question: str) -> None:
        """Let the agent answer."""
        Path(self.folder / f"go-on-{question}").touch()
