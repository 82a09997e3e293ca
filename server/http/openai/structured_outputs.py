"""The required form of an answer, as requests to OpenAI's API and to vLLM's server say it.

https://docs.vllm.ai/en/latest/features/structured_outputs/
"""

from typing import Any

from server.completions.grammar import UnusableGrammarError, lark_of
from server.completions.types import Answer, Choices, Grammar, Json, Regex
from server.http.openai.chat_schemas import FORMS, AskedForTexts, ResponseFormat, StructuredOutputs
from server.http.openai.errors import invalid
from server.http.openai.run_factory import checked, json_of


def answer_of(body: AskedForTexts) -> Answer | None:
    """The form of the answer; None: any text. Raises `InvalidRequestError` if it can't become a grammar, or if the
    request has several, and `GrammarTooComplexError`."""
    said = {name: form for name in FORMS if (form := getattr(body, name, None)) is not None}
    if isinstance(form := said.get("response_format"), ResponseFormat) and form.type == "text":
        del said["response_format"]
    if not said:
        return None
    if len(said) > 1:
        raise invalid(f"The form of the answer is in {' and in '.join(said)}. Leave all but one out.", max(said))
    [(name, form)] = said.items()
    if isinstance(form, ResponseFormat):
        return _by_format(form)
    if isinstance(form, StructuredOutputs):
        [(field, value)] = form.forms.items()
        return _answer(field, value, name, field)
    return _answer(name.removeprefix("guided_"), form, name)


def _by_format(wanted: ResponseFormat) -> Json:
    if wanted.type == "json_object":
        return json_of(None, None, "response_format")
    if wanted.json_schema is None:
        raise invalid("A response_format of type json_schema needs a json_schema.", "response_format", "json_schema")
    given = wanted.json_schema
    return json_of(given.json_schema, given.strict, "response_format", "json_schema", "schema")


def _answer(kind: str, value: Any, *loc: str) -> Answer:
    """The form of that kind, as vLLM calls it. `loc`: its place in the request."""
    match kind:
        case "json":
            return json_of(value, None, *loc)
        case "json_object":
            return json_of(None, None, *loc)
        case "choice":
            return checked(Choices(tuple(value)), *loc)
        case "regex":
            return checked(Regex(value), *loc)
    try:
        return checked(Grammar(lark_of(value)), *loc)
    except UnusableGrammarError as error:
        raise invalid(str(error), *loc) from error
