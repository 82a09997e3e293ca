"""Code whose generations the tests of comparisons compare: an agent that asks no model, and tools."""

from tests.support.server_process import Server

SPACE = "compared"
AGENT = '''
from server.sdk import call_tool

from .agent import Agent, AgentResult


class Direct(Agent):
    """Answers with what a tool says of the question."""

    name = "direct"

    def __call__(self, question, history=()):
        said = [one["content"] for one in history]
        answer = call_tool(self.tools["grade"], {"sample": question, "said": said}, self.tool_seconds)
        return AgentResult(answer, "grade", [], {})
'''
TOOLS = '''
import os
import signal
import time

from langchain_core.tools import tool

from server.sdk import check_cancelled


@tool
def grade(sample: str, said: list[str]) -> str:
    """Grade a sample."""
    if "crash" in sample and "VERSION" == "new":
        os.kill(os.getpid(), signal.SIGKILL)
    while "wait" in sample and not os.path.exists("GATE"):
        check_cancelled()
        time.sleep(0.02)
    if "formula" in sample:
        return "=1+1"
    return "VERSION " + sample if "differ" in sample else " ".join([*said, sample.upper()])


@tool
def judge(question: str, answer: str, expected: str) -> float:
    """Judge an answer."""
    if "die" in question:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in question:
        time.sleep(60)
    if "raise" in question:
        raise ValueError("can't judge " + question)
    if "odd" in question:
        return "maybe"
    return 0.9 if answer == expected else 0.1


@tool
def lenient(answer: str) -> bool:
    """Judge any answer to be right."""
    return True


@tool
def unfit(count: int) -> bool:
    """Take no answer."""
    return True
'''


def put_version(server: Server, version: str, gate: str = "/nowhere") -> str:
    """Make a version of the tools live. Returns its generation."""
    text = TOOLS.replace("VERSION", version).replace("GATE", gate)
    for path, data in (("agent/direct.py", AGENT), ("tools/graded.py", text)):
        answer = server.session.put(f"/workspaces/{SPACE}/files/{path}", data=data.encode())
        assert answer.status_code in (200, 201), answer.text
    answer = server.session.post("/reload_modules", json={"workspace": SPACE})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generation"])
