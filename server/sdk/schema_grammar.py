"""What a grammar can say of a JSON schema.

llguidance makes the grammar (https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md). Here every
schema becomes one that it compiles soon and in little memory, and whose grammar allows each value that fits.
Over 400 lines: one recursive walk, with a function for each kind of schema.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

from server.sdk.json_schema import (
    ANNOTATIONS,
    NAMED,
    NEVER,
    ONE,
    SEVERAL,
    TYPES,
    UnusableSchemaError,
    normal_form,
    references,
)
from server.sdk.pattern_grammar import pattern_of_grammar

Said = dict[str, Any] | bool
"""A part of a grammar's schema; False where no value fits."""

MOST_PARTS = 2_000
"""Subschemas of one schema, where some count for several; those after them are left open. A part takes llguidance
some 0.3 ms."""
DEEPEST = 40
"""Subschemas inside each other. llguidance reads JSON to a depth of 128."""
MOST_OPTIONAL = 200
"""Optional properties of an object. llguidance takes 2,000 items at one place."""
MOST_CHOICES, LONGEST_CHOICES = 1_000, 50_000
"""Members of an enumeration, and characters of their texts."""
MOST_ITEMS = 200
"""The largest `minItems`, `maxItems`, `minProperties`, `maxProperties`."""
MOST_CHARACTERS, LEAST_WITH_PATTERN = 4_000, 8
"""The largest `minLength` and `maxLength`, and the largest `minLength` beside a pattern: llguidance refuses a schema
if it does not soon find a text that fits both."""
MOST_MULTIPLE = 100
"""The largest `multipleOf`. The states of its automaton are that many."""
LARGEST_INTEGER = 2**53
"""llguidance reads numbers as doubles, which hold integers up to this one."""
MOST_ALTERNATIVES = 64
"""Alternatives, multiplied, of schemas that hold at the same time."""

FORMATS = frozenset("date hostname ipv4 uuid".split())
"""Formats of which the grammar allows every text. Of the others it allows less than tools do: it wants a time zone in
each time, and knows no addresses beyond ASCII."""
ENFORCED_FORMATS = FORMATS | frozenset("date-time duration email ipv6 time uri".split())

_RANGES = {
    "string": [("minLength", "maxLength")],
    "array": [("minItems", "maxItems")],
    "object": [("minProperties", "maxProperties")],
}
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COMBINED = ("$ref", "allOf", "anyOf", "oneOf")
_UNSAID = (
    "not if dependentRequired dependentSchemas contains minContains propertyNames uniqueItems unevaluatedItems "
    "unevaluatedProperties"
).split()
_VACUOUS = (("uniqueItems", False), ("unevaluatedItems", True), ("unevaluatedProperties", True))

CANNOT_SAY = "a grammar can't say it"


def grammar_schema(schema: Any, strict: bool = False) -> dict[str, Any]:
    """A schema for llguidance. Its grammar allows every value of `schema`, in at least one way to write it as JSON.

    What no grammar can say, or only at great cost, is left out: bounds of numbers with fractions, large counts,
    lookahead in patterns, and so on. Raises `UnusableSchemaError` if no value fits, and what `normal_form` raises;
    with `strict` also if anything is left out: the message names the keyword and its place.
    """
    return _Grammar(normal_form(schema), strict).schema()


class _Grammar:
    def __init__(self, root: dict[str, Any], strict: bool) -> None:
        self._root, self._strict = root, strict
        self._defs: dict[str, Any] = root.get("$defs", {})
        self._room = MOST_PARTS
        self._counts: dict[str, int] = {}
        """The combinations of definitions, each counted once: they may lead to each other in any number of ways."""
        uses = {name: set(references(part)) for name, part in self._defs.items()}
        reached = {name: _closure(used, uses) for name, used in uses.items()}
        self._circular = {name for name in uses if any(other in reached[other] for other in {name, *reached[name]})}
        """Definitions that lead to a definition that uses itself."""

    def schema(self) -> dict[str, Any]:
        said = self._say(self._root, "#", 0)
        defs = {name: self._say(part, f"#/$defs/{name}", 0) for name, part in self._defs.items()}
        possible = _possible(defs)
        said = _pruned(said, possible)
        if said is False:
            raise UnusableSchemaError("no value fits it")
        used = {name: _pruned(part, possible) for name, part in defs.items() if name in possible}
        return {**cast(dict[str, Any], said), **({"$defs": used} if used else {})}

    def _drop(self, keyword: str, path: str, why: str = CANNOT_SAY) -> None:
        if self._strict:
            raise UnusableSchemaError(f"{keyword} at {path}: {why}")

    def _take(self, parts: int) -> None:
        self._room -= parts

    def _say(self, schema: Any, path: str, depth: int) -> Said:
        if isinstance(schema, bool):
            return schema or False
        if schema.get("not") == NEVER["not"]:
            return False
        self._take(1)
        if self._room < 0 or depth > DEEPEST:
            self._drop("the schema", path, f"it has more than {MOST_PARTS} parts, or {DEEPEST} inside each other")
            return {}
        for keyword in _UNSAID:
            if keyword in schema and (keyword, schema[keyword]) not in _VACUOUS:
                self._drop(keyword, path)
        own = self._own(schema, path, depth)
        if own is False or "enum" in own:
            for keyword in set(schema) - {"enum", "const", "type", *ANNOTATIONS}:
                self._drop(keyword, path, "a grammar can't say it of choices")
            return own
        return self._combined(own, schema, path, depth)

    def _combined(self, own: dict[str, Any], schema: dict[str, Any], path: str, depth: int) -> Said:
        """`own` combined with the other schemas that a value must fit: `$ref`, `allOf`, `anyOf`, `oneOf`."""
        parts: list[tuple[str, Any, int]] = []
        for keyword in _COMBINED:
            if keyword == "$ref" and keyword in schema:
                parts.append((keyword, {"$ref": schema["$ref"]}, 1))
            elif keyword == "allOf":
                parts += ((keyword, part, self._alternatives(part)) for part in schema.get(keyword, ()))
            elif keyword in schema:
                parts.append((keyword, {keyword: schema[keyword]}, len(schema[keyword])))
        if own:
            parts.insert(0, ("", own, 1))
        if len(parts) > 1:
            alternatives, kept = 1, []
            for keyword, part, count in parts:
                if keyword and self._circular.intersection(references(part)):
                    self._drop(keyword, path, "it refers to a schema that contains itself, and more holds besides")
                elif alternatives * count > MOST_ALTERNATIVES:
                    self._drop(keyword, path, f"there are more than {MOST_ALTERNATIVES} combinations")
                else:
                    alternatives *= count
                    kept.append((keyword, part, count))
            parts = kept or parts[:1]
        said = [part if keyword == "" else self._part(keyword, part, path, depth) for keyword, part, _ in parts]
        if len(said) == 1:
            return said[0]
        return {"allOf": said} if said else {}

    def _part(self, keyword: str, part: dict[str, Any], path: str, depth: int) -> Said:
        if keyword == "$ref":
            return part
        if keyword == "allOf":
            return self._say(part, f"{path}/allOf", depth + 1)
        options = part[keyword]
        if keyword == "oneOf" and not self._are_disjoint(options):
            self._drop(keyword, path, "its options overlap as far as can be seen")
        said = [self._say(one, f"{path}/{keyword}/{number}", depth + 1) for number, one in enumerate(options)]
        return (
            {"anyOf": [one for one in said if one is not False]} if any(one is not False for one in said) else False
        )

    def _alternatives(self, schema: Any, depth: int = 0) -> int:
        """The number of combinations that a schema has; `MOST_ALTERNATIVES + 1` for more than can be counted."""
        if depth > DEEPEST:
            return MOST_ALTERNATIVES + 1
        counts = [len(schema[keyword]) for keyword in ("anyOf", "oneOf") if keyword in schema]
        for part in schema.get("allOf", ())[:10]:
            name = part["$ref"].rpartition("/")[2] if "$ref" in part else None
            if name is None:
                counts.append(self._alternatives(part, depth + 1))
            else:
                if name not in self._counts:
                    # Meanwhile: a definition that contains itself is left out by `_combined`, however many it has.
                    self._counts[name] = 1
                    self._counts[name] = self._alternatives(self._defs[name], depth + 1)
                counts.append(self._counts[name])
        return min(math.prod(counts), MOST_ALTERNATIVES + 1)

    def _target(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What a reference leads to, in one step."""
        if "$ref" not in schema:
            return schema
        target: dict[str, Any] = self._defs[schema["$ref"].rpartition("/")[2]]
        return target

    def _are_disjoint(self, options: list[dict[str, Any]]) -> bool:
        """Whether no value fits two of `options`: by their types, or by the choices of a required property."""
        targets = [self._target(option) for option in options]
        types = [set(_types(target)) | ({"integer"} if "number" in _types(target) else set()) for target in targets]
        if sum(map(len, types)) == len(set[str]().union(*types)):
            return True
        for name in targets[0].get("required", ()):
            parts = [target.get("properties", {}).get(name, {}) for target in targets]
            choices = [_members(part) for part in parts]
            if all(
                _types(target) == ("object",) and name in target.get("required", ()) and found
                for target, found in zip(targets, choices, strict=True)
            ):
                texts = [repr(one) for found in choices for one in found]
                return len(texts) == len(set(texts))
        return False

    def _own(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any] | Literal[False]:
        """What a schema says itself, not by what it refers to or combines."""
        types = _types(schema)
        if "enum" in schema or "const" in schema:
            return self._choices(schema, types, path)
        made: dict[str, Any] = {}
        if "type" in schema:
            made["type"] = schema["type"]
        if "number" in types:
            for keyword in _NUMBERS:
                if keyword in schema:
                    self._drop(keyword, path, "a grammar can't say it without losing numbers, such as 1e-9")
        elif "integer" in types:
            made |= self._integer(schema, path)
        if "string" in types:
            made |= self._text(schema, path)
        if "array" in types:
            made |= self._list(schema, path, depth)
        if "object" in types:
            made |= self._object(schema, path, depth)
        return made

    def _choices(self, schema: dict[str, Any], types: tuple[str, ...], path: str) -> dict[str, Any] | Literal[False]:
        keyword = "enum" if "enum" in schema else "const"
        members = [member for member in _members(schema) if _is_of(member, types)]
        length = sum(len(str(member)) for member in members)
        if len(members) > MOST_CHOICES or length > LONGEST_CHOICES or not all(map(_is_exact, members)):
            self._drop(keyword, path, f"a grammar can't hold more than {MOST_CHOICES} choices, or such large ones")
            return {"type": [one for one in TYPES if any(_is_of(member, (one,)) for member in members)]}
        self._take((len(members) + length // 10) // 20)
        return {"enum": members} if members else False

    def _integer(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        lowest = [math.ceil(schema["minimum"])] if "minimum" in schema else []
        lowest += [math.floor(schema["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in schema else []
        highest = [math.floor(schema["maximum"])] if "maximum" in schema else []
        highest += [math.ceil(schema["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in schema else []
        for keyword, bounds, choose in (("minimum", lowest, max), ("maximum", highest, min)):
            if bounds:
                if abs(choose(bounds)) <= LARGEST_INTEGER:
                    made[keyword] = choose(bounds)
                    self._take(4)
                else:
                    self._drop(keyword, path, "a grammar's integers end at 2^53")
        multiple = schema.get("multipleOf", 1)
        if multiple != 1:
            # llguidance knows no negative multiples.
            if multiple == int(multiple) and multiple <= MOST_MULTIPLE and made.get("minimum", -1) >= 0:
                made["multipleOf"] = int(multiple)
                self._take(4)
            else:
                self._drop("multipleOf", path, f"a grammar says it up to {MOST_MULTIPLE}, of integers from 0")
        return made

    def _text(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if "pattern" in schema:
            pattern = pattern_of_grammar(schema["pattern"], exact=self._strict)
            if pattern is None:
                self._drop("pattern", path)
            else:
                made["pattern"] = pattern
                self._take(1 + len(pattern) // 50)
        form = schema.get("format")
        if form in (ENFORCED_FORMATS if self._strict else FORMATS) and not made:
            made["format"] = form
        elif form is not None:
            self._drop("format", path)
        made |= self._count("minLength", schema, path, LEAST_WITH_PATTERN if made else MOST_CHARACTERS)
        return made | self._count("maxLength", schema, path, MOST_CHARACTERS)

    def _count(self, keyword: str, schema: dict[str, Any], path: str, most: int) -> dict[str, Any]:
        if keyword not in schema or (keyword.startswith("min") and schema[keyword] == 0):
            return {}
        if schema[keyword] > most:
            self._drop(keyword, path, f"a grammar counts up to {most} here")
            return {}
        self._take(1 if keyword.endswith("Length") else 1 + int(schema[keyword]) // 5)
        return {keyword: int(schema[keyword])}

    def _list(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if "prefixItems" in schema:
            made["prefixItems"] = [
                self._say(part, f"{path}/prefixItems/{number}", depth + 1)
                for number, part in enumerate(schema["prefixItems"])
            ]
        if "items" in schema:
            made["items"] = self._say(schema["items"], f"{path}/items", depth + 1)
        made |= self._count("minItems", schema, path, MOST_ITEMS)
        return made | self._count("maxItems", schema, path, MOST_ITEMS)

    def _object(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        required = schema.get("required", [])
        if len(properties.keys() - set(required)) > MOST_OPTIONAL:
            self._drop("properties", path, f"a grammar can't hold more than {MOST_OPTIONAL} optional properties")
            return {}
        made: dict[str, Any] = {}
        if "properties" in schema:
            made["properties"] = {
                name: self._say(part, f"{path}/properties/{name}", depth + 1) for name, part in properties.items()
            }
        known = [name for name in required if name in properties]
        if len(known) < len(required):
            self._drop("required", path, "it names what is not among the properties")
        if known:
            made["required"] = known
        others = schema.get("additionalProperties", True)
        said = {
            pattern_of_grammar(pattern, exact=self._strict): self._say(part, f"{path}/patternProperties", depth + 1)
            for pattern, part in patterns.items()
        }
        if len(said) > 1 or None in said or (said and properties):
            self._drop("patternProperties", path)
            others = True
        elif said:
            made["patternProperties"] = said
        if others is not True:
            made["additionalProperties"] = self._say(others, f"{path}/additionalProperties", depth + 1)
        if properties:
            for keyword in ("minProperties", "maxProperties"):
                if keyword in schema:
                    self._drop(keyword, path, "a grammar can say it only of an object without `properties`")
            return made
        made |= self._count("minProperties", schema, path, MOST_ITEMS)
        return made | self._count("maxProperties", schema, path, MOST_ITEMS)


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    types = schema.get("type", TYPES)
    return (types,) if isinstance(types, str) else tuple(types)


def _members(schema: Mapping[str, Any]) -> list[Any]:
    if "const" in schema:
        return [schema["const"]] if "enum" not in schema or schema["const"] in schema["enum"] else []
    return list(schema.get("enum", ()))


def _is_of(value: Any, types: Iterable[str]) -> bool:
    from jsonschema import Draft202012Validator

    return any(Draft202012Validator.TYPE_CHECKER.is_type(value, one) for one in types)


def _is_exact(value: Any) -> bool:
    """Whether llguidance reads a value of an enumeration as it is."""
    match value:
        case bool():
            return True
        case int():
            return abs(value) <= LARGEST_INTEGER
        case list():
            return all(map(_is_exact, value))
        case dict():
            return all(map(_is_exact, value.values()))
    return True


def _closure(names: set[str], uses: Mapping[str, set[str]]) -> set[str]:
    reached, pending = set[str](), list(names)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += uses[name]
    return reached


def _possible(defs: Mapping[str, Said]) -> set[str]:
    """The definitions that a value fits which ends, and does not contain itself for ever."""
    found = set[str]()
    while True:
        more = {name for name, part in defs.items() if name not in found and _is_possible(part, found)}
        if not more:
            return found
        found |= more


def _is_possible(said: Said, possible: set[str]) -> bool:
    if isinstance(said, bool):
        return said
    if "$ref" in said and not possible.issuperset(references({"$ref": said["$ref"]})):
        return False
    if "anyOf" in said and not any(_is_possible(part, possible) for part in said["anyOf"]):
        return False
    return all(_is_possible(part, possible) for part in said.get("allOf", ())) and bool(
        _possible_types(said, possible)
    )


def _possible_types(said: dict[str, Any], possible: set[str]) -> list[str]:
    def is_possible(kind: str) -> bool:
        for least, most in _RANGES.get(kind, ()):
            if least in said and most in said and said[least] > said[most]:
                return False
        if kind == "integer" and "minimum" in said and "maximum" in said:
            step = said.get("multipleOf", 1)
            return bool(said["maximum"] // step * step >= said["minimum"])
        if kind == "object":
            properties = said.get("properties", {})
            others = _is_possible(said.get("additionalProperties", True), possible)
            closed = not (properties or others or "patternProperties" in said)
            needed = [properties[name] for name in said.get("required", ())]
            return not (closed and "minProperties" in said) and all(_is_possible(part, possible) for part in needed)
        if kind == "array":
            least, first = said.get("minItems", 0), said.get("prefixItems", [])
            rest = [said.get("items", {})] if least > len(first) else []
            return all(_is_possible(part, possible) for part in [*first[:least], *rest])
        return True

    return [kind for kind in _types(said) if is_possible(kind)]


def _pruned(said: Said, possible: set[str]) -> Said:
    """`said` without parts that no value fits."""
    if isinstance(said, bool) or not _is_possible(said, possible):
        return said is True
    made: dict[str, Any] = {}
    for keyword, value in said.items():
        if keyword in ONE:
            made[keyword] = _pruned(value, possible)
        elif keyword in NAMED:
            made[keyword] = {name: _pruned(part, possible) for name, part in value.items()}
        elif keyword in SEVERAL:
            made[keyword] = [_pruned(part, possible) for part in value]
        else:
            made[keyword] = value
    types = _possible_types(said, possible)
    if len(types) < len(_types(said)):
        made["type"] = types
    if "anyOf" in made:
        made["anyOf"] = [part for part in made["anyOf"] if part is not False]
    return made
