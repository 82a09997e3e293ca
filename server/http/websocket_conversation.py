"""What is said over one WebSocket connection. docs/websocket.md describes the messages."""

import asyncio
import json
import logging
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from flask import Flask
from pydantic import Field, TypeAdapter, ValidationError
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request, Response

from server.errors import (
    ConflictError,
    ForbiddenError,
    HearthError,
    InvalidRequestError,
    MalformedRequestError,
    UnauthorizedError,
    as_hearth_error,
)
from server.host import Host
from server.http import auth
from server.http.body import read_json, refuse
from server.http.schemas import StrictRequest
from server.http.sse import client_left
from server.http.topics import BATCH_SECONDS, MISSING, MOST_TOPICS, Followed, Following, TopicEvent
from server.people.principal import Principal
from server.runs import Run

log = logging.getLogger(__name__)

PATH = "/ws"
AUTH_SECONDS = 5.0
"""Maximum time until a new connection has said who it is; the same again for the handshakes before."""
AUTH_BYTES = 16 * 1024
"""Maximum size of a message before that."""
SEND_SECONDS = 30.0
"""Maximum time for sending a message to a client that does not read."""
GOODBYE_SECONDS = 2.0
"""Maximum time for closing a connection, and for what is left to send when the server ends."""
UNAUTHORIZED = 4401
"""The code with which a connection is closed that has no credential, or none any more."""

Key = Annotated[str, Field(min_length=1, max_length=100)]


class AuthMessage(StrictRequest):
    """The first message, and any later one with a new token of the same person."""

    type: Literal["auth"]
    token: str = Field(
        "", max_length=AUTH_BYTES, pattern=r"^[\x21-\x7e]*$", description="as in `Authorization: Bearer <token>`"
    )


class AskMessage(StrictRequest):
    """Ask a question, and follow its run. The run is cancelled when the connection ends, unless `detach`."""

    type: Literal["ask"]
    key: Key
    body: dict[str, Any] = Field(description="as of `POST /run_script`")


class FollowMessage(StrictRequest):
    """Follow a topic of `GET /events`, from the event after the one with the number `after`."""

    type: Literal["follow"]
    key: Key
    topic: Annotated[str, Field(min_length=1, max_length=2000)]
    after: int = Field(0, ge=0, lt=10**18)


class UnfollowMessage(StrictRequest):
    """Follow a topic no longer."""

    type: Literal["unfollow"]
    key: Key


class CancelMessage(StrictRequest):
    """Cancel a run, as `DELETE /runs/<run_id>` does."""

    type: Literal["cancel"]
    key: Key
    run_id: Annotated[str, Field(min_length=1, max_length=200)]


Message = AuthMessage | AskMessage | FollowMessage | UnfollowMessage | CancelMessage
MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


class Conversation:
    """What is said over one connection. Its messages are answered one after the other, on other threads; replies and
    events are sent by one task."""

    def __init__(self, app: Flask, host: Host, connection: ServerConnection, threads: ThreadPoolExecutor) -> None:
        self._app = app
        self._host = host
        self._connection = connection
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._token = ""
        self._principal: Principal
        self._following: Following
        self._runs: list[Run] = []
        """Runs that end with this connection."""
        self._replies: deque[dict[str, Any]] = deque()
        self._changing = threading.Lock()
        """For `_following` and `_replies`: a reply comes before the events of what it says is followed."""
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._is_ringing = self._is_last = False
        self._sender: asyncio.Task[None]
        self._ending: asyncio.Task[None] | None = None

    async def begin(self) -> bool:
        """Wait for the first message. Returns whether it says who is there; if not, the connection is closed."""
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                text = await self._connection.recv()
            reply = await self._loop.run_in_executor(self._threads, self._authenticate, text)
        except (TimeoutError, HearthError) as error:
            problem = (
                error
                if isinstance(error, HearthError)
                else UnauthorizedError(f"No message has come within {AUTH_SECONDS:g} s. {FIRST}")
            )
            await self._send(_refused(None, problem))
            await self._connection.close(UNAUTHORIZED, "unauthorized")
            return False
        # It may send questions from now on.
        self._connection.protocol.max_message_size = self._host.settings.MAX_BODY_BYTES
        await self._send(reply)
        self._sender = self._loop.create_task(self._send_all())
        return True

    async def run(self) -> None:
        """Answer messages and send events until the connection ends."""
        try:
            async for text in self._connection:
                await self._loop.run_in_executor(self._threads, self._answer, text)
                self._ring()
                # A client that reads no replies gets no further ones.
                while self._replies and not self._sender.done():
                    self._sent.clear()
                    await self._sent.wait()
        finally:
            self._sender.cancel()
            with self._changing:
                self._following.close()
            for run in self._runs:
                run.stop(client_left())
            await asyncio.gather(self._sender, *([self._ending] if self._ending else []), return_exceptions=True)

    def look(self) -> bool:
        """Follow no longer what the client may not follow any more. Returns whether it may stay. On any thread."""
        try:
            if self._host.credentials.again(self._principal) is None:
                return False
            lost = self._following.lost()
        except HearthError as error:  # boundary: the database may not answer now
            log.warning("whether a WebSocket client may stay was not checked: %s", error.message)
            return True
        with self._changing:
            for key in lost:
                if self._following.remove(key):
                    self._replies.append(_event(TopicEvent(key, 0, MISSING, {})))
                    self._replies.append({"type": "ended", "key": key})
        if lost:
            self._loop.call_soon_threadsafe(self._ring)
        return True

    def end_soon(self, code: int, reason: str) -> None:
        """Begin to close the connection."""
        if self._ending is None:
            self._ending = self._loop.create_task(self._end(code, reason))

    async def end(self, code: int, reason: str) -> None:
        """Send what there is to send, and close the connection."""
        self._is_last = True
        self._ring()
        await asyncio.wait([self._sender], timeout=GOODBYE_SECONDS)
        self.end_soon(code, reason)
        assert self._ending is not None
        await self._ending

    async def _end(self, code: int, reason: str) -> None:
        self._sender.cancel()
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._connection.close(code, reason)
        except TimeoutError:
            # Its client does not read.
            self._connection.transport.abort()

    # Sending

    def _ring(self) -> None:
        self._is_ringing = False
        self._news.set()

    def _notify(self) -> None:
        """There may be events. Called by the threads that publish them."""
        if not self._is_ringing:
            self._is_ringing = True
            with suppress(RuntimeError):  # the loop has ended, and with it the connection
                self._loop.call_soon_threadsafe(self._ring)

    async def _send_all(self) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                is_last = self._is_last
                await self._send_batch()
                if is_last:
                    return
                await asyncio.sleep(BATCH_SECONDS)
        except ConnectionClosed:
            pass  # `run` notices it too
        except TimeoutError:
            self._connection.transport.abort()
        finally:
            self._sent.set()

    async def _send_batch(self) -> None:
        with self._changing:
            replies = list(self._replies)
            events, ended = self._following.read()
        for reply in replies:
            await self._send(reply)
            self._replies.popleft()
        self._sent.set()
        for event in events:
            await self._send(_event(event))
        for key in ended:
            await self._send({"type": "ended", "key": key})

    async def _send(self, message: dict[str, Any]) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self._connection.send(json.dumps(message))

    # Answering, on other threads

    def _authenticate(self, text: str | bytes) -> dict[str, Any]:
        """Raises `HearthError`."""
        message = _read(text)
        if not isinstance(message, AuthMessage):
            raise UnauthorizedError(f"The first message is of the type {message.type!r}. {FIRST}")
        asked = Request(self._builder("GET", PATH, message.token).get_environ())
        self._principal = auth.identify(self._host, asked)
        self._token = message.token
        self._following = Following(self._host, self._principal, self._notify)
        return _ready(self._principal)

    def _answer(self, text: str | bytes) -> None:
        """Do what a message says. Never raises."""
        key = None
        try:
            message = _read(text)
            key = getattr(message, "key", None)
            match message:
                case AuthMessage():
                    self._renew(message.token)
                case AskMessage():
                    self._ask(message)
                case FollowMessage():
                    self._check_key(message.key)
                    auth.check_scope(self._host.credentials.again(self._principal) or self._principal, "read")
                    topic = self._following.open(message.key, message.after, message.topic)
                    self._reply({"type": "following", "key": message.key, "topic": message.topic}, topic)
                case UnfollowMessage():
                    with self._changing:
                        if not self._following.remove(message.key):
                            raise InvalidRequestError(f"Nothing is followed under the key {message.key!r}.")
                        self._replies.append({"type": "ended", "key": message.key})
                case CancelMessage():
                    cancelled = self._call("DELETE", f"/runs/{quote(message.run_id, safe='')}")
                    self._reply({"type": "cancelled", "key": message.key, "run_id": cancelled["run_id"]})
        except _AnsweredError as error:
            self._reply({"type": "error", "key": key, "error": error.shown})
        except Exception as error:  # boundary: one message
            self._reply(_refused(key, as_hearth_error(error)))

    def _renew(self, token: str) -> None:
        found = auth.identify(self._host, Request(self._builder("GET", PATH, token).get_environ()))
        if found.name != self._principal.name:
            raise ForbiddenError("This connection is another person's. Open a new one.")
        self._principal, self._token = found, token
        self._following.renew(found)
        self._reply(_ready(found))

    def _ask(self, message: AskMessage) -> None:
        self._check_key(message.key)
        run_id = self._call("POST", "/run_script", message.body)["run_id"]
        run = self._host.runs.get(run_id)
        topic = Followed(message.key, 0, f"run/{run_id}", run.events)
        if not message.body.get("detach", False):
            self._runs = [run, *(one for one in self._runs if not one.ended.is_set())]
        self._reply({"type": "asked", "key": message.key, "run_id": run_id}, topic)

    def _check_key(self, key: str) -> None:
        if key in self._following:
            raise ConflictError(f"The key {key!r} is in use. Choose another one.")
        if len(self._following) >= MOST_TOPICS:
            raise ConflictError(f"{MOST_TOPICS} topics are followed over this connection, the maximum.")

    def _reply(self, message: dict[str, Any], topic: Followed | None = None) -> None:
        with self._changing:
            self._replies.append(message)
            if topic is not None:
                self._following.add(topic)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer of a route to this client. Raises `_AnsweredError`."""
        environ = self._builder(method, path, self._token, body).get_environ()
        response = Response.from_app(self._app, environ, buffered=True)
        answer: dict[str, Any] = response.get_json()
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            raise _AnsweredError({"status": response.status_code, **answer["error"]})
        return answer

    def _builder(self, method: str, path: str, token: str, body: dict[str, Any] | None = None) -> EnvironBuilder:
        upgrade = self._connection.request
        assert upgrade is not None, "it is open"
        headers = {"Host": upgrade.headers["Host"], "Prefer": "respond-async"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if "Origin" in upgrade.headers:
            headers["Origin"] = upgrade.headers["Origin"]
        # There is no address if its client had left before the connection was accepted.
        address = (self._connection.remote_address or ("",))[0]
        return EnvironBuilder(
            path=path,
            method=method,
            headers=[*headers.items()],
            json=body,
            environ_base={"REMOTE_ADDR": str(address)},
        )


FIRST = 'The first message is {"type": "auth", "token": "..."}.'


class _AnsweredError(Exception):
    """A route has answered with an error. `shown`: as replies have it."""

    def __init__(self, shown: dict[str, Any]) -> None:
        super().__init__(shown["message"])
        self.shown = shown


def _read(text: str | bytes) -> Message:
    """Raises `MalformedRequestError`, `InvalidRequestError`."""
    if isinstance(text, bytes):
        raise MalformedRequestError("The message is binary. Send JSON as text.")
    try:
        return MESSAGE.validate_python(read_json(text.encode()))
    except ValidationError as error:
        refuse(error)


def _ready(principal: Principal) -> dict[str, Any]:
    return {"type": "ready", "username": principal.name, "scopes": sorted(principal.scopes)}


def _event(event: TopicEvent) -> dict[str, Any]:
    return {"type": "event", **event.as_json()}


def _refused(key: str | None, error: HearthError) -> dict[str, Any]:
    return {"type": "error", "key": key, "error": {"status": error.status, **error.to_dict()["error"]}}
