"""Messages with tool calls for a model whose chat template has none: thought, action, observation, as text (ReAct,
https://arxiv.org/abs/2210.03629).

The labels are those of the default agent, on which the embedded model is trained.
"""

import re

from server.completions import grammar
from server.completions.prompt_format import Reply
from server.completions.types import Conversation, Json, Tool
from server.engine.engine import GuidedEngine
from server.engine.tokenizer import EngineTokenizer
from server.sdk.json_schema import describe_type

SYSTEM = """\
Answer the question. Use a tool when one fits; answer directly when none is needed.

Tools:
{tools}

Write each step as
Thought: what to do next
Action: the name of a tool
Action Input: its arguments as JSON
Observation: what the tool gave
and at the end
Thought: why this is enough
Answer: the answer"""
NO_TOOLS = "(none)"
THOUGHT, ACTION, INPUT = "Thought: ", "\nAction: ", "\nAction Input: "
OBSERVATION, NEXT_THOUGHT, ANSWER = "\nObservation: ", "\nThought: ", "\nAnswer: "
#: Used if the client did not send the model's thought back.
CALLING, KNOWING = "I use {tool}.", "Now I know the answer."
FORCED = "I use a tool."
"""The thought before a call that has to be made with few tokens."""

THOUGHT_TOKENS = 160


class ReactFormat:
    """See `PromptFormat`. A message has at most one call, with a thought before it.

    A call that has to be made within few tokens has no thought: the prompt ends where the model's choice begins.
    """

    def __init__(self, conversation: Conversation, max_tokens: int | None = None) -> None:
        """`max_tokens`: of the completion; None: enough."""
        self._conversation = conversation
        is_short = max_tokens is not None and max_tokens < 2 * THOUGHT_TOKENS
        self._head = _head(conversation) if conversation.must_call and is_short else ""
        """The beginning of the message, where the prompt has it."""
        listed = "\n".join(map(_listed, conversation.tools)) or NO_TOOLS
        system = [message.content for message in conversation.messages if message.role == "system"]
        self._messages = [{"role": "system", "content": "\n\n".join([SYSTEM.format(tools=listed), *system])}]
        self._open = ""
        """The beginning of the message that the model continues: its calls and their results are one message, until
        the user writes again."""
        for message in conversation.messages:
            if message.role == "user":
                if self._open:
                    self._messages.append({"role": "assistant", "content": self._open})
                    self._open = ""
                self._messages.append({"role": "user", "content": message.content})
            elif message.role == "tool":
                self._open += OBSERVATION + message.content
            elif message.calls:
                thought = message.thought or message.content or CALLING.format(tool=message.calls[0].name)
                self._open += self._lead + thought
                self._open += "".join(ACTION + call.name + INPUT + call.arguments for call in message.calls)
            elif message.role == "assistant":
                self._open += self._lead + KNOWING + ANSWER + message.content if self._open else message.content

    @property
    def _lead(self) -> str:
        return NEXT_THOUGHT if self._open else THOUGHT

    def given(self, engine: GuidedEngine) -> None:
        return None

    def prompt(self, tokenizer: EngineTokenizer) -> str:
        head = self._lead + self._head if self._head else ""
        chat = tokenizer.render_chat(self._messages, None, self._conversation.template_arguments)
        return chat + tokenizer.protect(self._open) + head

    def grammar(self, tokenizer: EngineTokenizer) -> str:
        conversation = self._conversation
        if self._head:
            return f"start: {self._call_rule(after=self._head)}\n"
        ways = []
        if conversation.callable:
            ways.append(f"{grammar.literal(ACTION)} ({self._call_rule(after=ACTION)})")
        rules = f"thought[max_tokens={THOUGHT_TOKENS}]: /[^\\n]+/\n"
        if not conversation.must_call:
            ways.append(f"{grammar.literal(ANSWER)} answer")
            rules += grammar.answer_rule(conversation.answer)
        return f"start: {grammar.literal(self._lead)} thought ({' | '.join(ways)})\n{rules}"

    def _call_rule(self, after: str) -> str:
        """The calls that may follow the text `after`, which ends with the mark of a call or with a tool's too."""
        return " | ".join(
            f"{grammar.literal(tool.name + INPUT) if after.endswith(ACTION) else ''} "
            f"{grammar.json_by(Json(tool.parameters, tool.strict))}"
            for tool in self._conversation.callable
        )

    def read(self, written: str, ended: bool) -> Reply:
        whole = self._head + written if self._head else written.lstrip().removeprefix(THOUGHT)
        parts = re.split(f"({ACTION}|{ANSWER})", whole, maxsplit=1)
        thought, mark, rest = parts if len(parts) == 3 else (whole, "", "")
        if mark == ANSWER:
            return Reply(rest, start=len(written) - len(rest))
        if not ended:
            return Reply("")
        name, given, arguments = rest.partition(INPUT)
        return Reply("", ((name, arguments),) if given else (), "" if self._head else thought.strip())


def _head(conversation: Conversation) -> str:
    """The beginning of a message without the model's own thought: up to the tool's name, or after it if there is one
    tool alone."""
    if len(conversation.callable) > 1:
        return FORCED + ACTION
    name = conversation.callable[0].name
    return CALLING.format(tool=name) + ACTION + name + INPUT


def _listed(tool: Tool) -> str:
    """A tool in one line: `- description: name(argument: type, optional?: type)`."""
    required, defs = tool.parameters.get("required", ()), tool.parameters.get("$defs", {})
    arguments = ", ".join(
        f"{argument}{'' if argument in required else '?'}: {describe_type(part, defs)}"
        for argument, part in tool.parameters.get("properties", {}).items()
    )
    return f"- {' '.join(tool.description.split()).removesuffix('.')}: {tool.name}({arguments})"
