"""An MCP server behind a URL. People's code may use the network, so the worker connects by itself."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
from mcp.client.streamable_http import streamable_http_client

from server.workers.inside.mcp.bounds import LONGEST_MESSAGE

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

CONNECT_SECONDS = 10.0


@asynccontextmanager
async def http_transport(url: str, headers: Mapping[str, str]) -> "AsyncIterator[TransportStreams]":
    """A connection by the streamable HTTP transport. How long a call may take is up to its caller."""
    timeout = httpx2.Timeout(CONNECT_SECONDS, read=None)
    hooks = {"response": [_check_response]}
    async with (
        # Not compressed: a few bytes could become many.
        httpx2.AsyncClient(
            headers={**headers, "Accept-Encoding": "identity"}, timeout=timeout, event_hooks=hooks
        ) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=LONGEST_MESSAGE) as streams,
    ):
        yield streams


class RefusedResponseError(httpx2.StreamError):
    """A response is longer than a message may be, or compressed, or the server wants another credential."""


async def _check_response(response: httpx2.Response) -> None:
    """Let the body of a long response end with an error above the limit. The SDK limits each event of a stream.
    Raises `RefusedResponseError`."""
    if response.status_code in (401, 403):
        raise RefusedResponseError(
            f"it answered with the status {response.status_code}: check the server's headers in mcp.json"
        )
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedResponseError("it sent a compressed response, although it was asked not to")
    if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        response.stream = _Limited(response.stream)


class _Limited(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream | httpx2.AsyncByteStream) -> None:
        assert isinstance(stream, httpx2.AsyncByteStream), "the client is asynchronous"
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for part in self._stream:
            received += len(part)
            if received > LONGEST_MESSAGE:
                raise RefusedResponseError(f"it sent a message of more than {LONGEST_MESSAGE // 2**20} MiB")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
