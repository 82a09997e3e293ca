"""Compiled grammars of one vocabulary."""

import threading
import time
from collections import OrderedDict

import llguidance

from server.errors import GrammarTooComplexError
from server.grammar_check.bounds import parser_limits
from server.grammar_check.checker import GrammarChecker, Vocabulary

COMPILED = 32
"""Maximum number of compiled grammars in the cache."""
QUICK_SECONDS = 0.02
PAUSES = 4
"""llguidance holds Python's lock while it compiles a grammar with captures. So grammars that are not quick to compile
are compiled one at a time, with a pause of so many times their own time: they get a fifth of the time at most."""


class CompiledGrammars:
    """Each grammar is checked in a process that may die, and then compiled here. Safe for any number of threads; the
    scheduler's must not call it."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, vocabulary: Vocabulary) -> None:
        """`vocabulary`: of which `tokenizer` was made."""
        self._tokenizer = tokenizer
        self._checker = GrammarChecker(vocabulary)
        self._cache: OrderedDict[str, llguidance.LLInterpreter] = OrderedDict()
        self._changing = threading.Lock()
        self._compiling = threading.Lock()
        self.close = self._checker.close
        """Ends the process that checks."""

    def parser(self, grammar: str) -> llguidance.LLInterpreter:
        """A parser at the grammar's start. It shares llguidance's caches, and their limits, with others of the same
        grammar.

        Raises `GrammarTooComplexError`, and ValueError for a grammar that llguidance refuses.
        """
        with self._changing:
            compiled = self._cache.get(grammar)
            if compiled is not None:
                self._cache.move_to_end(grammar)
        if compiled is None:
            compiled = self.own_parser(grammar)
            with self._changing:
                self._cache[grammar] = compiled
                while len(self._cache) > COMPILED:
                    self._cache.popitem(last=False)
        return compiled.deep_copy()

    def own_parser(self, grammar: str) -> llguidance.LLInterpreter:
        """The same, but it shares nothing."""
        seconds = self._checker.seconds(grammar)
        if seconds < QUICK_SECONDS:
            return self._compile(grammar)
        with self._compiling:
            began = time.monotonic()
            try:
                return self._compile(grammar)
            finally:
                time.sleep(PAUSES * (time.monotonic() - began))

    def drop(self, grammar: str) -> None:
        """Forget a compiled grammar: its caches have grown large, or are full."""
        with self._changing:
            self._cache.pop(grammar, None)

    def _compile(self, grammar: str) -> llguidance.LLInterpreter:
        return llguidance.LLInterpreter(self._tokenizer, grammar, log_level=0, limits=parser_limits())


def is_panic(error: BaseException) -> bool:
    """Whether a bug in llguidance raised the error. Such errors are no Exceptions."""
    return type(error).__name__ == "PanicException"


def too_costly_to_follow(seconds: float | None = None) -> GrammarTooComplexError:
    """The error for a text whose grammar exceeds a bound while the text is written. `seconds`: the bound, if it is
    one of time, and none of llguidance's own."""
    bound = "llguidance's limits" if seconds is None else f"{seconds:.2f} s of CPU time"
    details = {} if seconds is None else {"seconds": seconds}
    return GrammarTooComplexError(
        f"Following the grammar takes more than {bound}, so the text was ended. Use a simpler schema, pattern or "
        "grammar, in which it is clear after each character what may follow.",
        **details,
    )
