"""Conversations that are longer than the model's window: their oldest exchanges are left out."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

from server.completions.types import Conversation, Message

RESERVED = 4
"""One part of so many of the window is left for the text, unless `max_tokens` needs less."""


def truncated(
    conversation: Conversation, count: Callable[[Conversation], int], window: int, max_tokens: int
) -> Conversation:
    """The conversation without as many of its oldest exchanges as do not fit. Its system messages and its last
    exchange stay, whatever their length. `count`: the tokens of the prompt."""
    most = window - min(max_tokens, window // RESERVED)
    system = tuple(one for one in conversation.messages if one.role == "system")
    exchanges = _exchanges(tuple(one for one in conversation.messages if one.role != "system"))

    def without(number: int) -> Conversation:
        kept = tuple(message for exchange in exchanges[number:] for message in exchange)
        return conversation if number == 0 else replace(conversation, messages=system + kept)

    dropped = bisect_left(range(len(exchanges) - 1), True, key=lambda number: count(without(number)) <= most)
    return without(dropped)


def _exchanges(messages: tuple[Message, ...]) -> list[tuple[Message, ...]]:
    """Each user's message with what follows it, such as calls and their results."""
    exchanges: list[tuple[Message, ...]] = []
    for message in messages:
        if message.role == "user" or not exchanges:
            exchanges.append(())
        exchanges[-1] += (message,)
    return exchanges
