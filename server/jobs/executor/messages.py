"""Messages of the executor to the program that runs it."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

CALLBACK_SECONDS = 5.0
"""How long `stop` waits for a callback."""


class Message(NamedTuple):
    """What happened.

    | who | type | `outputs["output"]` |
    |---|---|---|
    | `agent` | `message` | an answer; `outputs["intermediate_steps"]` has the steps |
    | `agent` | `error` | why the turn has no answer |
    | `tool:job` | `start` | that the job has started |
    | `tool:job` or `tool` | `report` | what a generator has yielded |
    | `tool:job` | `finish` | the job's result |
    | `tool:job` | `error` | why it failed |
    | `tool:job` | `cancel` | that it was cancelled |
    """

    who: str
    type: str
    outputs: dict[str, Any]


MessageCallback = Callable[[str, str, dict[str, Any]], object]
"""`f(who, type, outputs)`."""


IdleCallback = Callable[[bool], object]
"""`f(stopped)`."""


class Dispatcher:
    """Calls the callbacks, one message after the other, in a thread of its own. So a slow callback delays neither the
    agent nor a job, and a callback may call every method of the executor."""

    def __init__(self) -> None:
        self._callbacks: list[MessageCallback] = []
        self._idle_callbacks: list[IdleCallback] = []
        self._messages: queue.SimpleQueue[Message | list[IdleCallback] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, callback: MessageCallback) -> None:
        """Call it with each message from here on."""
        self._callbacks = [*self._callbacks, callback]

    def remove(self, callback: MessageCallback) -> None:
        """Call it no more."""
        self._callbacks = [one for one in self._callbacks if one is not callback]

    def add_idle(self, callback: IdleCallback) -> None:
        """Call it whenever, from here on, nothing is left to do, after the messages before. Its argument: whether the
        executor has stopped."""
        self._idle_callbacks = [*self._idle_callbacks, callback]

    def remove_idle(self, callback: IdleCallback) -> None:
        """Call it no more."""
        self._idle_callbacks = [one for one in self._idle_callbacks if one is not callback]

    def send(self, message: Message) -> None:
        """Returns at once."""
        self._messages.put(message)

    def send_idle(self) -> None:
        """Nothing is left to do. Returns at once."""
        # Not those who come later: what has ended is older than what they wait for.
        self._messages.put(self._idle_callbacks)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(
            target=self._run, args=(self._messages,), name="executor messages", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Deliver what was sent, and end the thread."""
        self._messages.put(None)
        self._messages = queue.SimpleQueue()  # a thread that a callback has started again must not read the end
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(CALLBACK_SECONDS)
            if thread.is_alive():
                log.error("A callback of on_message has not returned after %g seconds", CALLBACK_SECONDS)

    def is_own_thread(self) -> bool:
        """Whether a callback asks."""
        return threading.current_thread() is self._thread

    def _run(self, messages: "queue.SimpleQueue[Message | list[IdleCallback] | None]") -> None:
        while True:
            message = messages.get()
            if isinstance(message, Message):
                for callback in self._callbacks:
                    self._call(callback, *message)
                continue
            for idle_callback in self._idle_callbacks:
                if message is None or idle_callback in message:
                    self._call(idle_callback, message is None)
            if message is None:
                return

    def _call(self, callback: Callable[..., object], *given: Any) -> None:
        try:
            callback(*given)
        except Exception:  # boundary: a callback may raise anything
            log.exception("A callback of on_message has raised an error")
