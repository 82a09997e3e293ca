"""An MCP server that does not keep to the protocol, in the way that its argument names. Written without the SDK."""

import json
import sys
from typing import Any

ECHO = {
    "name": "echo",
    "description": "Give a text back.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}

NO_NUMBERS = {"infinite": "1e999", "no_number": "NaN"}
"""What some tools report as their progress, by their names."""


def send(message: dict[str, Any]) -> None:
    """Write a message."""
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def tools(way: str, params: dict[str, Any]) -> dict[str, Any]:
    """The list of tools."""
    match way:
        case "pages":
            page = int(params.get("cursor", "0"))
            named = [{**ECHO, "name": f"tool_{page * 10 + number}"} for number in range(10)]
            return {"tools": named, "nextCursor": str(page + 1)}
        case "large":
            page = int(params.get("cursor", "0"))
            arguments = {f"argument_{number}": {"type": "string"} for number in range(60_000)}
            large = {"name": f"tool_{page}", "inputSchema": {"type": "object", "properties": arguments}}
            return {"tools": [large], **({"nextCursor": str(page + 1)} if page < 20 else {})}
        case "twice":
            return {"tools": [ECHO, ECHO]}
        case "wrong_list":
            return {"tools": "none"}
        case "no_schema":
            return {"tools": [{"name": "echo"}]}
        case "leaves":
            sys.exit(4)
        case "results":
            return {
                "tools": [
                    ECHO,
                    *(
                        {**ECHO, "name": name}
                        for name in ("deep", "wrong", "error", "chatter", "odd", *NO_NUMBERS, "failed")
                    ),
                ]
            }
    return {"tools": [ECHO]}


def call(number: object, params: dict[str, Any]) -> None:
    """Answer the call of a tool."""
    content = [{"type": "text", "text": params["arguments"].get("text", "")}]
    match params["name"]:
        case "deep":
            nested: Any = "x"
            for _ in range(150):
                nested = {"a": nested}
            send({"id": number, "result": {"content": [], "structuredContent": nested}})
        case "wrong":
            send({"id": number, "result": {"content": 5}})
        case "error":
            send({"id": number, "error": {"code": 1, "message": "x" * 100_000}})
        case "chatter":
            for count in range(2_000):
                send({"method": "notifications/message", "params": {"level": "info", "data": "x" * 1_000}})
                send({"method": "notifications/progress", "params": {"progressToken": number, "progress": count}})
            send({"id": number, "result": {"content": content}})
        case "failed":
            send({"id": number, "result": {"content": content, "isError": True}})
        case name if name in NO_NUMBERS:
            reported = f'"progressToken": {json.dumps(number)}, "progress": {NO_NUMBERS[name]}, "message": "m"'
            notification = f'{{"jsonrpc": "2.0", "method": "notifications/progress", "params": {{{reported}}}}}'
            print(notification, flush=True)
            send({"id": number, "result": {"content": content}})
        case "odd":
            picture = {"type": "image", "data": "no base64", "mimeType": "image/png"}
            odd = [picture, {"type": "resource_link", "uri": "x:y", "name": "n"}]
            send({"id": number, "result": {"content": odd, "structuredContent": {"a": None}}})
        case _:
            send({"id": number, "result": {"content": content}})


def main(way: str) -> None:
    """Serve until the end of the input."""
    for line in sys.stdin:
        asked = json.loads(line)
        method, number = asked.get("method"), asked.get("id")
        if way == "garbage":
            print("a line of a log, and no message", flush=True)
            print('{"jsonrpc": "2.0", "id": 9999, "result": {}}', flush=True)
        if method == "initialize":
            about = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            send({"id": number, "result": {**about, "serverInfo": {"name": way, "version": "1"}}})
        elif method == "tools/list":
            send({"id": number, "result": tools(way, asked.get("params") or {})})
        elif method == "tools/call":
            call(number, asked["params"])
        elif number is not None:
            send({"id": number, "error": {"code": -32601, "message": "no such method"}})


if __name__ == "__main__":
    main(sys.argv[1])
