"""A Gradio demo for `gradio app.py`."""

from dataclasses import asdict
from typing import Any

import gradio as gr
import tools

from server.agent import CustomAgentGuidance

if gr.NO_RELOAD:
    from benchmarks.rivals.model import load_engine

    engine = load_engine()

agent = CustomAgentGuidance(engine, tools.load_tools(None), max_steps=6)


def ask(question: str) -> dict[str, Any]:
    """Answer a question."""
    return asdict(agent(question))


# As many questions at a time as the others take; one is Gradio's default.
demo = gr.Interface(ask, gr.Textbox(), gr.JSON(), api_name="ask", concurrency_limit=16)

if __name__ == "__main__":
    demo.launch()
