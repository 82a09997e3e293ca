"""Rules of grammars in llguidance's dialect of Lark."""

import json

from server.completions.types import Json

# The separators that models are trained on.
JSON_OPTIONS = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False, "coerce_one_of": True}


def literal(text: str) -> str:
    """Exactly `text`."""
    return json.dumps(text)


def json_by(wanted: Json) -> str:
    """JSON that fits a schema. If it need not be strict, the parts that a grammar can't express are left out."""
    return "%json " + json.dumps({**wanted.schema, "x-guidance": {**JSON_OPTIONS, "lenient": not wanted.strict}})


def why_no_grammar(wanted: Json) -> str | None:
    """The reason why a schema can't become a grammar, in a few words; None if it can."""
    from llguidance import LLMatcher

    reason = str(LLMatcher.validate_grammar(f"start: {json_by(wanted)}")).partition("\n")[0]
    return reason.rpartition("failed to compile JSON schema: ")[2] or None


def answer_rule(answer: Json | None, without: str | None = None) -> str:
    """The rule `answer`: JSON, or any text that does not contain `without`."""
    if answer is not None:
        return f"answer: {json_by(answer)}\n"
    if without is None:
        return "answer: /(?s:.*)/\n"
    return f"answer: TEXT\nTEXT: ANY & ~WITH\nWITH: ANY {literal(without)} ANY\nANY: /(?s:.*)/\n"
