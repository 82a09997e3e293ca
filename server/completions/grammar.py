"""Rules of grammars in llguidance's dialect of Lark."""

import json
import re
import threading
from functools import cache

from server.completions.types import Answer, Choices, Grammar, Json, Regex
from server.grammar_check.checker import GrammarChecker
from server.sdk.json_schema import UnusableSchemaError
from server.sdk.schema_grammar import grammar_schema

_starting = threading.Lock()
# The separators that models are trained on.
JSON_OPTIONS = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}

LARK_START = re.compile(r"^[ \t]*\??start[ \t]*:(?!:)", re.MULTILINE)
LONGEST_GBNF = 10_000
"""Characters. It is translated in this process, in a time that grows with its square."""
EXCERPT = re.compile(r"\n *\d+ \| ")


class UnusableGrammarError(ValueError):
    """A grammar can't be read. The message says why."""


def literal(text: str) -> str:
    """Exactly `text`."""
    return json.dumps(text)


def json_by(wanted: Json) -> str:
    """JSON that fits a schema. If it need not be strict, the parts that a grammar can't express are left out.

    Raises what `grammar_schema` raises.
    """
    return "%json " + json.dumps({**grammar_schema(wanted.schema, wanted.strict), "x-guidance": JSON_OPTIONS})


def expression_of(answer: Answer) -> str:
    """The right side of a rule for it. Raises what `json_by` raises."""
    match answer:
        case Json():
            return json_by(answer)
        case Choices(texts):
            return " | ".join(map(literal, texts))
        case Grammar(lark):
            # In a grammar of its own, so that its rules may have any name.
            return f"%lark {{\n{lark}\n}}"
        case Regex(pattern):
            from llguidance import regex_to_lark

            # Without changes to its classes: https://docs.rs/regex/latest/regex/#syntax
            return f"/{regex_to_lark(pattern, use_ascii='')}/"


def lark_of(text: str) -> str:
    """A grammar in Lark, as it is, or made of one in GBNF: https://github.com/ggml-org/llama.cpp/tree/master/grammars

    Raises `UnusableGrammarError` for GBNF that is not valid, or longer than `LONGEST_GBNF`.
    """
    if LARK_START.search(text) or "::=" not in text:
        return text
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if len(text) > LONGEST_GBNF:
        raise UnusableGrammarError(
            f"A grammar in GBNF may have {LONGEST_GBNF} characters, and this one has {len(text)}. Write it in Lark."
        )
    try:
        return gbnf_to_lark(text)
    except Exception as error:  # boundary: it raises nothing more specific for a rule that is missing, and so on
        raise UnusableGrammarError(f"The grammar is no GBNF: {error}.") from error


def why_no_grammar(wanted: Answer) -> str | None:
    """The reason why the form of an answer can't become a grammar, in a few words; None if it can. Raises
    `GrammarTooComplexError`."""
    try:
        with _starting:  # a cache alone would let two first callers start a process each
            checker = _checker()
        checker.seconds(f"start: {expression_of(wanted)}")
    except UnusableSchemaError as error:
        return str(error)
    except ValueError as error:
        return reason_of(error)
    return None


def reason_of(error: ValueError) -> str:
    """Why llguidance refuses a grammar, in one line, without the grammar's text, which it shows at the end."""
    text = EXCERPT.split(str(error), maxsplit=1)[0].rpartition("failed to compile JSON schema: ")[2]
    return " ".join(text.split())


@cache
def _checker() -> GrammarChecker:
    """The process that checks schemas before there is a run, whichever model answers."""
    return GrammarChecker(None)


def answer_rule(answer: Answer | None, without: str | None = None) -> str:
    """The rule `answer`: of the required form, or any text that does not contain `without`."""
    if answer is not None:
        return f"answer: {expression_of(answer)}\n"
    if without is None:
        return "answer: /(?s:.*)/\n"
    return f"answer: TEXT\nTEXT: ANY & ~WITH\nWITH: ANY {literal(without)} ANY\nANY: /(?s:.*)/\n"
