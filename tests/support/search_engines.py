"""Stand-ins for Tavily and SearXNG that speak their wire formats, as documented; no live service."""

import json
import socket
from collections.abc import Callable
from typing import Any

from tests.support.web_server import WebServer, response

KEY = "tvly-test-0123456789"
RESULTS = [
    {"title": "Warpage", "url": "https://lab.example.org/warpage", "content": "Why parts warp.", "score": 0.9},
    {"title": "Other", "url": "https://elsewhere.example.com/x", "content": "Of another domain.", "score": 0.8},
    {"title": "Below", "url": "https://docs.lab.example.org/y", "content": "Below it.", "score": 0.7},
    {"title": "Looks alike", "url": "https://evil-lab.example.org.attacker.test/", "content": "No.", "score": 0.6},
    {"title": "Again", "url": "https://lab.example.org/warpage", "content": "Twice.", "score": 0.5},
]


def asked(request: str) -> dict[str, Any]:
    """The JSON body of a request."""
    body: dict[str, Any] = json.loads(request.partition("\r\n\r\n")[2])
    return body


def tavily(connection: socket.socket, request: str) -> None:
    """POST /search: checks the key, and answers as Tavily does."""
    if f"authorization: bearer {KEY}" not in request.lower():
        connection.sendall(as_json({"detail": {"error": "Unauthorized: missing or invalid API key."}}, 401))
        return
    body = asked(request)
    connection.sendall(
        as_json(
            {
                "query": body["query"],
                "follow_up_questions": None,
                "answer": None,
                "images": [],
                "results": RESULTS[: body["max_results"]],
                "response_time": 0.8,
                "request_id": "x",
            }
        )
    )


def searxng(connection: socket.socket, request: str) -> None:
    """GET /search?q=&format=json."""
    if "format=json" not in request.split("\r\n", 1)[0]:
        connection.sendall(response("<p>a page for people</p>"))
        return
    found = [
        {
            **one,
            "engine": "x",
            "engines": ["x"],
            "publishedDate": "2026-01-02T00:00:00",
            "positions": [1],
            "thumbnail": None,
        }
        for one in RESULTS
    ]
    connection.sendall(
        as_json({"query": "q", "number_of_results": 0, "results": found, "answers": [], "suggestions": []})
    )


def failing(status: int, content: bytes = b"{}", **headers: str) -> bytes:
    """A reply that is an error."""
    return response(content, "application/json", status, **headers)


def as_json(value: Any, status: int = 200) -> bytes:
    """A JSON reply."""
    return response(json.dumps(value), "application/json", status)


def serve(web: WebServer, engine: Callable[[socket.socket, str], None] | bytes) -> None:
    """Let the server be this engine."""
    web.pages["/search"] = engine
    web.requests.clear()
