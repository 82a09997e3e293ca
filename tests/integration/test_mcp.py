"""A workspace's tools for MCP clients: the official SDK's client, and raw messages, over a real server."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ImageContent, TextContent

from tests.support.server_process import Server

SPACE = "for-mcp"
CURRENT = "2026-07-28"
TOOLS = '''
import time
from pathlib import Path

from langchain_core.tools import ToolException, tool
from server.sdk import check_cancelled, progress


@tool
def shout(text: str, times: int | None = None) -> str:
    """Write a text in capital letters."""
    return text.upper() * (times or 1)


@tool(extras={"title": "Melting point", "annotations": {"readOnlyHint": True}, "idempotent": True})
def melting(metal: str) -> dict:
    """Give the melting point of a metal."""
    return {"metal": metal, "celsius": {"tin": 231.9}[metal]}


@tool
def refuse(reason: str) -> str:
    """Refuse."""
    raise ToolException(f"refused: {reason}")


@tool
def draw() -> list:
    """Draw a picture."""
    import base64
    return [{"type": "text", "text": "a picture"},
            {"type": "image", "base64": base64.b64encode(b"\\x89PNG" * 200_000).decode(), "mime_type": "image/png"}]


@tool
def count(to: int) -> str:
    """Count."""
    for number in range(1, to + 1):
        progress(number, to, f"at {number}")
        time.sleep(0.12)
    return f"counted to {to}"


@tool
def work(file: str) -> str:
    """Work until it is stopped."""
    Path(file).write_text("began")
    try:
        while True:
            check_cancelled()
            time.sleep(0.02)
    finally:
        Path(file).write_text("stopped")


@tool
def crash() -> str:
    """End the process."""
    import os
    os._exit(7)


@tool(extras={"background": True})
def measure(sample: str) -> str:
    """Measure for long."""
    return f"measured {sample}"
'''
MORE = '''
from langchain_core.tools import tool


@tool
def whisper(text: str) -> str:
    """Write a text in small letters."""
    return text.lower()
'''


def put(server: Server, workspace: str, path: str, data: str) -> None:
    answer = server.session.put(f"/workspaces/{workspace}/files/{path}", data=data.encode())
    assert answer.ok, answer.text


def reload(server: Server, workspace: str) -> dict[str, Any]:
    answer = server.session.post("/reload_modules", json={"workspace": workspace})
    assert answer.ok, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.fixture(scope="module")
def lab(server: Server) -> Server:
    """A server with a workspace for MCP clients."""
    put(server, SPACE, "tools/for_mcp.py", TOOLS)
    reload(server, SPACE)
    return server


@asynccontextmanager
async def connected(server: Server, mode: str = "auto", workspace: str = SPACE) -> AsyncIterator[Client]:
    """The SDK's client of that workspace."""
    headers = {"Authorization": f"Bearer {server.token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        url = f"{server.url}/mcp?workspace={workspace}"
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            yield client


def message(server: Server, body: Any, **headers: str) -> requests.Response:
    """The response to a raw message; JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.session.post("/mcp", params={"workspace": SPACE}, data=data, headers=headers)


def current(
    method: str, params: dict[str, Any] | None = None, version: str = CURRENT
) -> tuple[dict[str, Any], dict[str, str]]:
    """A request by the current protocol, and its headers."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 5, "method": method, "params": {"_meta": meta, **(params or {})}}
    headers = {"Mcp-Protocol-Version": version, "Mcp-Method": method}
    return body, headers | ({"Mcp-Name": params["name"]} if params and "name" in params else {})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tools_are_listed_and_called(lab: Server, mode: str) -> None:
    async with connected(lab, mode) as client:
        assert client.protocol_version == (CURRENT if mode == "auto" else "2025-11-25")
        assert client.server_info is not None and client.server_info.name == "hearth"
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"calculator", "shout", "melting", "measure"} <= tools.keys()
        assert tools["shout"].description == "Write a text in capital letters."
        assert tools["shout"].input_schema["properties"]["times"]["default"] is None
        assert tools["shout"].input_schema["required"] == ["text"]
        assert tools["melting"].title == "Melting point" and tools["shout"].annotations is None
        annotations = tools["melting"].annotations
        assert annotations is not None and annotations.read_only_hint and annotations.idempotent_hint
        shouted = await client.call_tool("shout", {"text": "hello", "times": 2})
        assert shouted.content == [TextContent(text="HELLOHELLO")] and not shouted.is_error
        assert shouted.structured_content is None
        melting = await client.call_tool("melting", {"metal": "tin"})
        assert melting.structured_content == {"metal": "tin", "celsius": 231.9}
        assert isinstance(melting.content[0], TextContent)
        assert json.loads(melting.content[0].text) == melting.structured_content
        assert (await client.call_tool("measure", {"sample": "B4"})).content == [TextContent(text="measured B4")]


async def test_a_picture_arrives_whole(lab: Server) -> None:
    async with connected(lab) as client:
        text, picture = (await client.call_tool("draw", {})).content
    assert isinstance(text, TextContent) and text.text == "a picture"
    assert isinstance(picture, ImageContent) and picture.mime_type == "image/png"
    assert len(picture.data) > 1_000_000


async def test_what_fails_is_a_result_for_the_model(lab: Server) -> None:
    async with connected(lab) as client:
        for tool, given, said in (
            ("refuse", {"reason": "no"}, "refused: no"),
            ("melting", {"metal": "gold"}, "KeyError"),
            ("shout", {"text": 5}, "text: "),
            ("crash", {}, "exit"),
        ):
            result = await client.call_tool(tool, given)
            assert result.is_error and isinstance(result.content[0], TextContent)
            assert said in result.content[0].text, result.content[0].text
        # Another worker answers.
        assert not (await client.call_tool("shout", {"text": "a"})).is_error
        with pytest.raises(MCPError, match="no tool 'nothing'") as refused:
            await client.call_tool("nothing", {})
        assert refused.value.code == -32602


async def test_a_reload_changes_the_list(lab: Server) -> None:
    async with connected(lab) as client:
        assert "whisper" not in {tool.name for tool in (await client.list_tools()).tools}
        put(lab, SPACE, "tools/more.py", MORE)
        await asyncio.to_thread(reload, lab, SPACE)
        assert "whisper" in {tool.name for tool in (await client.list_tools(cache_mode="refresh")).tools}
        assert (await client.call_tool("whisper", {"text": "AH"})).content == [TextContent(text="ah")]
    assert lab.session.delete(f"/workspaces/{SPACE}/files/tools/more.py").ok
    reload(lab, SPACE)


async def test_a_workspace_shows_its_own_tools(lab: Server) -> None:
    async with connected(lab, workspace="main") as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert "calculator" in tools and "shout" not in tools
        result = await client.call_tool("calculator", {"expression": "37 * 52"})
        assert result.content == [TextContent(text="1924")]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_progress_is_reported(lab: Server, mode: str) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    async with connected(lab, mode) as client:
        result = await client.call_tool("count", {"to": 4}, progress_callback=on_progress)
    assert result.content == [TextContent(text="counted to 4")]
    # Reports that follow each other closely may be left out, and not the last one.
    assert seen[0] == (1.0, 4.0, "at 1") and seen[-1] == (4.0, 4.0, "at 4")
    assert seen == sorted(seen)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_cancelled_call_stops_its_tool(lab: Server, mode: str, tmp_path: Path) -> None:
    """The current protocol closes the connection, the older one sends a notification."""
    file = tmp_path / "work"
    async with connected(lab, mode) as client:
        # Another client with the same ids must not be hit.
        async with connected(lab, mode) as other:
            counted = asyncio.create_task(other.call_tool("count", {"to": 12}))
            call = asyncio.create_task(client.call_tool("work", {"file": str(file)}))
            await until(lambda: file.exists() and file.read_text() == "began")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: file.read_text() == "stopped")
            assert (await counted).content == [TextContent(text="counted to 12")]
        assert not (await client.call_tool("shout", {"text": "a"})).is_error


async def until(met: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(30):
        while not met():
            await asyncio.sleep(0.02)


def test_a_closed_connection_stops_a_call_without_a_stream(lab: Server, tmp_path: Path) -> None:
    file = tmp_path / "work"
    body, headers = current("tools/call", {"name": "work", "arguments": {"file": str(file)}})
    with pytest.raises(requests.Timeout):
        lab.session.post(
            "/mcp",
            params={"workspace": SPACE},
            json=body,
            headers=headers | {"Accept": "application/json"},
            timeout=3,
        )
    lab.wait_until(lambda: file.exists() and file.read_text() == "stopped", "the end of the tool")


def test_a_request_by_hand(lab: Server) -> None:
    body, headers = current("tools/call", {"name": "shout", "arguments": {"text": "a"}})
    answer = message(lab, body, **headers)
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/json"
    result = answer.json()["result"]
    assert answer.json()["id"] == 5 and result["resultType"] == "complete" and not result["isError"]
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "hearth"
    encoded = headers | {"Mcp-Name": "=?base64?c2hvdXQ=?="}
    assert message(lab, body, **encoded).status_code == 200
    body, headers = current("server/discover")
    discovered = message(lab, body, **headers).json()["result"]
    assert discovered["supportedVersions"][0] == CURRENT and discovered["capabilities"] == {
        "tools": {"listChanged": False}
    }


def test_an_older_client_by_hand(lab: Server) -> None:
    asked = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    begun = message(lab, {"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": asked})
    assert begun.json()["result"]["protocolVersion"] == "2024-11-05" and begun.headers["Mcp-Session-Id"]
    asked["protocolVersion"] = "1999-01-01"
    begun = message(lab, {"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": asked})
    assert begun.json()["result"]["protocolVersion"] == "2025-11-25"
    noted = message(lab, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert noted.status_code == 202 and not noted.content
    assert message(lab, {"jsonrpc": "2.0", "id": 1, "method": "ping"}).json()["result"] == {}
    unknown = message(
        lab, {"jsonrpc": "2.0", "id": 1, "method": "prompts/list"}, **{"Mcp-Protocol-Version": "2025-06-18"}
    )
    assert unknown.status_code == 200 and unknown.json()["error"]["code"] == -32601


def errors() -> list[tuple[str, Any, dict[str, str], int, int]]:
    """A name, a body, headers, and the status and the code that answer it."""
    call, headers = current("tools/call", {"name": "shout", "arguments": {"text": "a"}})
    listed, of_list = current("tools/list")
    without = {**listed, "params": {}}
    unknown, of_unknown = current("prompts/list")
    nothing, of_nothing = current("no/such/method")
    newer, of_newer = current("tools/list", version="2099-01-01")
    cursor, of_cursor = current("tools/list", {"cursor": "abc.3"})
    wrong = {**call, "params": {**call["params"], "arguments": [1]}}
    return [
        ("no JSON", b"{", {}, 400, -32700),
        ("no UTF-8", b'"\xff"', {}, 400, -32700),
        ("NaN", b'{"jsonrpc": "2.0", "id": NaN}', {}, 400, -32700),
        ("deep", b"[" * 100_000, {}, 400, -32700),
        ("a batch", [listed], of_list, 400, -32600),
        ("a number", 5, {}, 400, -32600),
        ("no method", {"jsonrpc": "2.0", "id": 1}, {}, 400, -32600),
        ("an answer", {"jsonrpc": "2.0", "id": 1, "result": {}}, {}, 400, -32600),
        ("another version of JSON-RPC", {**listed, "jsonrpc": "1.0"}, of_list, 400, -32600),
        ("no id of a request", {**listed, "id": None}, of_list, 400, -32600),
        ("no meta", without, of_list, 400, -32602),
        ("no header", listed, {}, 400, -32020),
        ("another method", listed, {**of_list, "Mcp-Method": "tools/call"}, 400, -32020),
        ("another name", call, {**headers, "Mcp-Name": "crash"}, 400, -32020),
        ("a damaged name", call, {**headers, "Mcp-Name": "=?base64?*?="}, 400, -32020),
        ("no name", call, {**headers, "Mcp-Name": ""}, 400, -32020),
        ("a newer version", newer, of_newer, 400, -32022),
        ("a version that is unknown", without, {"Mcp-Protocol-Version": "1.0"}, 400, -32602),
        ("an unknown method", nothing, of_nothing, 404, -32601),
        ("a method that is not here", unknown, of_unknown, 404, -32601),
        ("arguments that are no object", wrong, headers, 400, -32602),
        ("a cursor of another list", cursor, of_cursor, 400, -32602),
    ]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"), [pytest.param(*one[1:], id=one[0]) for one in errors()]
)
def test_a_wrong_message_is_refused(lab: Server, body: Any, headers: dict[str, str], status: int, code: int) -> None:
    answer = message(lab, body, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert (
        answer.json()["jsonrpc"] == "2.0" and answer.json()["id"] in (None, 5) and answer.json()["error"]["message"]
    )


def test_only_who_may_call_gets_in(lab: Server) -> None:
    body, headers = current("tools/list")
    for token in ("", "wrong"):
        answer = requests.post(
            f"{lab.url}/mcp", json=body, headers=headers | {"Authorization": f"Bearer {token}"}, timeout=60
        )
        assert answer.status_code == 401 and answer.json()["error"]["data"]["type"] == "unauthorized"
    for method in ("GET", "DELETE"):
        refused = lab.session.request(method, "/mcp")
        assert refused.status_code == 405 and "POST" in refused.headers["Allow"]
    elsewhere = lab.session.post("/mcp", params={"workspace": "nobodys"}, json=body, headers=headers)
    assert elsewhere.status_code == 404 and elsewhere.json()["error"]["data"]["type"] == "workspace_not_found"
    cookie = lab.session.post("/auth/login/token", json={"token": lab.token}).cookies
    foreign = requests.post(
        f"{lab.url}/mcp", json=body, headers=headers | {"Origin": "https://evil.example"}, cookies=cookie, timeout=60
    )
    assert foreign.status_code == 403 and foreign.json()["error"]["data"]["type"] == "cross_site"


def test_a_long_list_comes_in_pages(lab: Server) -> None:
    many = "from langchain_core.tools import StructuredTool\n\n\ndef f(x: int) -> int:\n    return x\n\n\n"
    many += "tools = [StructuredTool.from_function(f, name=f'f{n}', description='F') for n in range(450)]\n"
    put(lab, "many-for-mcp", "tools/many.py", many)
    reload(lab, "many-for-mcp")

    async def names() -> list[str]:
        found: list[str] = []
        async with connected(lab, workspace="many-for-mcp") as client:
            page = await client.list_tools()
            while True:
                found += [tool.name for tool in page.tools]
                if page.next_cursor is None:
                    return found
                page = await client.list_tools(cursor=page.next_cursor)

    found = asyncio.run(names())
    assert len(found) == len(set(found)) and {f"f{n}" for n in range(450)} <= set(found)


def test_many_clients_at_the_same_time(lab: Server) -> None:
    results: list[str] = []

    def call(number: int) -> None:
        body, headers = current("tools/call", {"name": "shout", "arguments": {"text": f"n{number}"}})
        results.append(message(lab, body, **headers).json()["result"]["content"][0]["text"])

    threads = [threading.Thread(target=call, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"N{number}" for number in range(12))
