"""JSON schemas in one form, whatever their draft, and their types in words."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from json import dumps, loads  # people's code may put something else in the place of `json.dumps`
from typing import Any

ONE = frozenset(
    "additionalProperties contains contentSchema else if items not propertyNames then unevaluatedItems "
    "unevaluatedProperties".split()
)
"""Keywords whose value is a schema."""
SEVERAL = frozenset("allOf anyOf oneOf prefixItems".split())
"""Keywords whose value is a list of schemas."""
NAMED = frozenset("dependentSchemas patternProperties properties".split())
"""Keywords whose value is schemas by name."""
REFERENCES = frozenset("$dynamicRef $recursiveRef $ref".split())
ANNOTATIONS = frozenset("default deprecated description examples readOnly title writeOnly".split())
COMBINING = frozenset("$ref allOf anyOf dependentSchemas if oneOf patternProperties".split())
"""Keywords by which an object may get properties that are not under its own `properties`."""
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
NEVER: dict[str, Any] = {"not": {}}
"""The schema that no value fits."""
_LEFT_OUT = frozenset(
    "$anchor $comment $defs $dynamicAnchor $id $recursiveAnchor $schema $vocabulary additionalItems "
    "definitions".split()
)
_COUNTS = frozenset(
    "maxContains maxItems maxLength maxProperties minContains minItems minLength minProperties".split()
)
_BOUNDS = frozenset("exclusiveMaximum exclusiveMinimum maximum minimum".split())
_REFERENCE_ALONE = frozenset("draft-03 draft-04 draft-06 draft-07".split())
"""Drafts in which nothing beside `$ref` counts."""
_FLAGS = frozenset("additionalProperties unevaluatedItems unevaluatedProperties".split())
"""Keywords of `ONE` that readers also know as true and false."""

MOST_CHOICES, LONGEST_CHOICES = 50, 2_000
"""Choices of an enumeration that are shown, and their characters."""
LONGEST_OBJECT, DEEPEST_OBJECT = 1_000, 3
"""Characters of an object whose properties are shown, and how many objects may stand inside each other."""


class UnusableSchemaError(ValueError):
    """A JSON schema can't be used. The message says where and why."""


def normal_form(schema: Any) -> dict[str, Any]:
    """`schema`, of any draft, as a schema of draft 2020-12 with the same meaning.

    Each subschema is an object, except that `additionalProperties` and the like may be true or false. References are
    `#/$defs/NAME`, and `$defs` holds what they refer to and nothing else. All numbers are finite: JSON has no
    others. Each name in `required` is also in `properties`, unless `additionalProperties` is false or names have
    patterns. Raises `UnusableSchemaError` if it is no JSON or no schema, or refers to nothing.
    """
    try:
        text = dumps(schema, ensure_ascii=False)
        text.encode()  # halves of surrogate pairs are no JSON
        root = loads(text)
        if not isinstance(root, dict | bool):
            raise UnusableSchemaError("a schema is an object, or true, or false")
        return _Reader(root).read_all()
    except UnusableSchemaError:
        raise
    except RecursionError as error:
        raise UnusableSchemaError("it is nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise UnusableSchemaError(f"it is no JSON: {error}") from error


def arguments_form(schema: Any) -> dict[str, Any]:
    """The normal form of a schema of a function's arguments: an object, with no other properties than those that the
    schema names, unless it says otherwise. Raises what `normal_form` raises, and if it is no object's."""
    made = normal_form(schema)
    types = made.get("type", "object")
    if "object" not in (types if isinstance(types, list) else [types]):
        raise UnusableSchemaError("the schema of a function's arguments must be an object's")
    made = {**made, "type": "object"} if "type" in made else {"type": "object", **made}
    if "properties" in made and not made.keys() & COMBINING:
        made.setdefault("additionalProperties", False)
    return made


def references(schema: Any) -> Iterator[str]:
    """The names in `$defs` that a normal form refers to outside of its `$defs`, some of them several times."""
    for keyword, value in schema.items():
        if keyword == "$ref":
            yield value.rpartition("/")[2]
        elif keyword in ONE and isinstance(value, dict):
            yield from references(value)
        elif keyword in SEVERAL or keyword in NAMED:
            for part in value.values() if keyword in NAMED else value:
                yield from references(part)


def describe_type(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """The type of a value in a few words, from a normal form and its root's `$defs`: the choices of an enumeration,
    the properties of an object. Long ones are cut."""
    return _Words(defs).describe(schema, 1)


class _Reader:
    """Reads one document. A resolver is None in the root's own part, where it is made when a reference needs it."""

    def __init__(self, root: Any) -> None:
        self._root = root
        dialect = root.get("$schema") if isinstance(root, dict) else None
        self._dialect = dialect if isinstance(dialect, str) else ""
        self._names: dict[int, str] = {}
        """Names in `$defs`, by the identity of what is referred to."""
        self._pending: list[tuple[str, Any, Any]] = []
        self._defs: dict[str, Any] = {}

    @cached_property
    def _draft(self) -> Any:
        from referencing.jsonschema import DRAFT202012, UnknownDialect, specification_with

        try:
            return specification_with(self._dialect) if self._dialect else DRAFT202012
        except UnknownDialect:
            return DRAFT202012

    @cached_property
    def _resolver(self) -> Any:
        from referencing import Registry

        return Registry().resolver_with_root(self._draft.create_resource(self._root))

    def read_all(self) -> dict[str, Any]:
        root: dict[str, Any] = self._read(self._root, "#", None)
        while self._pending:
            name, contents, resolver = self._pending.pop(0)
            self._defs[name] = self._read(contents, f"#/$defs/{name}", resolver)
        self._check_references(root)
        root = self._without_reference(root)
        used, reached = set[str](), list(references(root))
        while reached:
            name = reached.pop()
            if name not in used:
                used.add(name)
                reached += references(self._defs[name])
        defs = {name: part for name, part in self._defs.items() if name in used}
        return {"$defs": defs, **root} if defs else root

    def _check_references(self, root: dict[str, Any]) -> None:
        """Raises `UnusableSchemaError` for references that lead back to where they are, with nothing between."""
        ends = set[str]()

        def follow(schema: dict[str, Any], path: tuple[str, ...]) -> None:
            for part in schema.get("allOf", ()):
                follow(part, path)
            if "$ref" in schema:
                [name] = references({"$ref": schema["$ref"]})
                if name in path:
                    raise UnusableSchemaError(
                        f"#/$defs/{name} refers to itself and to nothing else: {' -> '.join([*path, name])}"
                    )
                if name not in ends:
                    follow(self._defs[name], (*path, name))
                    ends.add(name)

        follow(root, ())
        for name, part in self._defs.items():
            follow(part, (name,))

    def _without_reference(self, root: dict[str, Any]) -> dict[str, Any]:
        """The root, with what it refers to in the place of its reference, where this stands alone."""
        followed = set[str]()
        while "$ref" in root and root.keys() <= {"$ref", *ANNOTATIONS}:
            [name] = references(root)
            if name in followed:
                raise UnusableSchemaError("it refers to itself and to nothing else")
            followed.add(name)
            root = {**self._defs[name], **{key: value for key, value in root.items() if key != "$ref"}}
        return root

    def _read(self, schema: Any, path: str, resolver: Any) -> dict[str, Any]:
        if isinstance(schema, bool):
            return {} if schema else dict(NEVER)
        if not isinstance(schema, dict):
            raise UnusableSchemaError(f"{path} must be a schema")
        if isinstance(schema.get("$id"), str) and schema is not self._root:
            resolver = (resolver or self._resolver).in_subresource(self._draft.create_resource(schema))
        made: dict[str, Any] = {}
        alone = "$ref" in schema and any(draft in self._dialect for draft in _REFERENCE_ALONE)
        for keyword, value in schema.items():
            if not alone or keyword == "$ref" or keyword in ANNOTATIONS:
                _check(keyword, value, path)
                made |= self._keyword(keyword, value, schema, path, resolver)
        if "required" in made and "patternProperties" not in made:
            properties, others = made.get("properties", {}), made.get("additionalProperties", True)
            missing = [name for name in made["required"] if name not in properties]
            if missing and others is not False:
                made["properties"] = {**properties, **dict.fromkeys(missing, {} if others is True else others)}
        return made

    def _keyword(self, keyword: str, value: Any, schema: dict[str, Any], path: str, resolver: Any) -> dict[str, Any]:
        """What a keyword of `schema` becomes."""

        def read(part: Any, *names: str | int) -> dict[str, Any]:
            return self._read(part, "/".join([path, keyword, *map(str, names)]), resolver)

        match keyword, value:
            case _ if keyword in _LEFT_OUT:
                return {}
            case _ if keyword in REFERENCES:
                return self._reference(value, path, resolver)
            case "items", list():
                rest = {"items": read(schema["additionalItems"])} if "additionalItems" in schema else {}
                return {"prefixItems": [read(part, number) for number, part in enumerate(value)], **rest}
            case _, bool() if keyword in _FLAGS:
                return {keyword: value}
            case _ if keyword in ONE:
                return {keyword: read(value)}
            case _ if keyword in SEVERAL:
                return {keyword: [read(part, number) for number, part in enumerate(value)]}
            case _ if keyword in NAMED:
                return {keyword: {name: read(part, name) for name, part in value.items()}}
            case "dependencies", dict():
                names = {name: part for name, part in value.items() if isinstance(part, list)}
                parts = {name: read(part, name) for name, part in value.items() if name not in names}
                return {"dependentRequired": names, "dependentSchemas": parts}
            case (("type" | "required"), list()):
                distinct = list(dict.fromkeys(value))
                return {keyword: distinct[0] if keyword == "type" and len(distinct) == 1 else distinct}
            case (("exclusiveMinimum" | "exclusiveMaximum"), bool()):  # draft 4
                bound = "minimum" if keyword == "exclusiveMinimum" else "maximum"
                return {keyword: schema[bound]} if value and bound in schema else {}
            case "enum", list():
                members = [member for member in value if _is_finite(member)]
                return {keyword: members} if members else {}
        return {keyword: value} if _is_finite(value) else {}

    def _reference(self, reference: str, path: str, resolver: Any) -> dict[str, Any]:
        from referencing.exceptions import Unresolvable

        try:
            found = (resolver or self._resolver).lookup(reference)
        except Unresolvable as error:
            raise UnusableSchemaError(f"{path}: the reference {reference!r} leads nowhere") from error
        except (AttributeError, TypeError) as error:  # it looks through all of the document
            raise UnusableSchemaError(f"{path}: {reference!r} leads through what is no schema") from error
        if not isinstance(found.contents, dict):
            return self._read(found.contents, path, None)
        name = self._names.get(id(found.contents))
        if name is None:
            name = self._new_name(reference.rpartition("/")[2].lstrip("#") or "root")
            self._names[id(found.contents)] = name
            self._pending.append((name, found.contents, found.resolver))
        return {"$ref": f"#/$defs/{name}"}

    def _new_name(self, wanted: str) -> str:
        name = wanted = re.sub(r"[^A-Za-z0-9_.-]", "_", wanted)
        number = 1
        while name in self._names.values():
            number += 1
            name = f"{wanted}_{number}"
        return name


class _Words:
    """Describes the parts of one document, each definition once at each depth."""

    def __init__(self, defs: Mapping[str, Any]) -> None:
        self._defs = defs
        self._known: dict[tuple[str, int], str] = {}

    def describe(self, schema: Mapping[str, Any], depth: int) -> str:
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            if (name, depth) not in self._known:
                self._known[name, depth] = "any"  # what it is inside of itself, where no object comes between
                self._known[name, depth] = self.describe(self._defs.get(name, {}), depth)
            return self._known[name, depth]
        if "enum" in schema or "const" in schema:
            return _choices(schema["enum"] if "enum" in schema else [schema["const"]])
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return " | ".join(dict.fromkeys(self.describe(part, depth) for part in schema[choice]))
        if len(schema.get("allOf", ())) == 1 and "type" not in schema:
            return self.describe(schema["allOf"][0], depth)
        types = schema.get("type", "any")
        if isinstance(types, list):
            return " | ".join(self.describe({**schema, "type": one}, depth) for one in types)
        if types == "array":
            if "prefixItems" in schema:
                return f"[{', '.join(self.describe(part, depth) for part in schema['prefixItems'])}]"
            return f"list of {self.describe(schema.get('items', {}), depth)}"
        if types == "object" and schema.get("properties") and depth <= DEEPEST_OBJECT:
            return self._object(schema, depth)
        return str(types)

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        required = schema.get("required", ())
        parts = (
            f"{name}{'' if name in required else '?'}: {self.describe(part, depth + 1)}"
            for name, part in schema["properties"].items()
        )
        text = f"{{{', '.join(parts)}}}"
        return text if len(text) <= LONGEST_OBJECT else "object"


def _choices(values: list[Any]) -> str:
    shown, length = list[str](), 0
    for value in values[:MOST_CHOICES]:
        text = dumps(value, ensure_ascii=False)
        length += len(text)
        if shown and length > LONGEST_CHOICES:
            break
        shown.append(text)
    left = len(values) - len(shown)
    return " | ".join([*shown, f"... ({left} more)"] if left else shown)


def _check(keyword: str, value: Any, path: str) -> None:
    """Whether a keyword's value is of its kind, as far as readers rely on it."""
    if keyword in REFERENCES | {"format", "pattern"}:
        fits, kind = isinstance(value, str), "text"
    elif keyword in NAMED | {"dependencies", "dependentRequired"}:
        fits, kind = isinstance(value, dict), "an object"
    elif keyword in SEVERAL | {"enum"}:
        fits, kind = isinstance(value, list) and bool(value), "a list, and not empty"
    elif keyword == "required":
        fits, kind = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of names"
    elif keyword == "type":
        types = value if isinstance(value, list) else [value]
        fits, kind = bool(types) and all(one in TYPES for one in types), f"among {', '.join(TYPES)}"
    elif keyword in _COUNTS:
        fits, kind = _is_number(value) and value >= 0 and value == value // 1, "a count"
    elif keyword in _BOUNDS:
        draft_4 = keyword.startswith("exclusive") and isinstance(value, bool)
        fits, kind = draft_4 or _is_number(value), "a number"
    elif keyword == "multipleOf":
        fits, kind = _is_number(value) and value > 0, "a number above 0"
    else:
        return
    if not fits:
        raise UnusableSchemaError(f"{path}: {keyword} must be {kind}, not {value!r:.80}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list) or all(map(_is_finite, value))
