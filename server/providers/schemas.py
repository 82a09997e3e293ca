"""JSON schemas in the forms that providers accept: an object, and strict for OpenAI and Mistral.

In a strict schema each property is required, so an optional property may be null instead
(https://platform.openai.com/docs/guides/structured-outputs).
"""

import json
from collections.abc import Mapping
from typing import Any

ALLOWED_KEYWORDS = frozenset(
    "$ref description enum const type pattern format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf "
    "minItems maxItems".split()
)
"""Keywords that a strict schema may contain besides its structure. The others, such as maxLength, are dropped."""
NULL = {"type": "null"}


class NotStrictError(ValueError):
    """A schema has parts that a strict one can't have, such as an object with arbitrary names."""


def as_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` as an object schema, which some providers require."""
    if schema.get("type") == "object" and "properties" in schema:
        return dict(schema)
    value = {name: part for name, part in schema.items() if name != "$defs"}
    wrapped = {"type": "object", "properties": {"value": value}, "required": ["value"], "additionalProperties": False}
    return wrapped | ({"$defs": schema["$defs"]} if "$defs" in schema else {})


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A strict schema for the same values, with null for missing properties. Raises `NotStrictError`."""
    made = {name: value for name, value in schema.items() if name in ALLOWED_KEYWORDS}
    if "$defs" in schema:
        made["$defs"] = {name: strict(part) for name, part in schema["$defs"].items()}
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            made["anyOf"] = [strict(part) for part in schema[choice]]
    if "allOf" in schema:
        if len(schema["allOf"]) != 1:
            raise NotStrictError("a schema with allOf")
        made |= strict(schema["allOf"][0])
    if isinstance(schema.get("type"), list) and {"object", "array"}.intersection(schema["type"]):
        raise NotStrictError("an object or list that may be something else")
    if schema.get("type") == "object":
        if schema.get("additionalProperties", "properties" not in schema):
            raise NotStrictError("an object with names of any kind")
        required = schema.get("required", ())
        made["properties"] = {
            name: strict(part) if name in required else {"anyOf": [strict(part), NULL]}
            for name, part in schema.get("properties", {}).items()
        }
        made["required"] = list(made["properties"])
        made["additionalProperties"] = False
    if schema.get("type") == "array":
        if not schema.get("items") or "prefixItems" in schema:
            raise NotStrictError("a list with members of any kind")
        made["items"] = strict(schema["items"])
    if not made.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
        raise NotStrictError("a value of any kind")
    return made


def without_nulls(value: Any, schema: Mapping[str, Any], defs: Mapping[str, Any] | None = None) -> Any:
    """`value`, which fits `strict(schema)`, without the nulls of missing properties."""
    from jsonschema import Draft202012Validator

    defs = schema.get("$defs", {}) if defs is None else defs
    if "$ref" in schema:
        return without_nulls(value, defs.get(str(schema["$ref"]).rpartition("/")[2], {}), defs)
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        cleaned = without_nulls(value, part, defs)
        if Draft202012Validator({**part, "$defs": dict(defs)}).is_valid(cleaned):
            return cleaned
    if isinstance(value, dict):
        properties, required = schema.get("properties", {}), schema.get("required", ())
        return {
            name: without_nulls(one, properties.get(name, {}), defs)
            for name, one in value.items()
            if one is not None or name in required or name not in properties
        }
    if isinstance(value, list):
        return [without_nulls(one, schema.get("items", {}), defs) for one in value]
    return value


def as_asked(text: str, schema: Mapping[str, Any], is_strict: bool) -> str:
    """The JSON by the requested schema, from `text` by the schema that was sent. Unchanged if it was cut off."""
    sent = as_object(schema)
    if not is_strict and sent == schema:
        return text
    try:
        value = json.loads(text)
        if is_strict:
            value = without_nulls(value, sent)
        return json.dumps(value if sent == schema else value["value"], ensure_ascii=False)
    except (ValueError, KeyError, TypeError):
        return text
