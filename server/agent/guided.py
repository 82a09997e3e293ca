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
from .conversation import Act, Bounds, Choice, Quote, Statement, UnreadableReplyError
from .quotes import LEAST_CHARACTERS

SENTENCE_TOKENS = 96
SENTENCE_QUOTES = 2
"""Maximum number of quotes of a sentence."""
QUOTE_CHARACTERS = 240
STATEMENT_TOKENS = SENTENCE_TOKENS + SENTENCE_QUOTES * QUOTE_CHARACTERS // 2
"""What a sentence with its quotes takes at most, of a language with two characters to a token."""


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

    def repeat(self, lead: str, act: Act, written: str, tools: Mapping[str, Mapping[str, Any]]) -> None:
        protect = self._engine.tokenizer.protect
        made = f"{act.thought}{prompts.ACTION}{act.tool}{prompts.ACTION_INPUT}{act.input}"
        self._lm += guidance.string(written or lead + protect(made))

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

    def write_statements(self, passages: Mapping[int, str], most: int, max_tokens: int) -> list[Statement]:
        quotable = {number: text for number, text in passages.items() if len(text) >= LEAST_CHARACTERS}
        if not quotable or self.choose([prompts.NOWHERE, prompts.STATED]).option == prompts.NOWHERE:
            return []
        numbers = tuple(quotable)
        statements: list[Statement] = []
        end = self.length + max_tokens
        while len(statements) < most and (self.length + STATEMENT_TOKENS <= end or not statements):
            # The first sentence has to come: the model has said that there is one.
            self._lm += _sentence(numbers, may_end=bool(statements))
            if "number" not in self._lm:
                break
            sentence = str(self._lm["sentence"]).strip()
            quotes: list[Quote] = []
            while "number" in self._lm:
                number = int(self._lm["number"])
                self._lm = self._lm.remove("number")
                self._lm += _quote(quotable[number], numbers if len(quotes) + 1 < SENTENCE_QUOTES else ())
                quotes.append(Quote(number, str(self._lm["quote"])))
            if any(one.text == sentence for one in statements):
                break  # a small model that repeats itself goes on for ever
            statements.append(Statement(sentence, tuple(quotes)))
        return statements

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


@lru_cache(maxsize=16)
def _sentence(numbers: tuple[int, ...], may_end: bool) -> Prepared:
    """The grammar of a sentence up to its first quote or, if it `may_end`, of the end."""
    return _lark(
        f"start: {f'{_said(prompts.STATED_END)} | ' if may_end else ''}{_said(prompts.STATEMENT)} sentence open",
        f"sentence[capture, max_tokens={SENTENCE_TOKENS}]: /[^\\s\\[][^\\n\\[]+/",
        *_open(numbers),
    )


@lru_cache(maxsize=64)
def _quote(passage: str, numbers: tuple[int, ...]) -> Prepared:
    """The grammar of a quote up to its line's end or, where there are `numbers`, up to another quote. It is some
    whole words in a row of `passage`.

    See `substring_words` in https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. One passage at a
    time: 40 in one grammar take a fifth of a second to compile.
    """
    least = min(LEAST_CHARACTERS, len(passage)) - 2
    return _lark(
        rf'start: quote "\"]" ("\n"{" | open" if numbers else ""})',
        "quote[capture]: QUOTE",
        # It begins with a word: what comes before belongs to the sentence before.
        rf"QUOTE: WORDS & /[^ ,.;:!?)\]].{{{least},{QUOTE_CHARACTERS - 2}}}[^ ]/",
        f"WORDS: %regex {json.dumps({'substring_words': passage})}",
        *(_open(numbers) if numbers else ()),
    )


def _open(numbers: Sequence[int]) -> tuple[str, str]:
    """The rules of the number of a passage and the mark before its words."""
    return r'open: " "? "[" number " \""', f"number[capture]: {' | '.join(_said(str(number)) for number in numbers)}"


def _said(text: str) -> str:
    return json.dumps(text)


def _lark(*rules: str) -> Prepared:
    return Prepared(json.dumps({"grammars": [{"lark_grammar": "\n".join(rules)}]}))
