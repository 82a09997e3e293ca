"""The reply parser: lenient parsing of replies from models that can't be constrained."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import json_repair
from jsonschema import Draft202012Validator

from .conversation import Act

LABEL = re.compile(
    r"^[\s>*#_`-]*(thought|action[\s_-]*input|action|observation|(?:final[\s_-]*)?answer)[\s*_`]*:[*_]*",
    re.IGNORECASE | re.MULTILINE,
)
#: The name of a tool, perhaps followed by its input.
CALL = re.compile(r"[`*\s]*([\w.-]+)[`*\s]*(.*)", re.DOTALL)

# The names of other formats for the same.
THOUGHTS = ("thought", "reasoning")
TOOLS = ("action", "tool", "toolname", "function", "name")
INPUTS = ("actioninput", "toolinput", "input", "arguments", "args", "parameters")
ANSWERS = ("answer", "finalanswer")


class ParseError(ValueError):
    """A reply can't be parsed. The message tells the model why."""


def parse_act(text: str, tools: Mapping[str, Mapping[str, Any]], may_call: bool) -> Act:
    """The thought, and the call or the answer, in `text`: lines `Thought:`, `Action:`, `Action Input:`, `Answer:` in
    any case and spacing, JSON, or a mixture. Text after the first call or answer is ignored.

    `tools` are the JSON schemas of the arguments, by name. Raises `ParseError`.
    """
    before, sections = _sections(text)
    thought = next((body for label, body in sections if label == "thought"), before)
    for number, (label, body) in enumerate(sections):
        if label in ANSWERS:
            return _answer(thought, body)
        if label == "action":
            if body.startswith(("{", "[", "```")):
                return _from_json(_object(body), thought, tools, may_call)
            if number + 1 < len(sections) and sections[number + 1][0] == "actioninput":
                return _act(thought, body.strip("`*\"' .\n"), sections[number + 1][1], tools, may_call)
            called = CALL.match(body)
            if called is None:
                raise ParseError("The action has to be the name of a tool.")
            return _act(thought, called[1], called[2], tools, may_call)
    if "{" in text:
        return _from_json(_object(text), re.split(r"```|\{", thought)[0], tools, may_call)
    raise ParseError("It has neither an action nor an answer.")


def parse_code(text: str) -> str:
    """The code in `text`: its first fenced block, or all of it if there is none. Raises `ParseError`."""
    fenced = re.search(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", text, re.DOTALL)
    code = (fenced.group(1) if fenced is not None else text).strip("\n")
    if not code.strip():
        raise ParseError("There is no code in it.")
    return code


def parse_value(text: str, schema: Mapping[str, Any]) -> Any:
    """The JSON in `text` that fits `schema`. Raises `ParseError`."""
    value = _json(text) if schema.get("type") in ("object", "array") else _scalar(text)
    found = [value]
    if isinstance(value, list) and schema.get("type") == "object":
        # Several values in a row: the first that fits.
        found = value or [None]
    validator = Draft202012Validator(schema)
    for one in found:
        if validator.is_valid(one):
            return _sendable(one)
    problem = min(validator.iter_errors(found[0]), key=lambda error: list(map(str, error.path)))
    where = ".".join(map(str, problem.path))
    raise ParseError(f"It does not fit the schema: {f'{where}: ' if where else ''}{problem.message[:200]}.")


def parse_option(text: str, options: Sequence[str]) -> str:
    """The one of `options` that `text` names. Raises `ParseError`."""
    said = text.casefold()
    named = [option for option in options if re.search(rf"(?<!\w){re.escape(option.casefold())}(?!\w)", said)]
    # An option within a longer one was not meant.
    meant = [one for one in named if not any(one != other and one.casefold() in other.casefold() for other in named)]
    if len(meant) != 1:
        raise ParseError(f"It names {'none' if not meant else 'several'} of: {', '.join(options)}.")
    return meant[0]


def _sections(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text before the first label, and each label with the text after it."""
    labels = list(LABEL.finditer(text))
    ends = [label.start() for label in labels[1:]] + [len(text)]
    before = text[: labels[0].start()] if labels else text
    return before.strip(), [
        (_key(label[1]), text[label.end() : end].strip()) for label, end in zip(labels, ends, strict=False)
    ]


def _key(name: Any) -> str:
    return re.sub(r"[^a-z]", "", str(name).lower())


def _from_json(said: Mapping[str, Any], thought: str, tools: Mapping[str, Any], may_call: bool) -> Act:
    parts = dict(_parts(said))
    thought = next((str(parts[name]) for name in THOUGHTS if name in parts), thought)
    name = next((parts[name] for name in TOOLS if isinstance(parts.get(name), str)), None)
    if name is not None:
        given = next((parts[name] for name in INPUTS if name in parts), None)
        return _act(thought, name, given, tools, may_call)
    for answer in ANSWERS:
        if parts.get(answer) is not None:
            return _answer(thought, parts[answer])
    raise ParseError("The JSON has neither a tool nor an answer.")


def _parts(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts of a JSON object, with normalised names, and those of the nested object that has the step."""
    for name, value in said.items():
        key = _key(name)
        if isinstance(value, dict) and key in ("step", "function", "action", "toolcall"):
            yield from ((_key(inner), part) for inner, part in value.items())
        else:
            yield key, value


def _answer(thought: str, answer: Any) -> Act:
    text = _text(answer)
    if not text:
        raise ParseError("The answer is empty.")
    return Act(_text(thought), answer=text)


def _act(thought: str, name: str, given: Any, tools: Mapping[str, Mapping[str, Any]], may_call: bool) -> Act:
    """A tool call, or an answer that was written as one."""
    tool = name if name in tools else next((one for one in tools if _same(one, name)), None)
    if tool is None:
        if _key(name) in ANSWERS:
            return _answer(thought, given)
        raise ParseError(f"There is no tool {name[:60]!r}. The tools are: {', '.join(tools) or '(none)'}.")
    if not may_call:
        return Act(_text(thought), tool)
    arguments = _arguments(given, tool, tools[tool])
    try:
        written = json.dumps(_sendable(arguments), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ParseError(f"The input of {tool} is no JSON: {error}.") from error
    return Act(_text(thought), tool, written)


def _same(name: str, written: str) -> bool:
    return re.sub(r"\W|_", "", name.casefold()) == re.sub(r"\W|_", "", written.casefold())


def _arguments(given: Any, tool: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call: an object, or the only argument of the tool."""
    if isinstance(given, str):
        given = given.strip()
        if "{" in given:
            return _object(given)
        given = given.strip("`\"' \n") or None
    if isinstance(given, dict):
        return given
    properties = list(schema.get("properties", {}))
    needed = list(schema.get("required", ())) or properties
    if given is None and not schema.get("required"):
        return {}
    if given is not None and len(needed) == 1:
        return {needed[0]: given}
    example = json.dumps(dict.fromkeys(properties, "..."))
    raise ParseError(f"The input of {tool} has to be a JSON object like {example}.")


def _object(text: str) -> dict[str, Any]:
    """The first JSON object in `text`."""
    value = _json(text[text.find("{") :])
    if isinstance(value, list):
        value = next((one for one in value if isinstance(one, dict)), None)
    if not isinstance(value, dict):
        raise ParseError("It has no JSON object that can be read.")
    return value


def _json(text: str) -> Any:
    """The JSON in `text`, with or without a fence, and with the typical mistakes of models repaired."""
    try:
        return json_repair.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError("The JSON can't be read.") from error


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip().strip("`\"' \n")


def _text(value: Any) -> str:
    """The value as text without lone surrogates, which can't be encoded."""
    try:
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError) as error:
        raise ParseError("The answer can't be read.") from error
    return written.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()


def _sendable(value: Any) -> Any:
    """A JSON value without lone surrogates in its texts."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_sendable(name): _sendable(part) for name, part in value.items()}
    return [_sendable(part) for part in value] if isinstance(value, list) else value
