"""A conversation with the resident model: whatever has a fixed form is constrained by a grammar."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import guidance
from guidance import gen, select
from guidance.library import capture

from server.sdk import GuidedModel, Prepared, logprobs

from . import prompts
from .conversation import Act, Bounds, Choice, UnreadableReplyError


class GuidedConversation:
    """See `Conversation`."""

    def __init__(self, engine: GuidedModel, messages: list[dict[str, str]]) -> None:
        self._engine = engine
        self._lm = engine.program() + guidance.string(engine.tokenizer.render_chat(messages))

    @property
    def window(self) -> int:
        return self._engine.context_length

    @property
    def length(self) -> int:
        return self._engine.tokenizer.count(str(self._lm))

    def add(self, text: str) -> None:
        self._lm += guidance.string(self._engine.tokenizer.protect(text))

    def cut(self, text: str, tokens: int) -> str:
        return self._engine.tokenizer.cut(text, tokens)

    def write(self, lead: str, max_tokens: int) -> str:
        self._lm += lead + gen("text", max_tokens=max_tokens)
        return str(self._lm["text"]).strip()

    def write_json(self, schema: Mapping[str, Any], max_tokens: int) -> Any:
        self._lm += guidance.json("value", schema=dict(schema), max_tokens=max_tokens)
        try:
            return json.loads(self._lm["value"])
        except ValueError as error:
            raise UnreadableReplyError(f"The model's JSON was not done after {max_tokens} tokens.") from error

    def choose(self, options: Sequence[str]) -> Choice:
        with logprobs.measured() as measured:
            self._lm += select(list(options), name="option")
        return Choice(self._lm["option"], math.exp(measured.log_probability))

    def act(self, lead: str, tools: Mapping[str, Mapping[str, Any]], may_call: bool, bounds: Bounds) -> Act:
        schemas = tuple((name, json.dumps(schema)) for name, schema in tools.items())
        self._lm += _step(lead, schemas, may_call, bounds)
        thought = str(self._lm["thought"]).strip()
        if "answer" in self._lm:
            return Act(thought, answer=str(self._lm["answer"]).strip())
        tool = str(self._lm["tool"])
        return Act(thought, tool, self._lm[f"input_{list(tools).index(tool)}"] if may_call else None)


@lru_cache(maxsize=64)
def _step(lead: str, schemas: tuple[tuple[str, str], ...], may_call: bool, bounds: Bounds) -> Prepared:
    """A thought, then the call of a tool or an answer. `schemas` are those of the tools' arguments, as JSON."""
    choices = []
    for number, (name, schema) in enumerate(schemas):
        choice = prompts.ACTION + capture(guidance.string(name), "tool")
        if may_call:
            # A name for each: guidance takes two `json` of one name for the same, whatever their schemas are.
            # Lenient: what a grammar can't say, such as that the members of a list differ, the tool checks.
            choice += prompts.ACTION_INPUT + guidance.json(
                f"input_{number}", schema=schema, max_tokens=bounds.input, lenient=True
            )
        choices.append(choice)
    answer = prompts.ANSWER + gen("answer", max_tokens=bounds.answer)
    thought = gen("thought", regex=r"[^\n]+", max_tokens=bounds.thought)
    return Prepared((lead + thought + select([*choices, answer])).ll_grammar())
