"""The tools that the model is shown for a question, where there are more than it should read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.tools import BaseTool

from server.sdk import (
    ApiModel,
    GuidedModel,
    ToolFailedError,
    arguments_schema,
    call_tool,
    has_code,
    has_documents,
    has_images,
    job_tools,
    shown_tools,
)

from . import prompts
from .agent import Step
from .coder_tool import CODER, CODER_SCHEMA, CoderTool
from .document_tool import SCHEMA as SEARCH_SCHEMA
from .document_tool import TOOL as SEARCH
from .document_tool import DocumentTool
from .look_tool import LOOK, LOOK_SCHEMA, LookTool
from .tool_ranking import once_for_tools, rank

# The share of the context length for the list of tools. The rest has to hold a session's history as well.
SHARE = 1 / 3
# How many tools the model finds at once, and how many of those that the session has called are shown in any case.
FOUND, FROM_SESSION = 8, 5

Described = tuple[str, str, Mapping[str, Any]]
"""A tool as the prompts list it: name, description, JSON schema of its arguments."""

FIND_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"query": {"type": "string"}},
    "required": ["query"],
    "additionalProperties": False,
}


class ShownTools:
    """The tools that a model is shown, in the order of `tools`, so that equal sets are equal prompts.

    These are all tools, if there are at most HEARTH_TOOLS_SHOWN and they fit `SHARE` of the model's context length.
    Otherwise the tools that were called before come first, then those that `rank` finds, then others. The model then
    has a further tool, `find_tools`, and the run's readers get the names of what it is shown.

    Where there may be jobs, it has the tools about them as well; where the session has files or variables, the tool
    `coder`; where there are pictures, `look_at_image`; where there are documents to read, `search_documents`. A tool
    of the workspace with such a name takes its place.
    """

    def __init__(
        self,
        model: GuidedModel | ApiModel,
        tools: Mapping[str, BaseTool],
        question: str,
        history: Sequence[Mapping[str, str]] = (),
        called: Iterable[str] = (),
    ) -> None:
        """`history`: the messages before the question. `called`: the tools that the run has called already. They are
        shown in any case, and so are the last ones that its session has called."""
        self._tools = tools
        self._job_tools = {name: tool for name, tool in job_tools().items() if name not in tools}
        self._coder = None if CODER in tools or not has_code() else CoderTool(model, question, history)
        self._look = None if LOOK in tools or not has_images() else LookTool(model)
        self._documents = None if SEARCH in tools or not has_documents() else DocumentTool()
        self._catalogue = _catalogue(tools)
        self._most_tokens = int(model.context_length * SHARE)
        self._sizes = self._catalogue.sizes.setdefault(model, {})
        self._count = model.tokenizer.count if model.guided else model.count
        most = shown_tools.most() or len(tools)
        self._names = list(tools)
        if len(tools) > most or not self._all_fit():
            self._names = self._choose(most, called, question, history)
        if self.is_partial:
            shown_tools.tell(self._names)

    @property
    def is_partial(self) -> bool:
        """Whether there are tools that are not shown."""
        return len(self._names) < len(self._tools)

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """The JSON schemas of what the model may call now, by name: nothing about jobs before there is one."""
        unusable = {name for name, tool in self._job_tools.items() if not tool.is_usable}
        return {name: schema for name, _, schema in self.described() if name not in unusable}

    def described(self) -> list[Described]:
        """What the model may call."""
        listed = [self._catalogue.described[name] for name in self._names]
        listed += [(name, tool.description, tool.schema_now()) for name, tool in self._job_tools.items()]
        if self._coder is not None:
            listed.append((CODER, self._coder.description, CODER_SCHEMA))
        if self._look is not None:
            listed.append((LOOK, self._look.description, LOOK_SCHEMA))
        if self._documents is not None:
            listed.append((SEARCH, self._documents.description, SEARCH_SCHEMA))
        return [*listed, (shown_tools.FIND_TOOLS, prompts.FIND_TOOLS, FIND_SCHEMA)] if self.is_partial else listed

    def listed(self) -> str:
        """The list of the tools for a prompt of a model that calls none of them itself."""
        return prompts.list_tools(self._catalogue.described[name] for name in self._names)

    def call(self, name: str, given: Mapping[str, Any], seconds: float) -> str:
        """The result of a tool, as `call_tool` gives it. Raises what that raises."""
        tool = self._tools.get(name) or self._job_tools.get(name)
        if tool is None and name == CODER and self._coder is not None:
            return self._coder.call(given.get("task"))
        if tool is None and name == LOOK and self._look is not None:
            return self._look.call(given.get("name"), given.get("question"))
        if tool is None and name == SEARCH and self._documents is not None:
            return self._documents.call(given.get("query"))
        return self.find(given.get("query")) if tool is None else call_tool(tool, given, seconds)

    def inner_steps(self) -> list[Step]:
        """The steps that a tool has made itself since the last call, and has sent already."""
        return [] if self._coder is None else self._coder.taken()

    def find(self, query: Any) -> str:
        """The list of the best tools for `query` that were not shown so far. From now on they are shown. Raises
        `ToolFailedError` if the query is no text."""
        if not isinstance(query, str):
            raise ToolFailedError("the query has to be a text.")
        known = set(self._names)
        found = [name for name in rank(query, self._tools) if name not in known][:FOUND]
        if not found:
            return prompts.NOTHING_FOUND
        self._names += found
        shown_tools.tell(self._names)
        return prompts.list_tools(self._catalogue.described[name] for name in found)

    def _choose(
        self, most: int, called: Iterable[str], question: str, history: Sequence[Mapping[str, str]]
    ) -> list[str]:
        """The names of up to `most` tools, as many as fit, and one in any case."""
        # A question such as "and for copper?" is about what the one before it was about.
        before = next((one["content"] for one in reversed(history) if one["role"] == "user"), None)
        ranked = rank(question if before is None else f"{question}\n{question}\n{before}", self._tools)
        of_session = [name for name in shown_tools.of_session() if name in self._tools][:FROM_SESSION]
        chosen = {name for name in (*called, *of_session) if name in self._tools}
        left = self._most_tokens - sum(map(self._size, chosen))
        others = [name for name in dict.fromkeys((*ranked, *self._tools)) if name not in chosen]
        # The lengths of lines are asked of the server: not of all tools for the sake of a last place.
        for name in others[: 2 * most]:
            if len(chosen) < most and ((size := self._size(name)) <= left or not chosen):
                left -= size
                chosen.add(name)
        return [name for name in self._tools if name in chosen]

    def _all_fit(self) -> bool:
        # No token is shorter than a byte.
        if self._catalogue.bytes <= self._most_tokens:
            return True
        return sum(map(self._size, self._tools)) <= self._most_tokens

    def _size(self, name: str) -> int:
        """The tokens of a tool's line."""
        if name not in self._sizes:
            self._sizes[name] = self._count(prompts.describe_tool(*self._catalogue.described[name]) + "\n")
        return self._sizes[name]


@dataclass(frozen=True)
class _Catalogue:
    """What is the same for all questions to a generation. `bytes`: of the whole list. `sizes`: tokens of a tool's
    line, by model and name."""

    described: dict[str, Described]
    bytes: int
    sizes: WeakKeyDictionary[Any, dict[str, int]] = field(default_factory=WeakKeyDictionary)


@once_for_tools
def _catalogue(tools: Mapping[str, BaseTool]) -> _Catalogue:
    described: dict[str, Described] = {
        name: (name, tool.description, arguments_schema(tool)) for name, tool in tools.items()
    }
    return _Catalogue(described, len(prompts.list_tools(described.values()).encode("utf-8", "replace")))
