"""What clients get of a run, whether the model itself answers or an agent: its answer and its events in one form, and
counts of tokens. Anthropic's API has its answers from here as well."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Response

from server.errors import TokenLimitError
from server.http.openai.annotations import annotations_of
from server.http.openai.run_factory import COMPLETION
from server.http.sse import ServerSentEvent, stream, wait_for
from server.runs import Run
from server.runs.record import answer_of


def _by_the_model(run: Run) -> bool:
    """Whether the model itself answers. An agent may have the same name."""
    return run.agent == COMPLETION and run.generation is None


def answer_to(run: Run) -> dict[str, Any]:
    """Wait for the answer of a run, or for what an agent had when its tokens were used up. Raises the run's error."""
    try:
        return wait_for(run, detach=False)
    except TokenLimitError:
        if _by_the_model(run):
            raise
        return _cut_answer(run)


def events_to(run: Run, serialize: Callable[[ServerSentEvent], list[ServerSentEvent]]) -> Response:
    """The same as a stream of the events that `serialize` makes of the run's."""
    return stream(run, False, serialize, raises=lambda: not _is_cut(run))


def _is_cut(run: Run) -> bool:
    """Whether an agent's run has ended at its limit of tokens. The clients of OpenAI's API expect an answer then."""
    return isinstance(run.error, TokenLimitError) and not _by_the_model(run)


def _cut_answer(run: Run) -> dict[str, Any]:
    """What there is of an agent's answer at the limit of its tokens: its steps, and the text that it was writing."""
    assert run.error is not None, "it is cut"
    text = ""
    for event in run.events.since(0):
        if event.kind == "step":
            text = ""
        elif event.kind == "token" and event.data.get("tool") is None:
            text += event.data["text"]
    return {
        **answer_of(run, _Unfinished(run.steps, run.usage)),
        "thought": text.strip(),
        "error": run.error.to_dict()["error"],
    }


@dataclass
class _Unfinished:
    """See `AgentResult`."""

    steps: list[dict[str, Any]]
    usage: dict[str, int]
    answer: str = ""
    function: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    citations: tuple[()] = ()


def choices_of(run: Run, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The texts of a run that has ended, in the form of the event `choice`."""
    if _by_the_model(run):
        choices: list[dict[str, Any]] = answer["details"]["choices"]
        return choices
    return [
        {
            "index": 0,
            "content": answer["answer"],
            "thought": answer.get("thought", ""),
            "tool_calls": [],
            "annotations": annotations_of(answer),
            "finish_reason": "length" if _is_cut(run) else "stop",
            "usage": answer["usage"],
        }
    ]


def events_of(run: Run, event: ServerSentEvent) -> list[ServerSentEvent]:
    """An event of a run in the form of the model's own runs: an agent's text comes at the end, without its
    thoughts."""
    number, kind, data = event
    if kind == "error" and _is_cut(run):
        kind, data = "answer", _cut_answer(run)
        event = (number, kind, data)
    if _by_the_model(run) or kind not in ("token", "answer"):
        return [event]
    if kind == "token":
        return []
    [choice] = choices_of(run, data)
    return [(number, "token", {"text": choice["content"]}), (number, "choice", choice), event]


def token_counts(choices: Sequence[dict[str, Any]], texts: int) -> tuple[int, int, int]:
    """Tokens of the prompts, cached ones among them, and tokens of the `choices`, with `texts` for each prompt."""

    def total(among: Sequence[dict[str, Any]], *names: str) -> int:
        # An agent that calls no model may report no usage.
        return sum(choice["usage"].get(name, 0) for choice in among for name in names)

    prompts = choices[::texts]
    written = total(choices, "completion_tokens", "forced_tokens")
    return total(prompts, "prompt_tokens"), total(prompts, "cached_tokens"), written


def reasoning_tokens(choices: Sequence[dict[str, Any]]) -> int:
    """Tokens of the `choices` that are thoughts."""
    return sum(choice["usage"].get("reasoning_tokens", 0) for choice in choices)


def hearth_fields(run: Run, answer: dict[str, Any]) -> dict[str, Any]:
    """The fields of a run that OpenAI's answers have no place for."""
    shown_elsewhere = ("answer", "details") if _by_the_model(run) else ("answer", "thought")
    return {name: value for name, value in answer.items() if name not in shown_elsewhere}


def image_tokens(run: Run) -> dict[str, int]:
    """A detail of the prompt's tokens: the maximum that the run's pictures take each time that its model reads them,
    known before it does. Empty without pictures."""
    return {"image_tokens": sum(shown.tokens for shown in run.shown_images.values())} if run.images else {}
