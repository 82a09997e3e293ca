"""A run's trace: its model calls, with their prompts, and its steps in short lines."""

import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from server.bounds import shortened

if TYPE_CHECKING:
    from server.sdk.model_call import ModelCall

MOST_CHARACTERS = 16_000_000
"""Maximum length of a trace's texts, in characters. Of later model calls only the numbers are recorded."""
CALL_CHARACTERS = 100
"""What a model call counts besides its texts."""
WHOLE_EVERY = 64
"""Each 64th call has its whole prompt, so that a prompt is read from at most 64 calls."""
LONGEST_THOUGHT = 200


@dataclass(frozen=True)
class TracedCall:
    """A model call as it is saved. `number`: from 1. `step`: the number of the step, from 1, that was being made; the
    answer is the step after the last one. `tool`: the tool that asked; None: the agent.

    The prompt is the first `shared` characters of prompt and text of the call before, and then `rest`. `rest` and
    `written` are None if the trace was too long already. `tokens`, `chosen`, `prompt_tokens`, `bos`: see `ModelCall`.
    """

    number: int
    step: int
    tool: str | None
    kind: Literal["text", "messages"]
    shared: int
    rest: str | None
    written: str | None
    tokens: Sequence[int]
    chosen: frozenset[int]
    details: Mapping[str, Any] = field(default_factory=dict)
    """`seconds`, `usage`, `sampling`, `prompt_tokens`, `bos`, `has_images`."""

    @property
    def is_cut(self) -> bool:
        """Whether its texts were not recorded."""
        return self.rest is None

    @property
    def written_tokens(self) -> int:
        """Tokens that it wrote, chosen by the model or forced by a grammar."""
        used = self.details["usage"]
        return int(used["completion_tokens"] + used["forced_tokens"])


class Trace:
    """The model calls of a run, while it is in flight. Safe for any number of threads."""

    def __init__(self) -> None:
        self._calls: list[TracedCall] = []
        self._text = ""
        """Prompt and text of the last call."""
        self._characters = 0
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._calls)

    def calls(self) -> list[TracedCall]:
        """The calls so far, in the order of their ends."""
        with self._changing:
            return list(self._calls)

    def add(self, call: "ModelCall", step: int, tool: str | None) -> None:
        """Add a call that has ended; see `TracedCall`."""
        details = {
            "seconds": call.seconds,
            "usage": dict(vars(call.usage)),
            "sampling": dict(call.sampling),
            "prompt_tokens": call.prompt_tokens,
            "bos": call.bos,
            "has_images": call.has_images,
        }
        with self._changing:
            number = len(self._calls) + 1
            shared = 0 if number % WHOLE_EVERY == 1 else shared_prefix(self._text, call.prompt)
            rest: str | None = call.prompt[shared:]
            written: str | None = call.written
            self._characters += len(call.prompt) - shared + len(call.written) + len(call.tokens) + CALL_CHARACTERS
            tokens, chosen = array("I", call.tokens) if not call.has_images else array("I"), call.chosen
            if self._characters > MOST_CHARACTERS:
                shared, rest, written, tokens, chosen = 0, None, None, array("I"), frozenset()
            else:
                self._text = call.prompt + call.written
            self._calls.append(
                TracedCall(number, step, tool, call.kind, shared, rest, written, tokens, chosen, details)
            )


def with_prompts(calls: Iterable[TracedCall]) -> Iterator[tuple[TracedCall, str]]:
    """Each call with its prompt, which is empty if it was not recorded. The first call must have its whole prompt."""
    text = ""
    for call in calls:
        if call.rest is None or call.written is None:
            yield call, ""
            continue
        prompt = text[: call.shared] + call.rest
        yield call, prompt
        text = prompt + call.written


def shared_prefix(one: str, two: str) -> int:
    """The number of characters that two texts have in common at their beginnings."""
    least, most = 0, min(len(one), len(two))
    if one[:most] == two[:most]:
        return most
    while most - least > 1:
        middle = (least + most) // 2
        if one[least:middle] == two[least:middle]:
            least = middle
        else:
            most = middle
    return least


@dataclass(frozen=True)
class Line:
    """A step in a list. `seconds`: from the end of the step before to its own; None if unknown. `tokens`: what the
    model wrote for it. `written`: the text of the model call that made it; None if that is not exactly one, or not
    recorded. `tool_seconds`: `seconds` without the model calls of the agent."""

    tool: str
    thought: str
    seconds: float | None
    tokens: int
    model_calls: int
    has_error: bool
    written: str | None = None
    tool_seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As lists show it."""
        return {name: value for name, value in vars(self).items() if name != "written"}


def lines(
    steps: Sequence[Mapping[str, Any]], ends: Sequence[float] = (), calls: Sequence[TracedCall] = ()
) -> list[Line]:
    """The lines of `steps`, which ended after so many seconds and were made with `calls`."""
    made = list[Line]()
    by_step: dict[int, list[TracedCall]] = {}
    for call in calls:
        by_step.setdefault(call.step, []).append(call)
    for number, step in enumerate(steps, 1):
        of_step = by_step.get(number, [])
        of_agent = [call for call in of_step if call.tool is None]
        seconds = None
        if number <= len(ends):
            seconds = ends[number - 1] - (ends[number - 2] if number > 1 else 0.0)
        made.append(
            Line(
                str(step.get("tool", "")),
                shortened(str(step.get("thought", "")), LONGEST_THOUGHT),
                seconds,
                sum(call.written_tokens for call in of_step),
                len(of_step),
                step.get("error") is not None,
                of_agent[0].written if len(of_agent) == 1 else None,
                None if seconds is None else max(0.0, seconds - sum(one.details["seconds"] for one in of_agent)),
            )
        )
    return made


def with_replayed(step_lines: Sequence[Line], replayed: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The lines of a fork's steps, of which the first ones are `replayed`: their texts are those of the earlier
    run."""
    return [
        replace(line, written=before["written"]) if before is not None and before["tool"] == line.tool else line
        for line, before in zip_longest(step_lines, replayed[: len(step_lines)])
    ]
