"""Grammars are compiled within bounds, in a process that may die, and followed within bounds."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from guidance.models._engine import EngineState

from server.engine import GuidedEngine, sequence
from server.errors import GrammarTooComplexError, OutOfMemoryError
from server.grammar_check.bounds import COMPILE_BYTES, COMPILE_SECONDS
from server.grammar_check.checker import REMEMBERED, GrammarChecker
from tests.support.reload_code import wait_until
from tests.support.server_process import REPOSITORY

HOSTILE = [
    {"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000_000},
    {"type": "integer", "multipleOf": 999_983},
]
WORDS = {"lark_grammar": "start: /[a-z ]{30}/"}


@pytest.fixture(scope="module")
def checker() -> Iterator[GrammarChecker]:
    made = GrammarChecker(None)
    yield made
    made.close()


def pid_of(checker: GrammarChecker) -> int:
    assert checker._process is not None
    return checker._process._popen.pid


def json_by(schema: dict[str, Any]) -> str:
    return "start: %json " + json.dumps(schema)


def write(engine: GuidedEngine, grammar: dict[str, Any], max_tokens: int = 40) -> str:
    state = EngineState()
    state.prompt = "Write: "
    words = json.dumps({"grammars": [grammar], "max_tokens": max_tokens})
    return "".join(response.new_bytes.decode() for response in engine(state, words))


@pytest.mark.parametrize("schema", HOSTILE, ids=str)
def test_a_grammar_that_costs_too_much_to_compile(checker: GrammarChecker, schema: dict[str, Any]) -> None:
    pid = pid_of(checker)
    for _ in range(2):
        with pytest.raises(GrammarTooComplexError, match="Compiling") as refused:
            checker.seconds(json_by(schema))
        assert refused.value.details == {"seconds": COMPILE_SECONDS, "bytes": COMPILE_BYTES}
    assert pid_of(checker) == pid


def test_an_invalid_grammar_is_refused_with_the_reason(checker: GrammarChecker) -> None:
    for grammar in ("start: [", json_by({"type": "wat"}), "\ud800", "", "{" * 100_000):
        with pytest.raises(ValueError):
            checker.seconds(grammar)
    assert 0 <= checker.seconds(json_by({"type": "integer"})) < COMPILE_SECONDS


def test_a_verdict_is_remembered_whatever_the_token_limit_is() -> None:
    checker = GrammarChecker(None)
    grammar = json.dumps({"grammars": [WORDS], "max_tokens": 5})
    checker.seconds(grammar)
    checker.close()
    checker.seconds(grammar.replace("5}", "77}"))  # no process is left to ask
    assert len(checker._verdicts) == 1 <= REMEMBERED


def test_a_killed_process_is_started_anew(checker: GrammarChecker) -> None:
    pid = pid_of(checker)
    psutil.Process(pid).kill()  # it may not have ended yet
    assert checker.seconds(json_by({"const": "after a kill"})) < COMPILE_SECONDS
    assert pid_of(checker) != pid


def test_a_process_that_can_not_be_started_is_an_error_that_says_why(
    checker: GrammarChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    psutil.Process(pid_of(checker)).kill()
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(OutOfMemoryError, match="check the grammar: No such file or directory"):
        checker.seconds(json_by({"const": "not asked before"}))
    monkeypatch.undo()
    assert checker.seconds(json_by({"const": "not asked before"})) >= 0


def test_the_process_ends_with_the_one_that_started_it() -> None:
    code = """
import time
from server.grammar_check.checker import GrammarChecker
checker = GrammarChecker(None)
checker.seconds("start: /a/")
print(checker._process._popen.pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert psutil.pid_exists(pid)
        started.send_signal(signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", "the end")


def test_a_text_whose_grammar_takes_too_long_to_follow(engine: GuidedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = write(engine, WORDS)
    with monkeypatch.context() as bounded:
        bounded.setattr(sequence, "DECODE_SECONDS", 0.0)
        bounded.setattr(sequence, "TOKEN_SECONDS", 0.0)
        with pytest.raises(GrammarTooComplexError, match=r"takes more than 0\.00 s"):
            write(engine, WORDS)
    assert write(engine, WORDS) == alone


class PanicException(BaseException):
    """As pyo3's: a panic of llguidance is no Exception."""


class Panicking:
    """A parser that panics after some tokens."""

    def __init__(self, parser: Any) -> None:
        self._parser, self._left = parser, 5

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def commit_token(self, token: int) -> Any:
        self._left -= 1
        if not self._left:
            raise PanicException("index out of bounds")
        return self._parser.commit_token(token)


def test_a_panic_fails_its_own_text(engine: GuidedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"lark_grammar": "start: /[a-h ]{30}/"}
    alone, grammars = write(engine, other), engine._grammars
    parser, own_parser = grammars.parser, grammars.own_parser

    def panicking(make: Any) -> Any:
        return lambda grammar: Panicking(make(grammar)) if "[a-z ]" in grammar else make(grammar)

    monkeypatch.setattr(grammars, "parser", panicking(parser))
    monkeypatch.setattr(grammars, "own_parser", panicking(own_parser))
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(write, engine, other)
        with pytest.raises(GrammarTooComplexError, match="limits"):
            write(engine, WORDS)
        assert beside.result() == alone
    # A parser of its own does what the shared one could not.
    monkeypatch.setattr(grammars, "own_parser", own_parser)
    recovered = write(engine, WORDS)
    monkeypatch.undo()
    assert recovered == write(engine, WORDS)
