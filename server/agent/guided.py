"""A conversation with the resident model. Grammars constrain everything that has a fixed form."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import guidance
from guidance import gen, select
from guidance.library import capture

from server.sdk import GuidedModel, Prepared, grammar_schema, logprobs

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

    def write_code(self, max_tokens: int) -> str:
        self._lm += (
            prompts.FENCE + gen("code", max_tokens=max_tokens, stop=prompts.FENCE_END) + prompts.FENCE_END + "\n"
        )
        return str(self._lm["code"]).strip("\n")

    def write_json(self, schema: Mapping[str, Any], max_tokens: int) -> Any:
        self._lm += guidance.json("value", schema=grammar_schema(schema), max_tokens=max_tokens)
        try:
            return json.loads(self._lm["value"])
        except ValueError as error:
            raise UnreadableReplyError(f"The model's JSON was incomplete after {max_tokens} tokens.") from error

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
    """The grammar of a thought with a tool call or an answer. `schemas`: name and JSON schema (text) of each tool."""
    choices = []
    for number, (name, schema) in enumerate(schemas):
        choice = prompts.ACTION + capture(guidance.string(name), "tool")
        if may_call:
            # Different names: guidance treats two `json` with the same name as equal, even if their schemas differ.
            choice += prompts.ACTION_INPUT + guidance.json(
                f"input_{number}", schema=grammar_schema(json.loads(schema)), max_tokens=bounds.input
            )
        choices.append(choice)
    answer = prompts.ANSWER + gen("answer", max_tokens=bounds.answer)
    thought = gen("thought", regex=r"[^\n]+", max_tokens=bounds.thought)
    return Prepared((lead + thought + select([*choices, answer])).ll_grammar())
