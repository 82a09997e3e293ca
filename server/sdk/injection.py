"""Arguments of a tool that the model does not give: LangChain calls them injected."""

import inspect
import secrets
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_origin

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


@dataclass(frozen=True)
class Injected:
    """The names of a tool's injected arguments. `call_ids` get the id of the call, `runtimes` a `ToolRuntime`.
    `missing` are required, and there is nothing to inject."""

    call_ids: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def injected(tool: "BaseTool") -> Injected:
    """What must be injected into a call of `tool`."""
    from langchain_core.tools import InjectedToolCallId
    from langchain_core.tools.base import _is_injected_arg_type

    call_ids, runtimes, missing = list[str](), list[str](), list[str]()
    for name, (annotation, required) in {**_of_signature(tool), **_of_schema(tool)}.items():
        if not _is_injected_arg_type(annotation):
            continue
        if _is_injected_arg_type(annotation, injected_type=InjectedToolCallId):
            call_ids.append(name)
        elif _is_runtime(annotation):
            runtimes.append(name)
        elif required:
            missing.append(name)
    return Injected(tuple(call_ids), tuple(runtimes), tuple(missing))


def call_input(tool: "BaseTool", arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What to invoke `tool` with, for the model's `arguments`.

    A `ToolRuntime` has the call's id, and an empty state: there is no graph. It has no context and no store.
    """
    wanted, call_id = injected(tool), f"call_{secrets.token_hex(12)}"
    given = {**arguments, **dict.fromkeys(wanted.call_ids, call_id)}
    if wanted.runtimes:
        runtime = _runtime_class()(
            state={}, context=None, config={}, stream_writer=lambda _: None, tool_call_id=call_id, store=None
        )
        given |= dict.fromkeys(wanted.runtimes, runtime)
    if not wanted.call_ids:
        return given
    return {"type": "tool_call", "name": tool.name, "id": call_id, "args": given}


def _of_schema(tool: "BaseTool") -> dict[str, tuple[Any, bool]]:
    """The annotation of each argument, and whether it is required, by the class of its arguments."""
    from langchain_core.tools.base import get_all_basemodel_annotations

    model: Any = tool.args_schema
    if not isinstance(model, type):
        return {}
    fields = getattr(model, "model_fields", None) or getattr(model, "__fields__", {})
    found: dict[str, tuple[Any, bool]] = {}
    for name, annotation in get_all_basemodel_annotations(model).items():
        field = fields.get(name)
        required = getattr(field, "is_required", None)
        found[name] = annotation, bool(required() if required else getattr(field, "required", True))
    return found


def _of_signature(tool: "BaseTool") -> dict[str, tuple[Any, bool]]:
    """The same by the signature of its function."""
    names = tool._injected_args_keys
    if not names:
        return {}
    functions = (getattr(tool, "func", None), getattr(tool, "coroutine", None), tool._run, tool._arun)
    for function in filter(None, functions):
        parameters = inspect.signature(function).parameters
        if names <= parameters.keys():
            hints = typing.get_type_hints(getattr(function, "__func__", function), include_extras=True)
            return {name: (hints.get(name), parameters[name].default is inspect.Parameter.empty) for name in names}
    return {}


def _runtime_class() -> Any:
    """LangGraph's `ToolRuntime`; None where nobody has imported it."""
    return getattr(sys.modules.get("langgraph.prebuilt.tool_node"), "ToolRuntime", None)


def _is_runtime(annotation: Any) -> bool:
    kind, origin = _runtime_class(), get_origin(annotation) or annotation
    return kind is not None and isinstance(origin, type) and issubclass(origin, kind)
