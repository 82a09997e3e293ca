"""Pieces of grammars in llguidance's dialect of Lark."""

import json

from server.completions.types import Json

# The separators that models are used to.
JSON_OPTIONS = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False, "coerce_one_of": True}


def literal(text: str) -> str:
    """Exactly `text`."""
    return json.dumps(text)


def json_by(wanted: Json) -> str:
    """JSON that fits a schema; where it need not be strict, what a grammar can't say about it is left out."""
    return "%json " + json.dumps({**wanted.schema, "x-guidance": {**JSON_OPTIONS, "lenient": not wanted.strict}})


def why_no_grammar(wanted: Json) -> str | None:
    """Why no grammar can be made of a schema, in a few words; None where it can."""
    from llguidance import LLMatcher

    reason = str(LLMatcher.validate_grammar(f"start: {json_by(wanted)}")).partition("\n")[0]
    return reason.rpartition("failed to compile JSON schema: ")[2] or None


def answer_rule(answer: Json | None, without: str | None = None) -> str:
    """The rule `answer`: JSON, or any text that has not `without` in it."""
    if answer is not None:
        return f"answer: {json_by(answer)}\n"
    if without is None:
        return "answer: /(?s:.*)/\n"
    return f"answer: TEXT\nTEXT: ANY & ~WITH\nWITH: ANY {literal(without)} ANY\nANY: /(?s:.*)/\n"
