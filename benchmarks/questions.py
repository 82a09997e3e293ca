"""A question's time in the agent, and how much of it is not the model's."""

import time

from server.agent import CustomAgentGuidance
from server.engine import GuidedEngine
from server.model import load_model
from server.sdk import ResidentChatModel
from server.tools import load_tools

QUESTIONS = (
    "What is 37 * 52?",
    "Convert 3 miles to km",
    "Which weekday is 2026-12-25?",
    "How many words are in 'the quick brown fox'?",
    "hello",
)


def measure(times: int) -> dict[str, list[float]]:
    """Seconds a question, with the seconds outside of forward passes, one caller, the embedded model in float32."""
    loaded = load_model(
        "embedded",
        load_in_8bit=False,
        device_map="cpu",
        dtype="float32",
        int8_threshold=6.0,
        progress=lambda stage, done, total: None,
    )
    engine = GuidedEngine(loaded.model, loaded.tokenizer)
    tools = load_tools(ResidentChatModel(get_engine=lambda: engine))
    spent = 0.0
    began = 0.0

    def before(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(*_: object) -> None:
        nonlocal spent
        spent += time.perf_counter() - began

    loaded.model.register_forward_pre_hook(before)
    loaded.model.register_forward_hook(after)
    whole, outside = [], []
    for number in range(-len(QUESTIONS), times):  # each once to warm up
        spent = 0.0
        arrived = time.perf_counter()
        CustomAgentGuidance(engine, tools, max_steps=6)(QUESTIONS[number % len(QUESTIONS)])
        if number >= 0:
            whole.append(time.perf_counter() - arrived)
            outside.append(whole[-1] - spent)
    return {"a question": whole, "of which not in forward passes": outside}
