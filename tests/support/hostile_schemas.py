"""JSON schemas that take minutes or gigabytes to compile or to follow, and requests to `/v1` that have them."""

from typing import Any

from hypothesis import strategies as st

HOSTILE: dict[str, dict[str, Any]] = {
    "a billion items": {"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000_000},
    "five million items": {"type": "array", "items": {"type": "integer"}, "minItems": 5_000_000},
    "multiples": {"type": "integer", "multipleOf": 999_983},
    "more multiples": {"type": "integer", "multipleOf": 9_999_991},
}
SLOW_PATTERN = {"type": "string", "pattern": "^(.*[a-f].{40}[0-9].{30})*$"}


def completion(schema: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return {
        "model": "hearth",
        "messages": [{"role": "user", "content": "Write."}],
        "max_tokens": 8,
        "response_format": answer,
        **fields,
    }


def with_tool(schema: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    tool = {"type": "function", "function": {"name": "take", "description": "Takes.", "parameters": parameters}}
    return {
        "model": "hearth",
        "messages": [{"role": "user", "content": "Take it."}],
        "max_tokens": 8,
        "tools": [tool],
        "tool_choice": "required",
    }


NUMBERS = st.one_of(
    st.integers(-10, 10),
    st.sampled_from(
        [0.1, 1e-9, 999_983, 9_999_991, 5_000_000, 10**9, 2**31, 2**63, 2**64, 10**30, -(10**9), 6.02e23]
    ),
)
COUNTS = st.one_of(st.integers(0, 5), st.sampled_from([1_000, 100_000, 5_000_000, 10**9, 2**63]))
PATTERNS = st.sampled_from(
    [
        "^a+$",
        "^(.*[a-f].{40}[0-9].{30})*$",
        "(a{1000}){1000}",
        "((a?){50}){50}",
        "^(a|b|ab)*c$",
        ".{0,100000}",
        "(?=x)",
    ]
)


def schemas() -> st.SearchStrategy[Any]:
    """JSON schemas with hostile numbers."""

    def keywords(kind: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries({"type": st.just(kind)}, optional=optional)

    leaves = st.one_of(
        st.sampled_from([{}, {"type": "boolean"}, {"type": "null"}, {"const": "x" * 5000}, {"$ref": "#"}]),
        *(
            keywords(kind, multipleOf=NUMBERS, minimum=NUMBERS, maximum=NUMBERS, exclusiveMinimum=NUMBERS)
            for kind in ("integer", "number")
        ),
        keywords("string", minLength=COUNTS, maxLength=COUNTS, pattern=PATTERNS),
        st.builds(lambda count: {"enum": [f"value {n}" for n in range(count)]}, st.sampled_from([1, 30, 20_000])),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            keywords("array", items=inner, minItems=COUNTS, maxItems=COUNTS, prefixItems=st.lists(inner, max_size=2)),
            keywords(
                "object",
                properties=st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3),
                additionalProperties=inner,
                minProperties=COUNTS,
                maxProperties=COUNTS,
            ),
            st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some}),
            st.lists(inner, min_size=1, max_size=3).map(lambda some: {"allOf": some}),
        ),
        max_leaves=6,
    )
