"""What the clients of a chaos run were told, and whether the server's records say the same afterwards."""

import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import requests

from tests.support.server_process import REPOSITORY, Server

DOCUMENTED = frozenset(
    (int(status), code)
    for status, code in re.findall(r"^\| (\d{3}) `(\w+)` \|", (REPOSITORY / "docs/errors.md").read_text(), re.M)
)
OPENAI_NAMES = {"context_length_exceeded": "prompt_too_long", "invalid_api_key": "unauthorized"}
"""Codes of `/v1` that OpenAI has names for."""
MOST_FAILURES_SHOWN = 20


def error_of(answer: requests.Response, allowed: frozenset[str] | set[str]) -> str:
    """The code of an error: one of `allowed`, and one that docs/errors.md lists with this status."""
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        raise AssertionError(f"{answer.status_code} without an error: {answer.text[:500]}") from None
    of_openai = "/v1/" in answer.url
    code: str = error["code" if of_openai else "type"]
    assert error["message"] and code in allowed, f"{answer.status_code} {answer.text[:1500]}"
    statuses = {answer.status_code, 422} if of_openai and answer.status_code == 400 else {answer.status_code}
    listed = OPENAI_NAMES.get(code, code)
    assert any((status, listed) in DOCUMENTED for status in statuses), f"not documented: {answer.status_code} {code}"
    assert answer.status_code != 429 or int(answer.headers["Retry-After"]) > 0
    return code


@dataclass
class Told:
    """What a client was told about a run. `state`: of its record; None if nobody saw how it ended."""

    state: str | None
    answer: str | None = None
    error: str | None = None
    is_recorded: bool = True


class Ledger:
    """Safe for any number of threads."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """How often each way of a client ended how."""
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._runs: dict[str, Told] = {}
        self._done: list[str] = []
        self._by_code: list[tuple[str, str]] = []
        self._code: dict[str, str] = {}
        self._talks: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {}

    def count(self, way: str, outcome: str) -> None:
        """Something has ended as it may."""
        with self._lock:
            self.outcomes[way, outcome] += 1

    def fail(self, what: str) -> None:
        """Something has ended as it must not. The time is that of `Faults.log`."""
        with self._lock:
            self.failures.append(f"{time.time():.1f} {what}")

    def answered(self, answer: dict[str, Any], right: str | None) -> None:
        """A run has this answer. Raises `AssertionError` if it is not `right`."""
        recorded = "not_recorded" not in answer
        with self._lock:
            told = Told("done", answer["answer"], None, recorded)
            assert self._runs.setdefault(answer["run_id"], told).answer == told.answer
            if recorded and answer.get("generation") and answer["workspace"] == "main":
                self._done.append(answer["run_id"])
        assert right is None or answer["answer"] == right, f"{answer['answer']!r} and not {right!r}: {answer}"[:3000]

    def failed(self, run: str, code: str, not_recorded: bool) -> None:
        """A run has ended with an error."""
        state = "cancelled" if code in ("run_cancelled", "shutting_down") else "failed"
        with self._lock:
            self._runs[run] = Told(state, None, code, not not_recorded)

    def unknown(self, run: str) -> None:
        """Nobody knows how a run ended."""
        with self._lock:
            self._runs.setdefault(run, Told(None))

    def answered_by_code(self, answer: dict[str, Any]) -> None:
        """A run has the answer of the code that it names; `check_code` compares them."""
        self.answered(answer, None)
        with self._lock:
            self._by_code.append((answer["generation"], answer["answer"]))

    def loaded(self, generation: str, text: str) -> None:
        """The code of a generation answers with that text."""
        with self._lock:
            self._code[generation] = text

    def talked(self, name: str, said: list[tuple[str, str]], perhaps: list[tuple[str, str]]) -> None:
        """A session has these exchanges, and perhaps those whose records may be saved or not."""
        with self._lock:
            self._talks[name] = said, perhaps

    def some_run(self, rng: random.Random) -> str | None:
        """A recorded run of `main` that has an answer."""
        with self._lock:
            return rng.choice(self._done) if self._done else None

    @property
    def size(self) -> int:
        """The number of runs that somebody was told of."""
        return len(self._runs)

    def check(self, server: Server) -> dict[str, int]:
        """After all clients have ended: raises `AssertionError` if a record differs from what was told. Returns how
        many runs there were of each kind."""
        found = {"recorded": 0, "said not to be recorded": 0, "said so, and recorded": 0, "end not seen": 0}
        log = server.output
        for run, told in self._runs.items():
            answer = server.session.get(f"/runs/{run}")
            if answer.status_code == 404:
                if told.state is None:
                    lost = f"run {run} is not recorded" in log or "lines of the log are left out" in log
                    found["end not seen"] += 1
                    if not lost:
                        self.failures.append(f"run {run} has no record, and the log does not say why")
                elif told.is_recorded:
                    self.failures.append(f"run {run} has no record: {told}")
                else:
                    found["said not to be recorded"] += 1
                continue
            record = answer.json()
            found["recorded" if told.is_recorded else "said so, and recorded"] += 1
            if record["state"] in ("queued", "running"):
                self.failures.append(f"run {run} has not ended: {answer.text[:500]}")
            elif told.state is not None:
                shown = record["state"], record.get("answer"), record.get("error", {}).get("type")
                if shown != (told.state, told.answer, told.error):
                    self.failures.append(f"run {run} is recorded as {shown}, and was {told}")
        self._check_list(server)
        self._check_code()
        self._check_talks(server)
        assert not self.failures, "\n".join([f"{len(self.failures)} failures", *self.failures[:MOST_FAILURES_SHOWN]])
        return found

    def _check_list(self, server: Server) -> None:
        listed = Counter(one["run_id"] for one in server.session.get("/runs?limit=1000").json()["runs"])
        self.failures += [f"run {run} is listed {count} times" for run, count in listed.items() if count > 1]

    def _check_code(self) -> None:
        """Each answer is that of the code which it names."""
        for generation, text in set(self._by_code):
            if self._code.get(generation) != text:
                self.failures.append(f"generation {generation} is {self._code.get(generation)!r}, answered {text!r}")

    def _check_talks(self, server: Server) -> None:
        for name, (said, perhaps) in self._talks.items():
            answer = server.session.get(f"/sessions/{name}", params={"workspace": "echo"})
            words = [one["content"] for one in answer.json()["messages"]] if answer.ok else []
            shown = list(zip(words[::2], words[1::2], strict=True))
            if [one for one in shown if one not in perhaps] != said:
                self.failures.append(f"session {name} has {json.dumps(shown)}, and {json.dumps(said)} was said")
