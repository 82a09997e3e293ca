"""An MCP server that is a child of the worker: one JSON message a line over its standard input and output.

The SDK's own transport has no limit for the length of a line; a server must not fill the worker's memory.
https://modelcontextprotocol.io/specification/2026-07-28/basic/transports#stdio
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from server.workers.inside.mcp.bounds import LONGEST_MESSAGE

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

END_SECONDS = 1.0
"""Time for the server to end by itself after its input has ended, and again after SIGTERM."""


@asynccontextmanager
async def stdio_transport(
    name: str, command: Sequence[str], env: Mapping[str, str], folder: Path, ended: Callable[[str], object]
) -> "AsyncIterator[TransportStreams]":
    """Start `command` in `folder`, with a few variables of the worker's environment and `env`. `ended` is called with
    a sentence when it sends no more. Its process group ends with this context. What it writes to its standard error
    is in the worker's log.

    Raises `OSError` if it can't be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**get_default_environment(), **env},
        cwd=folder,
        start_new_session=True,
        limit=LONGEST_MESSAGE,
    )
    to_client, messages = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    requests, from_client = anyio.create_memory_object_stream[SessionMessage](0)

    async def receive() -> None:
        reason = await _receive(name, process, to_client.send)
        to_client.close()
        ended(reason)

    async def send() -> None:
        assert process.stdin is not None, "it was started with pipes"
        with suppress(ConnectionError):  # it has ended, as `receive` finds out
            async with from_client:
                async for message in from_client:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    process.stdin.write(text.encode() + b"\n")
                    await process.stdin.drain()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            group.start_soon(send)
            try:
                yield messages, requests
            finally:
                group.cancel_scope.cancel()
    finally:
        for stream in (to_client, messages, requests, from_client):
            stream.close()
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _receive(name: str, process: asyncio.subprocess.Process, deliver: Callable[..., object]) -> str:
    """Deliver what the server sends. Returns why there is no more."""
    assert process.stdout is not None, "it was started with pipes"
    is_told = False
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # of asyncio, for a line above the limit
            return f"it sent a message of more than {LONGEST_MESSAGE // 2**20} MiB"
        if not line:
            break
        try:
            message = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError:
            if not is_told:
                is_told = True
                print(f"The MCP server {name} writes what is no message: {line[:200]!r}", file=sys.stderr, flush=True)
            continue
        try:
            await deliver(message)  # type: ignore[misc]
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return "it is not needed any more"
    with suppress(asyncio.TimeoutError):  # it has closed its output, and still runs
        code = await asyncio.wait_for(process.wait(), END_SECONDS)
        return (
            f"it ended with the signal {signal.Signals(-code).name}" if code < 0 else f"it ended with the code {code}"
        )
    return "it closed its output"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the server and what it has started in its process group."""
    if process.stdin is not None:
        process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
            continue
        break
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(process.wait(), END_SECONDS)
