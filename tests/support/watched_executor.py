"""An executor with a scripted model, whose messages are recorded."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.tools import tool

from server.jobs.executor import Message, initialize
from tests.support import executor_tools as tools
from tests.support.executor_jobs import SECONDS
from tests.support.scripted_model import Reply, ScriptedModel, action


@tool
def lookup(metal: str) -> str:
    """Look something up."""
    if metal != "tin":
        raise ValueError("unknown metal")
    return "231.9"


class Watched:
    """An executor, and all of its messages."""

    def __init__(self, replies: list[Reply], options: dict[str, Any]) -> None:
        self.model = ScriptedModel(replies=replies)
        given = [
            tools.Echo(),
            tools.Gate(),
            tools.Sleeper(),
            tools.Steps(),
            tools.Failing(),
            tools.Foreground(),
            tools.Stubborn(),
            tools.Counter(),
            tools.plus_one,
            lookup,
        ]
        self.executor = initialize(llm=self.model, tools=given, **options)
        self.messages: list[Message] = []
        self._news = threading.Condition()
        self.executor.on_message(self._record)

    def _record(self, who: str, type: str, outputs: dict[str, Any]) -> None:
        with self._news:
            self.messages.append(Message(who, type, outputs))
            self._news.notify_all()

    def of(self, *types: str) -> list[Message]:
        return [message for message in self.messages if message.type in types]

    def answers(self) -> list[str]:
        return [message.outputs["output"] for message in self.of("message")]

    def observations(self) -> list[str]:
        """Of the first answer."""
        return [step["observation"] for step in self.of("message")[0].outputs["intermediate_steps"]]

    def ends(self) -> list[str]:
        """The jobs whose end was reported."""
        ends = self.of("finish", "error", "cancel")
        return sorted(message.outputs["job_id"] for message in ends if message.who != "agent")

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        with self._news:
            while not condition():
                assert time.monotonic() < deadline, f"{what}: {self.messages}"
                self._news.wait(0.02)

    def system_turns(self) -> list[str]:
        """The prompts of the system turns."""
        return [text for text in self.model.last_texts if text.startswith("This message comes from the system")]


Make = Callable[..., Watched]


def open_gate(fifo: Path) -> None:
    """Let the jobs through that wait at a FIFO. Waits until one does."""
    fifo.write_text("", encoding="utf-8")


def open_gate_if_anybody_waits(fifo: Path) -> None:
    """The same, without waiting."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # nobody
        time.sleep(0.01)


def job_of(text: str) -> str:
    """The last job that a prompt names."""
    return text.rpartition("job_id ")[2].split(".")[0].split(" ")[0].strip()


def waits(**options: Any) -> Callable[[str], str]:
    """A reply: wait for the last job."""
    return lambda text: action("_Wait", job_ids=[job_of(text)], **options)


def executors_threads() -> list[str]:
    """The names of the threads of executors and of their jobs."""
    return [one.name for one in threading.enumerate() if one.name.startswith(("job ", "executor "))]
