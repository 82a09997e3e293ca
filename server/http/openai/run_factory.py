"""Making runs from requests, of the model itself or of an agent. Anthropic's API makes its runs here as well."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from server.completions.grammar import why_no_grammar
from server.completions.types import (
    Answer,
    Choices,
    Completion,
    Conversation,
    Grammar,
    Json,
    Message,
    Regex,
    Tool,
    with_texts,
)
from server.errors import InvalidRequestError, UnknownModelError
from server.host import Host
from server.http.auth import caller
from server.http.openai.chat_schemas import FORMS
from server.http.openai.errors import invalid
from server.http.openai.message_schemas import Part, RefusalPart, TextPart
from server.http.openai.schemas import FunctionDefinition, RunRequest
from server.http.run_schemas import LONGEST_QUESTION
from server.images.pictures import Intake
from server.runs import AgentResult, Run
from server.sdk.json_schema import UnusableSchemaError, arguments_form

if TYPE_CHECKING:
    from server.engine import GuidedEngine

OWN = "hearth"
"""The name of the default model; with a slash and a name after it, an agent."""
COMPLETION = "completion"
"""The agent's name in a run of the model itself."""
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
CALLED: dict[type[Answer], str] = {
    Json: "this JSON schema",
    Choices: "these texts",
    Regex: "this regular expression",
    Grammar: "this grammar",
}
AnyAnswer = TypeVar("AnyAnswer", bound=Answer)


def text_of(parts: Sequence[Part] | None, intake: Intake | None = None) -> str:
    """The text of a content, with the marks of its pictures. `intake`: takes them; None: they are refused. Raises
    what `Intake.mark` raises."""
    texts = []
    for part in parts or ():
        if isinstance(part, TextPart | RefusalPart):
            texts.append(part.text)
        elif intake is None:
            raise invalid("Only a message of the user may have pictures.", "messages")
        else:
            texts.append(intake.mark(part.url))
    return "\n".join(texts)


def tool_of(function: FunctionDefinition, *loc: str | int) -> Tool:
    """A tool of the client. Raises `InvalidRequestError` about `loc` if its arguments can't become a grammar."""
    try:
        schema = arguments_form(NO_ARGUMENTS if function.parameters is None else function.parameters)
    except UnusableSchemaError as error:
        raise _unusable(Json({}), str(error), *loc) from error
    strict = bool(function.strict)
    checked(Json(schema, strict), *loc)
    return Tool(function.name, function.description or "", schema, strict)


def json_of(schema: dict[str, Any] | None, strict: bool | None, *loc: str | int) -> Json:
    """The required JSON of an answer; without a schema, any object. Raises what `tool_of` raises."""
    return checked(Json({"type": "object"} if schema is None else schema, bool(strict)), *loc)


def checked(answer: AnyAnswer, *loc: str | int) -> AnyAnswer:
    """`answer` itself. Raises `InvalidRequestError` about `loc` if it can't become a grammar, and
    `GrammarTooComplexError`."""
    if reason := why_no_grammar(answer):
        raise _unusable(answer, reason, *loc)
    return answer


def _unusable(answer: Answer, reason: str, *loc: str | int) -> InvalidRequestError:
    return invalid(f"The model can't be held to {CALLED[type(answer)]}: {reason}.", *loc)


def conversation(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    choice: str | None,
    named: str | None,
    parallel: bool | None,
    answer: Answer | None,
    allowed: Sequence[str] | None = None,
) -> Conversation:
    """A conversation, and what its next message may be. `choice`: none, auto or required. `named`: the function that
    must be called. `allowed`: those that may be called; None: all. Raises `InvalidRequestError`."""
    if len({tool.name for tool in tools}) < len(tools):
        raise invalid("Two of the tools have the same name.", "tools")
    if missing := set(allowed or ()) - {tool.name for tool in tools}:
        raise invalid(f"tool_choice allows {min(missing)!r}, which is not among the tools.", "tool_choice")
    callable_ = [tool for tool in tools if named in (None, tool.name) and (allowed is None or tool.name in allowed)]
    must_call = choice == "required" or named is not None
    if must_call and not callable_:
        raise invalid("tool_choice wants a tool to be called that is not among the tools.", "tool_choice")
    if choice == "none":
        tools = callable_ = []
    return Conversation(tuple(messages), tuple(tools), tuple(callable_), must_call, parallel is not False, answer)


def start_run(host: Host, asked: RunRequest, completion: Completion) -> Run:
    """Start a run: of the agent that `asked.model` names, or of the model itself.

    Raises `UnknownModelError`, what `ResidentModels.ready` raises, `InvalidRequestError` for what an agent can't do,
    and what `Questions.start` raises.
    """
    if names_agent(asked):
        run = agent_run(host, asked, completion)
        host.questions.start(run)
        return run
    run, model = model_run(host, asked, completion)

    def work(engine: "GuidedEngine") -> AgentResult:
        from server.completions.generate import complete

        return complete(run, with_texts(completion, run.with_images), engine)

    host.questions.start_completion(run, work, model)
    return run


def model_run(host: Host, asked: RunRequest, completion: Completion) -> tuple[Run, str | None]:
    """A run of the model itself, not started yet, and the name of the model; None: the default one.

    Raises `UnknownModelError`, `InvalidRequestError`, and what `ResidentModels.ready` raises.
    """
    if asked.x_session_id is not None:
        raise invalid("A session is an agent's. Ask one, like hearth/react, or send the messages.", "x_session_id")
    names = resident_names(host)
    if asked.model not in names:
        raise UnknownModelError(
            f"There is no model {asked.model!r} here. There are: {', '.join(names)}, and agents. GET /v1/models "
            "lists them; POST /load_model makes another model resident."
        )
    source = completion.source
    shown = source[0] if isinstance(source, tuple) else source.messages[-1].content
    if not isinstance(shown, str):
        shown = f"{len(shown)} tokens: {' '.join(map(str, shown))}"
    run = Run(shown[:LONGEST_QUESTION], asked.x_workspace, 0, COMPLETION, owner=_owner(asked), key=caller().key)
    run.max_tokens, run.timeout = host.settings.MAX_TOKENS, host.settings.RUN_TIMEOUT
    run.add_images(completion.images)
    return run, None if asked.model == OWN else asked.model


def resident_names(host: Host) -> list[str]:
    """The names of the ready models. Raises what `ResidentModels.ready` raises."""
    return [*host.models.ready(), OWN]


def names_agent(asked: RunRequest) -> bool:
    """Whether the request names an agent, and not the model itself."""
    return asked.model.startswith(f"{OWN}/")


def most_tokens(host: Host, wanted: int | None, texts: int) -> int:
    """The token limit of each text: `wanted`, up to an equal share of the limit of a run."""
    most = max(host.settings.MAX_TOKENS // texts, 1)
    return most if wanted is None else min(wanted, most)


def agent_run(host: Host, asked: RunRequest, completion: Completion) -> Run:
    """A run of the agent that `asked.model` names, not started yet: the last message is its question, the earlier
    ones are its history. Raises `InvalidRequestError` for what an agent can't do."""
    agent = asked.model.removeprefix(f"{OWN}/")
    source, count = completion.source, completion.count
    if isinstance(source, tuple):
        count *= len(source)
        if not isinstance(source[0], str):
            raise invalid(f"Tokens are for the model itself: the agent {agent!r} reads a text.", "prompt")
        source = Conversation((Message("user", source[0]),))
    form = next((name for name in FORMS if getattr(asked, name, None) is not None), FORMS[0])
    wanted = {
        "tools": source.tools,
        form: source.answer or completion.answer,
        "chat_template_kwargs": source.template_arguments,
        "stop": completion.stop,
        "n": count > 1,
        "logprobs": completion.logprobs is not None,
        "echo": completion.echo,
        "max_tokens": completion.max_tokens == 0,
    }
    for name, given in wanted.items():
        if given:
            called = asked.names.get(name, name)
            raise invalid(f"{called} is for the model itself: the agent {agent!r} goes its own way.", called)
    *earlier, last = source.messages
    if last.role != "user" or not last.content.strip():
        raise invalid("An agent answers the last message, which has to be the user's, and not empty.", "messages")
    if any(message.calls or message.role == "tool" for message in earlier):
        raise invalid("An agent calls its own tools: the messages before can't have calls of others.", "messages")
    if asked.x_session_id is not None and any(message.role != "system" for message in earlier):
        raise invalid(
            "The session knows what was said before: send the new message alone, or the messages without "
            "x_session_id.",
            "x_session_id",
        )
    run = Run(last.content, asked.x_workspace, host.settings.MAX_STEPS, agent, owner=_owner(asked), key=caller().key)
    run.history = [{"role": message.role, "content": message.content} for message in earlier]
    run.max_tokens, run.timeout = completion.max_tokens, host.settings.RUN_TIMEOUT
    run.session_id = asked.x_session_id
    run.add_images(completion.images)
    return run


def _owner(asked: RunRequest) -> str:
    return caller().owner_in(asked.x_workspace)


def model_of(run: Run, asked: RunRequest) -> str:
    """The model's name in answers; for an agent, the name in the request."""
    return asked.model if names_agent(asked) else run.model or asked.model
