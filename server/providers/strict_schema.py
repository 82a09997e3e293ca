"""OpenAI's strict JSON schemas: the only ones that it holds a reply to. Each property is required there, so what may
be left out may be null in its place (https://platform.openai.com/docs/guides/structured-outputs)."""

from collections.abc import Mapping
from typing import Any

KEPT = frozenset(
    "$ref description enum const type pattern format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf "
    "minItems maxItems".split()
)
"""What a strict schema may say besides its structure; of the rest, such as a text's length, it says nothing."""
NULL = {"type": "null"}


class NotStrictError(ValueError):
    """A schema has parts that no strict one can have, such as an object with any names."""


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A strict schema that admits what `schema` does, and null for what may be left out. Raises `NotStrictError`."""
    made = {name: value for name, value in schema.items() if name in KEPT}
    if "$defs" in schema:
        made["$defs"] = {name: strict(part) for name, part in schema["$defs"].items()}
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            made["anyOf"] = [strict(part) for part in schema[choice]]
    if "allOf" in schema:
        if len(schema["allOf"]) != 1:
            raise NotStrictError("a schema with allOf")
        made |= strict(schema["allOf"][0])
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
    """`value`, which fits `strict(schema)`, without the nulls that stand for what was left out."""
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
