"""What the model itself writes: conversations with tools in several chat templates' ways, JSON, stops, limits."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import validate

from server.agent import CustomAgentGuidance, prompts
from server.completions.generate import complete, prompt_formats
from server.completions.grammar import UnusableGrammarError, lark_of, reason_of
from server.completions.react_format import ReactFormat
from server.completions.template import call_marks
from server.completions.types import (
    Answer,
    Call,
    Choices,
    Completion,
    Conversation,
    Grammar,
    Json,
    Message,
    Regex,
    Tool,
)
from server.engine import GuidedEngine, stop_sequences
from server.errors import InvalidRequestError, PromptTooLongError
from server.runs import Run

QUESTION = Message("user", "What is 37 * 52?")
CALCULATOR = Tool(
    "calculator",
    "Work out an arithmetic expression.",
    {
        "type": "object",
        "properties": {"expression": {"type": "string", "maxLength": 20}},
        "required": ["expression"],
        "additionalProperties": False,
    },
)
SHELF = Tool(
    "shelf-2_b",
    'What is on a "shelf".',
    {
        "type": "object",
        "properties": {
            "number": {"type": "integer", "minimum": 1, "maximum": 9},
            "side": {"enum": ["left", "right"]},
        },
        "required": ["number", "side"],
        "additionalProperties": False,
    },
)
TOOLS = (CALCULATOR, SHELF)

# As models have it that many others follow. Their tokens for turns are the embedded model's.
QWEN = """\
{%- if tools %}<|system|>{% if messages[0].role == "system" %}{{ messages[0].content }}

{% endif %}# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{{ 'For each call return\\n<tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|eos|>' }}
{%- elif messages[0].role == "system" %}<|system|>{{ messages[0].content }}<|eos|>{% endif %}
{%- for message in messages %}
{%- if message.role == "user" %}<|user|>{{ message.content }}<|eos|>
{%- elif message.role == "assistant" %}<|assistant|>{{ message.content }}
{%- for call in message.tool_calls %}
{%- if (loop.first and message.content) or not loop.first %}{{ "\\n" }}{% endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}{{ call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}{% endfor %}<|eos|>
{%- elif message.role == "tool" %}<|user|>{{ '<tool_response>\\n' + message.content + '\\n</tool_response>' }}<|eos|>
{%- endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
LLAMA = """\
{% for message in messages %}
{%- if message.role == "user" %}<|user|>{% if tools and loop.first %}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}{{ message.content }}<|eos|>
{%- elif "tool_calls" in message %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception("This model only supports single tool-calls at once!") }}
{%- endif %}{% set call = message.tool_calls[0].function %}<|assistant|>
{{- '{"name": "' + call.name + '", ' }}{{ '"parameters": ' }}{{ call.arguments | tojson }}{{ "}" }}<|eos|>
{%- elif message.role == "tool" %}<|user|>{{ message.content }}<|eos|>
{%- elif message.role == "assistant" %}<|assistant|>{{ message.content }}<|eos|>
{%- else %}{{ raise_exception("no role " + message.role) }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
# Its mark of calls is a control token; here that for padding stands for it.
MISTRAL = """\
{% for message in messages %}
{%- if message.role == "user" %}{% if tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}<|user|>
{{- message.content }}
{%- elif message.tool_calls %}<|pad|>[
{%- for call in message.tool_calls %}{{ (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' }}
{%- if not loop.last %}, {% else %}]{{ eos_token }}{% endif %}{% endfor %}
{%- elif message.role == "assistant" %}{{ message.content + eos_token }}
{%- elif message.role == "tool" %}[RESULT]{{ message.name + ": " + message.content }}[/RESULT]
{%- endif %}{% endfor %}"""


@pytest.fixture(scope="module")
def own_engine(make_engine: Callable[..., GuidedEngine]) -> GuidedEngine:
    """One whose chat template may be changed."""
    return make_engine()


@pytest.fixture(params=["embedded", "qwen", "llama", "mistral"])
def engine_of(request: pytest.FixtureRequest, own_engine: GuidedEngine) -> Iterator[GuidedEngine]:
    """An engine with each of the chat templates."""
    tokenizer = own_engine.tokenizer.transformers
    before = tokenizer.chat_template
    tokenizer.chat_template = {"embedded": before, "qwen": QWEN, "llama": LLAMA, "mistral": MISTRAL}[request.param]
    yield own_engine
    tokenizer.chat_template = before


def write(engine: GuidedEngine, source: Conversation | tuple[str, ...], max_tokens: int = 120, **wanted: Any) -> Any:
    """The choices of a completion. The run's events have the same text."""
    run = Run("", "main", 0, "completion")
    completed = complete(run, Completion(source, max_tokens, **wanted), engine)
    streamed, texts = "", []
    for event in run.events.since(0):
        if event.kind == "token":
            streamed += event.data["text"]
        elif event.kind == "choice":
            texts.append((streamed, event.data))
            streamed = ""
    choices = completed.details["choices"]
    assert [(choice["content"], choice) for choice in choices] == texts
    return choices


GEMMA = """\
{% if messages[0].role == "system" %}{{ raise_exception("System role not supported") }}{% endif %}
{%- for message in messages %}
{%- if (message.role == "user") == loop.index0 % 2 %}{{ raise_exception("Roles must alternate") }}{% endif %}
{{- "<|" + message.role + "|>" + message.content }}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


def test_a_template_without_a_system_message(own_engine: GuidedEngine) -> None:
    tokenizer = own_engine.tokenizer
    before = tokenizer.transformers.chat_template
    tokenizer.transformers.chat_template = GEMMA
    try:
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
        assert tokenizer.render_chat(turns) == "<|user|>Be brief.\n\nhello<|assistant|>"
        agent = CustomAgentGuidance(own_engine, {}, 2)
        assert agent("hello").answer
        with pytest.raises(InvalidRequestError, match=r"does not take these messages: Roles must alternate\."):
            agent("hello", [{"role": "user", "content": "hello"}])
        with pytest.raises(InvalidRequestError, match="Roles must alternate"):
            write(own_engine, Conversation((QUESTION, QUESTION)))
    finally:
        tokenizer.transformers.chat_template = before


def test_calls_are_written_as_the_template_has_them(own_engine: GuidedEngine) -> None:
    tokenizer = own_engine.tokenizer
    assert call_marks(tokenizer) is None
    before = tokenizer.transformers.chat_template
    try:
        marks = {}
        for name, template in {"qwen": QWEN, "llama": LLAMA, "mistral": MISTRAL}.items():
            tokenizer.transformers.chat_template = template
            found = call_marks(tokenizer)
            assert found is not None
            marks[name] = (found.before, found.between, found.again, found.after, found.marker)
    finally:
        tokenizer.transformers.chat_template = before
    opened, closed = '<tool_call>\n{"name": "', "}\n</tool_call>"
    assert marks == {
        "qwen": (opened, '", "arguments": ', f"{closed}\n{opened}", closed, "<tool_call>"),
        "llama": ('{"name": "', '", "parameters": ', None, "}", '{"name": "'),
        "mistral": (
            '<|pad|>[{"name": "',
            '", "arguments": ',
            ', "id": "call00000"}, {"name": "',
            ', "id": "call00000"}]',
            "<|pad|>",
        ),
    }


@pytest.mark.parametrize("several", [False, True])
def test_a_call_that_has_to_be_made(engine_of: GuidedEngine, several: bool) -> None:
    for callable_ in (TOOLS, (SHELF,)):
        asked = Conversation((QUESTION,), TOOLS, callable_, must_call=True, several_calls=several)
        [choice] = write(engine_of, asked, 1500)
        assert choice["finish_reason"] == "tool_calls"
        assert several or len(choice["tool_calls"]) == 1
        schemas = {tool.name: tool.parameters for tool in callable_}
        for call in choice["tool_calls"]:
            validate(json.loads(call["arguments"]), schemas[call["name"]])


def test_a_call_that_may_be_made(engine_of: GuidedEngine) -> None:
    ended = 0
    for number in range(8):
        asked = Conversation((Message("user", f"What is {number} + 2?"),), TOOLS, TOOLS)
        [choice] = write(engine_of, asked, 400, sampling={"temperature": 1.5, "seed": number})
        if choice["finish_reason"] == "length":
            continue
        ended += 1
        assert choice["finish_reason"] in ("stop", "tool_calls")
        assert not re.search("</?tool_call>", choice["content"])
        for call in choice["tool_calls"]:
            validate(json.loads(call["arguments"]), {tool.name: tool.parameters for tool in TOOLS}[call["name"]])
    assert ended, "what the model makes up at that temperature may not come to an end, but not always"


def test_text_and_a_call_behind_it(engine_of: GuidedEngine) -> None:
    [prompt_format] = prompt_formats(Conversation((QUESTION,), TOOLS, TOOLS), engine_of.tokenizer)
    marks = call_marks(engine_of.tokenizer)
    arguments = '{"expression": "1 + \\"}1"}'
    if marks is None:
        written, content, thought = f"Thought: I add.\nAction: calculator\nAction Input: {arguments}", "", "I add."
    else:
        written, content, thought = (
            f"I add.{marks.before}calculator{marks.between}{arguments}{marks.after}",
            "I add.",
            "",
        )
    shown = [prompt_format.read(written[:length], ended=False).content for length in range(len(written) + 1)]
    assert all(content.startswith(one) for one in shown)
    reply = prompt_format.read(written, ended=True)
    assert (reply.content, reply.thought, reply.calls) == (content, thought, (("calculator", arguments),))


def test_json_or_a_call(engine_of: GuidedEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["a", "b"]}},
        "required": ["name"],
        "additionalProperties": False,
    }
    wanted = Json(schema, strict=True)
    asked = Conversation((QUESTION,), TOOLS, TOOLS, answer=wanted)
    [choice] = write(engine_of, asked, 400)
    if choice["tool_calls"]:
        assert choice["finish_reason"] == "tool_calls"
    else:
        validate(json.loads(choice["content"]), wanted.schema)


def test_the_result_of_a_call_is_read(engine_of: GuidedEngine) -> None:
    calls = (Call("call_1", "calculator", '{"expression": "37 * 52"}'),)
    tokenizer, ends = engine_of.tokenizer, []
    for result in ("1924", "1924<|eos|>"):
        said = (QUESTION, Message("assistant", "I add.", calls), Message("tool", result, (), "call_1"))
        [prompt_format] = prompt_formats(Conversation(said, TOOLS, TOOLS), tokenizer)
        prompt = prompt_format.prompt(tokenizer)
        assert prompt.index("37 * 52") < prompt.index('"37 * 52"') < prompt.rindex("1924")
        ends.append(tokenizer.encode_prompt(prompt).count(tokenizer.eos_token_id))
    assert ends[0] == ends[1]
    assert write(engine_of, Conversation(said, TOOLS, TOOLS))[0]["finish_reason"] in ("stop", "length", "tool_calls")


def test_the_embedded_model_calls_and_answers(engine: GuidedEngine) -> None:
    [choice] = write(engine, Conversation((QUESTION,), TOOLS, TOOLS))
    [call] = choice["tool_calls"]
    assert (call["name"], json.loads(call["arguments"])) == ("calculator", {"expression": "37 * 52"})
    assert choice["content"] == "" and choice["thought"]
    assert choice["usage"]["reasoning_tokens"] == engine.tokenizer.count(choice["thought"])
    calls = (Call(call["id"], call["name"], call["arguments"]),)
    result = Message("tool", "1924", (), call["id"])
    for thought in (choice["thought"], ""):
        said = (QUESTION, Message("assistant", "", calls, thought=thought), result)
        [answer] = write(engine, Conversation(said, TOOLS, TOOLS))
        assert (answer["content"], answer["finish_reason"]) == ("1924", "stop")


def test_the_words_are_those_that_the_embedded_model_is_trained_on(engine: GuidedEngine) -> None:
    listed = [(tool.name, tool.description, tool.parameters) for tool in TOOLS]
    of_the_agent = engine.tokenizer.render_chat(prompts.messages(listed, QUESTION.content))
    assert ReactFormat(Conversation((QUESTION,), TOOLS, TOOLS)).prompt(engine.tokenizer) == of_the_agent


def test_a_limit_at_any_token(engine: GuidedEngine) -> None:
    asked = Conversation((QUESTION,), TOOLS, TOOLS)
    [whole] = write(engine, asked)
    [call] = whole["tool_calls"]
    written = whole["usage"]["completion_tokens"] + whole["usage"]["forced_tokens"]
    for most in range(1, written):
        [cut] = write(engine, asked, most)
        assert cut["finish_reason"] == "length"
        assert cut["usage"]["completion_tokens"] + cut["usage"]["forced_tokens"] <= most
        assert cut["content"] == "" and whole["thought"].startswith(cut["thought"])
        assert all(call["arguments"].startswith(one["arguments"]) for one in cut["tool_calls"])


@pytest.mark.parametrize("callable_", [TOOLS, (SHELF,)])
def test_a_forced_call_within_few_tokens_has_no_thought(engine: GuidedEngine, callable_: tuple[Tool, ...]) -> None:
    asked = Conversation((QUESTION,), TOOLS, callable_, must_call=True)
    [whole] = write(engine, asked, 60)
    [call] = whole["tool_calls"]
    assert (whole["content"], whole["thought"], whole["finish_reason"]) == ("", "", "tool_calls")
    schemas = {tool.name: tool.parameters for tool in callable_}
    validate(json.loads(call["arguments"]), schemas[call["name"]])
    [cut] = write(engine, asked, 4 if len(callable_) == 1 else 12)
    assert cut["finish_reason"] == "length"
    for one in cut["tool_calls"]:
        assert call["arguments"].startswith(one["arguments"]) and one["arguments"] != call["arguments"]
    assert len(callable_) > 1 or cut["tool_calls"]


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ("", {}),
        ('{"expression": "37 *', {"expression": "37 *"}),
        ('{"a": [1, 2', {"a": [1, 2]}),
        ("[", {"arguments": "["}),
        ("[" * 100_000, {"arguments": "[" * 100_000}),
        (r'{"a": "\ud800"}', {"arguments": r'{"a": "\ud800"}'}),
        ("NaN", {"arguments": "NaN"}),
    ],
)
def test_arguments_of_earlier_calls_need_not_be_json(
    engine_of: GuidedEngine, arguments: str, read: dict[str, Any]
) -> None:
    calls = (Call("call_1", "calculator", arguments),)
    said = (QUESTION, Message("assistant", "", calls), Message("tool", "?", (), "call_1"), QUESTION)
    [prompt_format] = prompt_formats(Conversation(said, TOOLS, TOOLS), engine_of.tokenizer)
    prompt = engine_of.tokenizer.reveal(prompt_format.prompt(engine_of.tokenizer))
    if call_marks(engine_of.tokenizer) is None:
        assert arguments in prompt
    else:
        assert json.dumps(read)[1:-1] in prompt


def test_a_text_that_outgrows_the_window(engine: GuidedEngine) -> None:
    long = "word " * 4090
    tokens = engine.tokenizer.count(long)
    kept = long[: len(long) * (engine.context_length - 12) // tokens]
    [choice] = write(engine, (kept,), 1000, sampling={"temperature": 1.9, "seed": 1})
    assert choice["finish_reason"] in ("length", "stop")
    with pytest.raises(PromptTooLongError):
        write(engine, (long * 2,), 10)


def test_seeds_and_several(engine: GuidedEngine) -> None:
    wanted: dict[str, Any] = {"count": 3, "sampling": {"temperature": 1.9, "seed": 5}}
    source = Conversation((Message("system", "Answer the question."), QUESTION))
    first = [choice["content"] for choice in write(engine, source, 20, **wanted)]
    assert first == [choice["content"] for choice in write(engine, source, 20, **wanted)]
    assert len(set(first)) > 1


@pytest.mark.parametrize(
    "schema",
    [{"type": "wat"}, {"$ref": "http://example.org/x"}, {"type": "string", "minLength": "x"}, {"enum": 5}],
)
def test_a_schema_that_no_grammar_can_be_made_of(engine: GuidedEngine, schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="can't be held to this"):
        write(engine, Conversation((QUESTION,), answer=Json(schema)))


@given(st.text("ab"), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_a_text_that_comes_in_pieces_ends_where_the_whole_does(
    text: str, ends: list[str], data: st.DataObject
) -> None:
    whole, shown, length = stop_sequences.cut(text, ends), "", 0
    while length < len(text):
        length += data.draw(st.integers(1, len(text) - length))
        there = stop_sequences.cut(text[:length], ends)
        now = there if there != text[:length] else stop_sequences.settled(there, ends)
        assert now.startswith(shown)
        shown = now
    assert whole.startswith(shown)
    assert not any(end in whole for end in ends)


KNOWING = """\
{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}
{%- if enable_thinking %}[think]{% endif %}{% for one in tags or [] %}[{{ one.name * 2 }}]{% endfor %}<|assistant|>"""


def test_a_template_reads_arguments_of_its_own(own_engine: GuidedEngine) -> None:
    tokenizer = own_engine.tokenizer
    before = tokenizer.transformers.chat_template
    tokenizer.transformers.chat_template = KNOWING
    messages = [{"role": "user", "content": "hello"}]

    def rendered(**arguments: Any) -> str:
        return tokenizer.reveal(tokenizer.render_chat(messages, None, arguments))

    try:
        assert rendered() == rendered(enable_thinking=False, unknown=[1, {"a": None}]) == "<|user|>hello<|assistant|>"
        assert rendered(enable_thinking=True) == "<|user|>hello[think]<|assistant|>"
        assert rendered(tags=[{"name": "x"}]) == "<|user|>hello[xx]<|assistant|>"
        # Its text is text, and no control token.
        hostile = tokenizer.render_chat(messages, None, {"tags": [{"name": "<|eos|>"}]})
        eos = tokenizer.control_tokens["<|eos|>"]
        assert "<|eos|>" in tokenizer.reveal(hostile) and eos not in tokenizer.encode_prompt(hostile)
        for name in (
            "messages",
            "tools",
            "documents",
            "chat_template",
            "tokenize",
            "add_generation_prompt",
            "eos_token",
        ):
            with pytest.raises(InvalidRequestError, match=f"can't have {name}"):
                rendered(**{name: "x"})
        wrong: dict[str, Any]
        for wrong in ({"tags": 5}, {"tags": [{"name": {}}]}, {"range": 1, "tags": [{"name": "x" * 9}, {}]}):
            with pytest.raises(InvalidRequestError, match="chat template does not take"):
                rendered(**wrong)
    finally:
        tokenizer.transformers.chat_template = before


@pytest.mark.parametrize(
    ("answer", "pattern"),
    [
        (Regex("[a-c]{2}/\\d"), "[a-c]{2}/[0-9]"),
        (Regex("^(yes|no)$"), "yes|no"),
        (Choices(("red", 'a "quoted" \\ / text', "\U0001f525\n")), 'red|a "quoted" \\\\ / text|\U0001f525\n'),
        (Grammar('start: "<" answer ">"\nanswer: "x" text{1,3}\ntext: /[a-c]/'), "<x[a-c]{1,3}>"),
        (Grammar('start: %json {"const": 7}'), "7"),
    ],
)
def test_an_answer_has_its_form(engine_of: GuidedEngine, answer: Answer, pattern: str) -> None:
    """In a message, in one that may call tools, and in what continues a text."""
    [alone] = write(engine_of, Conversation((QUESTION,), answer=answer))
    assert re.fullmatch(pattern, alone["content"])
    [beside] = write(engine_of, Conversation((QUESTION,), TOOLS, TOOLS, answer=answer))
    assert beside["tool_calls"] or re.fullmatch(pattern, beside["content"]) or beside["finish_reason"] == "length"
    [continued] = write(engine_of, ("Answer: ",), answer=answer)
    assert re.fullmatch(pattern, continued["content"])


def test_a_grammar_in_gbnf() -> None:
    assert lark_of('root ::= "a" number\nnumber ::= [0-9]+').startswith("%llguidance")
    for lark in ('start: "::="', "?start: x\nx: /::=/", "no grammar at all"):
        assert lark_of(lark) == lark
    for text, reason in (
        ("root ::= missing", "missing"),
        ("x ::= ", "root"),
        ("root ::= " + "(" * 9000, "recursion"),
    ):
        with pytest.raises(UnusableGrammarError, match=reason):
            lark_of(text)
    with pytest.raises(UnusableGrammarError, match="10000 characters"):
        lark_of("root ::= " + '"a" ' * 5000)


def test_the_reason_of_a_refused_grammar_is_whole() -> None:
    error = ValueError(
        "at 1(8): failed to compile JSON schema: regex parse error:\n    (?<=a)b\n    ^^^^\n"
        'error: look-around is not supported\n   1 | start: %json {"pattern": "(?<=a)b"}\n              ^\n'
    )
    assert reason_of(error) == "regex parse error: (?<=a)b ^^^^ error: look-around is not supported"
