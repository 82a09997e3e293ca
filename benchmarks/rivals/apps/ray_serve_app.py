"""A Ray Serve deployment that loads its tools anew when its user_config changes."""

import importlib
import sys
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

from benchmarks.rivals.model import load_engine
from server.agent import CustomAgentGuidance

web = FastAPI()


class Question(BaseModel):
    """What is asked."""

    question: str


@serve.deployment(max_ongoing_requests=16)
@serve.ingress(web)
class Agent:
    """Holds the model."""

    def __init__(self) -> None:
        self.engine = load_engine()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Import the tools anew. Ray calls it with the first configuration and with each that differs."""
        for name in list(sys.modules):
            if name == "tools" or name.startswith("tools."):
                del sys.modules[name]
        tools = importlib.import_module("tools")
        self.agent = CustomAgentGuidance(self.engine, tools.load_tools(None), max_steps=6)

    @web.post("/ask")
    def ask(self, body: Question) -> dict[str, Any]:
        """Answer a question."""
        return asdict(self.agent(body.question))


app = Agent.bind()  # type: ignore[attr-defined]  # the decorator adds it
