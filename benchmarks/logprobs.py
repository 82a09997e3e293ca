"""What log-probabilities cost the caller that asks for them, and the callers whose texts are in the same batch."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.questions import QUESTIONS
from benchmarks.tables import milliseconds, print_table
from server.embedded import WEIGHTS
from tests.support.server_process import REPOSITORY, Server, Session, end, start

TOKENS = 64
BESIDE = 8
ROUND_SECONDS = 4.0
PROMPT = "The {number}th of a long list of things that a laboratory keeps in its cupboards, and why:"
TEXT: dict[str, dict[str, Any]] = {"no logprobs": {}, "logprobs: 0": {"logprobs": 0}, "logprobs: 5": {"logprobs": 5}}
CHAT: dict[str, dict[str, Any]] = {
    "no logprobs": {},
    "top_logprobs: 5": {"logprobs": True, "top_logprobs": 5},
    "top_logprobs: 20": {"logprobs": True, "top_logprobs": 20},
}
Ask = Callable[[Session, int, dict[str, Any]], int]
"""Asks for a text with the number in its prompt. Returns the tokens that were written."""


def report(folder: Path, few: bool) -> None:
    """Print the tables."""
    server = start(folder, REPOSITORY, {})
    try:
        server.wait_until_ready()
        _report_alone(server, 1 if few else 40)
        _report_beside(server, 1 if few else 12, 0.5 if few else ROUND_SECONDS)
        _report_recorded(server, 1 if few else 20)
    finally:
        end(server)


def _complete(session: Session, number: int, more: dict[str, Any]) -> int:
    body = {"model": "embedded", "prompt": PROMPT.format(number=number), "max_tokens": TOKENS, **_ENDLESS, **more}
    answer = session.post("/v1/completions", json=body)
    answer.raise_for_status()
    return int(answer.json()["usage"]["completion_tokens"])


def _chat(session: Session, number: int, more: dict[str, Any]) -> int:
    messages = [{"role": "user", "content": PROMPT.format(number=number)}]
    body = {"model": "embedded", "messages": messages, "max_tokens": TOKENS, **_ENDLESS, **more}
    answer = session.post("/v1/chat/completions", json=body)
    answer.raise_for_status()
    return int(answer.json()["usage"]["completion_tokens"])


_END = AutoTokenizer.from_pretrained(WEIGHTS).eos_token_id
_ENDLESS: dict[str, Any] = {"temperature": 1.0, "seed": 1, "logit_bias": {str(_END): -100}}
"""The text does not end before its limit of tokens."""


def _report_alone(server: Server, rounds: int) -> None:
    """The same text with each parameter in turns, one caller."""
    rows = []
    for route, ask, kinds in (("/v1/completions", _complete, TEXT), ("/v1/chat/completions", _chat, CHAT)):
        rates = _alone(server.session, ask, kinds, rounds)
        without = next(iter(rates.values()))
        for kind, found in rates.items():
            ratio = statistics.median(one / other for one, other in zip(found, without, strict=True))
            rows.append([route, kind, str(len(found)), f"{statistics.median(found):.0f}", f"{ratio:.2f}"])
    print_table(("alone", "asked with", "n", "tokens/s p50", "of those without, pair by pair"), rows)


def _alone(session: Session, ask: Ask, kinds: dict[str, dict[str, Any]], rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    names = list(kinds)
    for number in range(-1, rounds):  # once to warm up
        ask(session, number, {})  # so that all find the same in the KV cache
        for kind in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            tokens = ask(session, number, kinds[kind])
            if number >= 0:
                rates[kind].append(tokens / (time.perf_counter() - began))
    return rates


def _report_beside(server: Server, rounds: int, seconds: float) -> None:
    """Several callers for some seconds, of whom the first one does something else, in turns with doing the same."""
    run_id = server.session.post("/run_script", json={"question": QUESTIONS[0]}).json()["run_id"]

    def reads_recorded(session: Session, number: int) -> int:
        answer = session.get(f"/runs/{run_id}/tokens", params={"step": 1})
        answer.raise_for_status()
        return len(answer.json()["tokens"])

    arms: dict[str, Callable[[Session, int], int]] = {
        "nobody": lambda session, number: _complete(session, number, {}),
        "one, logprobs: 5": lambda session, number: _complete(session, number, {"logprobs": 5}),
        "one, in chat, top_logprobs: 20": lambda session, number: _chat(session, number, CHAT["top_logprobs: 20"]),
        "one reads /runs/<id>/tokens": reads_recorded,
    }
    others: dict[str, list[float]] = {arm: [] for arm in arms}
    firsts: dict[str, list[float]] = {arm: [] for arm in arms}
    names = list(arms)
    for number in range(rounds):
        for arm in names[number % len(names) :] + names[: number % len(names)]:
            first, rest = _beside(server, arms[arm], seconds)
            firsts[arm].append(first)
            others[arm].append(rest)
    rows = []
    for arm in names:
        lost = statistics.median(one / base for one, base in zip(others[arm], others["nobody"], strict=True))
        row = [arm, str(rounds), f"{statistics.median(firsts[arm]):.0f}", f"{statistics.median(others[arm]):.0f}"]
        rows.append([*row, f"{lost:.2f}"])
    print_table(
        (f"{BESIDE} callers, of whom asks", "n", "its tokens/s", "the others' together", "of those beside nobody"),
        rows,
    )


def _beside(server: Server, first: Callable[[Session, int], int], seconds: float) -> tuple[float, float]:
    """Tokens a second of the first caller, and of the others together."""
    until = time.perf_counter() + seconds

    def work(caller: int) -> float:
        tokens, began = 0, time.perf_counter()
        with Session(server.url, server.token) as session:
            while time.perf_counter() < until:
                tokens += first(session, 1000) if caller == 0 else _complete(session, 1000 + caller, {})
        return tokens / (time.perf_counter() - began)

    with ThreadPoolExecutor(BESIDE) as pool:
        own, *rest = pool.map(work, range(BESIDE))
    return own, sum(rest)


def _report_recorded(server: Server, times: int) -> None:
    """Reading the log-probabilities of a run that has ended."""
    rows = []
    for question in QUESTIONS:
        run_id = server.session.post("/run_script", json={"question": question}).json()["run_id"]
        seconds, tokens = [], 0
        for _ in range(times):
            began = time.perf_counter()
            answer = server.session.get(f"/runs/{run_id}/tokens", params={"step": 1}).json()
            seconds.append(time.perf_counter() - began)
            tokens = len(answer["tokens"])
        rows.append([question, str(tokens), str(times), milliseconds(statistics.median(seconds))])
    print_table(("GET /runs/<id>/tokens of", "tokens", "n", "p50"), rows)
