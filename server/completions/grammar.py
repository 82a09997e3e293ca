"""Rules of grammars in llguidance's dialect of Lark."""

import json
import re
import threading
from functools import cache

from server.completions.types import Json
from server.grammar_check.checker import GrammarChecker
from server.sdk.json_schema import UnusableSchemaError
from server.sdk.schema_grammar import grammar_schema

_starting = threading.Lock()
# The separators that models are trained on.
JSON_OPTIONS = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}

EXCERPT = re.compile(r"\n *\d+ \| ")


def literal(text: str) -> str:
    """Exactly `text`."""
    return json.dumps(text)


def json_by(wanted: Json) -> str:
    """JSON that fits a schema. If it need not be strict, the parts that a grammar can't express are left out.

    Raises what `grammar_schema` raises.
    """
    return "%json " + json.dumps({**grammar_schema(wanted.schema, wanted.strict), "x-guidance": JSON_OPTIONS})


def why_no_grammar(wanted: Json) -> str | None:
    """The reason why a schema can't become a grammar, in a few words; None if it can. Raises
    `GrammarTooComplexError`."""
    try:
        with _starting:  # a cache alone would let two first callers start a process each
            checker = _checker()
        checker.seconds(f"start: {json_by(wanted)}")
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


def answer_rule(answer: Json | None, without: str | None = None) -> str:
    """The rule `answer`: JSON, or any text that does not contain `without`."""
    if answer is not None:
        return f"answer: {json_by(answer)}\n"
    if without is None:
        return "answer: /(?s:.*)/\n"
    return f"answer: TEXT\nTEXT: ANY & ~WITH\nWITH: ANY {literal(without)} ANY\nANY: /(?s:.*)/\n"
