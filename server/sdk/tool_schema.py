"""What a call of a tool takes, as a JSON schema."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from server.sdk.json_schema import arguments_form

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool
    from pydantic.fields import FieldInfo

_PLAIN = (str, int, float, bool, NoneType)
#: Schemas that are remembered. Pydantic takes over half a millisecond for each, and every load of the code makes all
#: its tools anew.
_MOST = 2_000

_known: dict[tuple[Any, ...], dict[str, Any]] = {}


def arguments_schema(tool: "BaseTool") -> dict[str, Any]:
    """The JSON schema of the arguments that a caller of `tool` gives, in the tool's own order, and no others: in
    normal form (see `server.sdk.json_schema.normal_form`), with all conditions, also those that no grammar can say.

    What LangChain injects itself is left out. Raises `UnusableSchemaError` if it is no schema of an object, and
    whatever the tool's own types raise when no schema can be made of them.
    """
    key = _key(tool)
    if key is None:
        return _made(tool)
    schema = _known.get(key)
    if schema is None:
        schema = _made(tool)
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = schema
    return dict(schema)


def _made(tool: "BaseTool") -> dict[str, Any]:
    given: Any = tool.tool_call_schema
    if not isinstance(given, Mapping):
        # Classes of pydantic's first version have another name for it.
        given = given.model_json_schema() if hasattr(given, "model_json_schema") else given.schema()
    return arguments_form(given)


def _key(tool: "BaseTool") -> tuple[Any, ...] | None:
    """All that `tool_call_schema` makes a schema of, where that is plain values; None where types are in it that say
    themselves what their schema is."""
    from langchain_core.tools import StructuredTool
    from pydantic import BaseModel

    model = tool.args_schema
    # A class of somebody's own may make its schema in another way.
    if type(tool) is not StructuredTool or not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None
    fields = tuple(_traits(name, field) for name, field in model.model_fields.items())
    return None if None in fields else (tool.name, tool.description, model.__doc__, fields)


def _traits(name: str, field: "FieldInfo") -> tuple[Any, ...] | None:
    from pydantic_core import PydanticUndefined

    default = field.default
    if field.metadata or field.default_factory or not _is_plain(field.annotation):
        return None
    if not (default is PydanticUndefined or _is_plain(type(default))):
        return None
    # As text: unions are equal in any order, and their schemas are not.
    return name, repr(field.annotation), field.description, type(default), default


def _is_plain(annotation: Any) -> bool:
    if annotation in _PLAIN:
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return all(type(value) in _PLAIN for value in arguments)
    return origin in (list, dict, Union, UnionType) and all(map(_is_plain, arguments))
