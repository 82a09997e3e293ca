"""A Flask server that runs `importlib.reload` over its tools on request."""

import importlib
import sys
from dataclasses import asdict
from typing import Any

import tools
from flask import Flask, request
from waitress import serve

from benchmarks.rivals.model import load_engine
from server.agent import CustomAgentGuidance

app = Flask(__name__)
engine = load_engine()
agent = CustomAgentGuidance(engine, tools.load_tools(None), max_steps=6)


@app.post("/ask")
def ask() -> dict[str, Any]:
    """Answer a question."""
    return asdict(agent(request.json["question"]))


@app.post("/reload")
def reload() -> dict[str, Any]:
    """Load the tools anew."""
    global agent  # noqa: PLW0603
    names = sorted(name for name in sys.modules if name == "tools" or name.startswith("tools."))
    for name in names:
        importlib.reload(sys.modules[name])
    agent = CustomAgentGuidance(engine, tools.load_tools(None), max_steps=6)
    return {"reloaded": names}


serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=16)
