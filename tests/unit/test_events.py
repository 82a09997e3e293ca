"""The events of a run: in order, whole, and resumable, however they are read."""

import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.http.sse import events_after
from server.runs import Run
from server.runs.events import Event, Events

TOOLS = st.sampled_from([None, "sentiment"])
PUBLISHED = st.lists(
    st.one_of(
        st.tuples(st.just("token"), st.text(max_size=5), TOOLS),
        st.tuples(st.just("queued"), st.integers(1, 9), st.none()),
        st.tuples(st.just("step"), st.integers(), st.none()),
    ),
    max_size=30,
)


def publish(events: Events, kind: str, value: Any, tool: str | None) -> None:
    if kind == "token":
        events.publish_text(value, tool)
    else:
        events.publish(kind, {"value": value})  # type: ignore[arg-type]


def flat(events: list[Event]) -> list[tuple[Any, ...]]:
    """What was published, however it is merged: each character of text by itself, of places in a row the last."""
    found: list[tuple[Any, ...]] = []
    for event in events:
        if event.kind == "token":
            found += [("token", character, event.data["tool"]) for character in event.data["text"]]
        elif event.kind == "queued" and found and found[-1][0] == "queued":
            found[-1] = ("queued", event.data["value"])
        else:
            found.append((event.kind, event.data["value"]))
    return found


@given(PUBLISHED, st.lists(st.integers(0, 30), max_size=30))
def test_whoever_comes_back_misses_nothing_and_reads_nothing_twice(
    published: list[tuple[str, Any, str | None]], breaks: list[int]
) -> None:
    events, number = Events(), 0
    read: list[Event] = []
    for place, one in enumerate(published):
        publish(events, *one)
        if place in breaks:
            read += events.since(number)
            number = read[-1].number if read else 0
    events.publish("answer", {"value": "the end"})
    read += events.since(number)
    assert flat(read) == flat(events.since(0))
    numbers = [event.number for event in read]
    assert numbers == sorted(set(numbers))
    assert read[-1].kind == "answer"


def test_text_of_one_origin_is_merged_for_whoever_reads_late() -> None:
    events = Events()
    for piece in ("Th", "ought", ": "):
        events.publish_text(piece, None)
    events.publish_text("happy", "sentiment")
    events.publish_text("", None)
    assert events.since(0) == [
        Event(3, "token", {"text": "Thought: ", "tool": None}),
        Event(4, "token", {"text": "happy", "tool": "sentiment"}),
    ]
    assert events.since(1)[0] == Event(3, "token", {"text": "ought: ", "tool": None})


def test_nothing_is_published_after_the_end() -> None:
    events = Events()
    events.publish("error", {"type": "run_cancelled"})
    events.publish("step", {})
    events.publish_text("late", None)
    assert [event.kind for event in events.since(0)] == ["error"]
    assert events.since(1, 60) == [], "and nobody waits for it"


def test_a_reader_is_woken_by_an_event() -> None:
    events = Events()
    read: list[Event] = []

    def follow() -> None:
        while not read or read[-1].kind != "answer":
            read.extend(events.since(read[-1].number if read else 0, 60))

    readers = [threading.Thread(target=follow) for _ in range(2)]
    for reader in readers:
        reader.start()
    events.publish_text("a", None)
    events.publish("answer", {})
    for reader in readers:
        reader.join(60)
    assert flat([event for event in read if event.kind == "token"])


def test_an_end_that_comes_while_a_reader_waits_is_read() -> None:
    run = Run("What is 37 * 52?", "main", 6)
    batches = events_after(run.events, 0)
    assert next(batches) == []
    run.settle({"answer": "1924"}, None)
    run.publish_end()
    assert [kind for batch in batches for _, kind, _ in batch] == ["answer"]
    # One that has read everything is not sent it again.
    assert [batch for batch in events_after(run.events, 1) if batch] == []
