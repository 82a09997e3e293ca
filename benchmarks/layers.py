"""What stands around a bare grammar adds: the agent's loop, the server, a session; and the store's part."""

import secrets
import statistics
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guidance._schema import EngineResponse, TokenUsage
from guidance.models._engine import EngineState

from benchmarks import models
from benchmarks.models import Weights
from benchmarks.questions import QUESTIONS
from benchmarks.tables import milliseconds, p95, print_table
from server.agent import CustomAgentGuidance
from server.engine import GuidedEngine
from server.sdk import ResidentChatModel, usage
from server.store import Database, RunStore
from server.tools import load_tools
from tests.support.server_process import REPOSITORY, Server, end, start

LAYERS = BARE, AGENT, SERVER, KEPT, FIRST, LATER = (
    "the bare grammars",
    "the agent, in the same process",
    "a server, over HTTP",
    "of which keeping the record",
    "a session's first question",
    f"a session's question number {len(QUESTIONS)}",
)
COLUMNS = (
    "a question to",
    "n",
    "p50",
    "p95",
    "tokens read",
    "tokens written",
    "more than the one before",
    "in percent of that",
)


class RecordingEngine(GuidedEngine):
    """Remembers what it was called with: the prompt and the grammar of each call."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, state: EngineState, *given: Any, **named: Any) -> Generator[EngineResponse, None, TokenUsage]:
        self.calls.append((state.prompt, named))
        return super().__call__(state, *given, **named)

    def repeat(self, calls: list[tuple[str, dict[str, Any]]]) -> None:
        """The same grammars behind the same prompts, and nothing else."""
        for prompt, named in calls:
            state = EngineState()
            state.prompt = prompt
            for _ in super().__call__(state, **named):
                pass


@dataclass
class Measured:
    """Seconds of each question; the tokens that were read for it, which KV memory did not hold, and those written."""

    seconds: list[float] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)

    def time(self, ask: Callable[[], dict[str, int]]) -> None:
        """`ask` gives the usage."""
        began = time.perf_counter()
        used = ask()
        self.seconds.append(time.perf_counter() - began)
        self.read.append(used["prompt_tokens"] - used["cached_tokens"])
        self.written.append(used["completion_tokens"] + used["forced_tokens"])


def measure(folder: Path, times: int) -> dict[str, Measured]:
    """By what was asked, the same question of each in turn, so that all share the machine's moods; KEPT has the
    seconds that SQLite takes for a run's record. One caller, the embedded model in float32, questions known to it."""
    found = {what: Measured() for what in LAYERS}
    store = RunStore(Database(folder / "store"))
    server = start(folder / "server", REPOSITORY, {})
    try:
        server.wait_until_ready()
        loaded = Weights("embedded", models.write("embedded", folder), in_8bit=False).load()
        engine = RecordingEngine(loaded.model, loaded.tokenizer)
        agent = CustomAgentGuidance(engine, load_tools(ResidentChatModel(get_engine=lambda: engine)), max_steps=6)
        for number in range(times + len(QUESTIONS)):
            if number == len(QUESTIONS):  # each was asked once, to warm up
                found = {what: Measured() for what in LAYERS}
            _ask_all(found, QUESTIONS[number % len(QUESTIONS)], engine, agent, server, store)
        engine.close()
    finally:
        end(server)
    return found


def _ask_all(
    found: dict[str, Measured],
    question: str,
    engine: RecordingEngine,
    agent: CustomAgentGuidance,
    server: Server,
    store: RunStore,
) -> None:
    engine.calls = []
    agent(question)  # so that both find the same in KV memory
    calls = engine.calls

    def bare() -> dict[str, int]:
        with usage.measured() as used:
            engine.repeat(calls)
        return vars(used)

    found[BARE].time(bare)
    found[AGENT].time(lambda: agent(question).usage)

    answer: dict[str, Any] = {}

    def post(session: str | None = None, asked: str = question) -> dict[str, int]:
        nonlocal answer
        body = {"question": asked} if session is None else {"question": asked, "session_id": session}
        response = server.session.post("/run_script", json=body)
        response.raise_for_status()
        answer = response.json()
        used: dict[str, int] = answer["usage"]
        return used

    post()
    found[SERVER].time(post)
    record = server.session.get(f"/runs/{answer['run_id']}").json()
    record |= {"run_id": secrets.token_hex(16), "generation": None}  # the server's, which this store doesn't know
    began = time.perf_counter()
    store.add(record, record["workspace"])
    found[KEPT].seconds.append(time.perf_counter() - began)

    session = secrets.token_hex(8)
    found[FIRST].time(lambda: post(session))
    session = secrets.token_hex(8)
    for other in QUESTIONS:
        if other != question:
            post(session, other)
    _wait_for_notes(server, session)
    found[LATER].time(lambda: post(session))
    _wait_for_notes(server, session)


def _wait_for_notes(server: Server, session: str) -> None:
    """Until the model has written what it adds to the notepad: nobody else waits for that, and it is not measured."""

    def written() -> bool:
        entries = server.session.get(f"/sessions/{session}/notepad").json()["entries"]
        return all(entry["title"] is not None for entry in entries)

    server.wait_until(written, "the notes")


def report(folder: Path, times: int) -> None:
    """Print the table. What is added is the median of the differences, question by question."""
    found = measure(folder, times)
    rows, before = [], None
    for what, one in found.items():
        row = [what, str(len(one.seconds)), *_shown(one.seconds)]
        if what == KEPT:
            share = statistics.median(one.seconds) / statistics.median(found[SERVER].seconds)
            rows.append([*row, "-", "-", "-", f"{100 * share:.1f} % of it"])
            continue
        row += [f"{statistics.mean(counted):.1f}" for counted in (one.read, one.written)]
        rows.append([*row, *(_added(one.seconds, before) if before else ("-", "-"))])
        before = one.seconds
    print_table(COLUMNS, rows)


def _shown(seconds: list[float]) -> list[str]:
    return [milliseconds(statistics.median(seconds)), milliseconds(p95(seconds))]


def _added(seconds: list[float], before: list[float]) -> tuple[str, str]:
    more = statistics.median(now - then for now, then in zip(seconds, before, strict=True))
    return milliseconds(more), f"{100 * more / statistics.median(before):.0f} %"
