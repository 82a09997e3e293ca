"""A FastAPI application for `uvicorn --reload`."""

from dataclasses import asdict
from typing import Any

import tools
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.rivals.model import load_engine
from server.agent import CustomAgentGuidance

app = FastAPI()
agent = CustomAgentGuidance(load_engine(), tools.load_tools(None), max_steps=6)


class Question(BaseModel):
    """What is asked."""

    question: str


@app.post("/ask")
def ask(body: Question) -> dict[str, Any]:
    """Answer a question."""
    return asdict(agent(body.question))
