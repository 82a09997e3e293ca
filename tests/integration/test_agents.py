"""The agents that a question can ask for: found by file, chosen by name or by the model, and what each shows."""

import json
import math

import guidance
import pytest
import torch
from guidance import select
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.tools import BaseTool, ToolException, tool
from transformers import LlamaForCausalLM

from server.agent import CustomAgentGuidance, load_agents
from server.agent.auto import AGENTS, Auto
from server.agent.chat import Chat
from server.agent.plan_execute import MOST_STEPS, PlanExecute
from server.embedded import WEIGHTS
from server.engine import GuidedEngine
from server.sdk import ResidentChatModel, logprobs
from server.tools import load_tools
from tests.support.event_stream import ask, read
from tests.support.server_process import Server

BRIEF = """
from dataclasses import asdict

from server.sdk import usage

from . import prompts
from .agent import Agent, AgentResult

class Brief(Agent):
    name = "brief"

    def __call__(self, question, history=()):
        with usage.measured() as used:
            conversation = self.open(prompts.conversation("Answer in one word.", question, history))
            answer = conversation.write("", max_tokens=2)
        return AgentResult(answer, None, [], asdict(used), {"turns": len(history)})
"""


@pytest.fixture(scope="module")
def tools(engine: GuidedEngine) -> dict[str, BaseTool]:
    return load_tools(ResidentChatModel(get_engine=lambda: engine))


def test_there_are_six() -> None:
    assert sorted(load_agents()) == ["auto", "chat", "coder", "documents", "plan_execute", "react"]
    assert load_agents()["react"] is CustomAgentGuidance


def put(server: Server, workspace: str, path: str, text: str) -> None:
    answer = server.session.put(f"/workspaces/{workspace}/files/{path}", data=text.encode())
    assert answer.status_code in (200, 201), answer.text


def test_a_persons_own_agent_is_one_file(server: Server) -> None:
    put(server, "brief", "agent/brief.py", BRIEF)
    asked = {"question": "hello", "workspace": "brief", "agent": "brief"}
    answer = server.session.post("/run_script", json=asked).json()
    assert answer["details"] == {"turns": 0} and answer["provenance"]["agent"] == "brief", answer
    # No other workspace has it, and the error names the agents that there are.
    refused = server.session.post("/run_script", json={**asked, "workspace": "main"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (404, "agent_not_found")
    assert "auto, chat, coder, documents, plan_execute, react" in refused.json()["error"]["message"]


ODD = """
from server.sdk import ToolFailedError, tell_step

from .agent import Agent, AgentResult, Step

class Odd(Agent):
    name = "odd"

    def __call__(self, question):
        tell_step(Step("I will do it.", "none", {}, "nothing"))
        if question.startswith("raise "):
            exec(question)
        return eval(question)
"""


@pytest.mark.parametrize(
    ("does", "kind", "reason"),
    [
        ("raise ZeroDivisionError('the reason')", "ZeroDivisionError", "the reason"),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise ToolFailedError('it broke.')", "ToolFailedError", "it broke."),
        ("None", "AttributeError", "'NoneType' object has no attribute 'answer'"),
        ("AgentResult(1924, None, [], {})", "TypeError", "the agent 'odd' gave int as its answer"),
        ("AgentResult('x', None, ['none'], {})", "TypeError", "dataclass instances"),
        ("AgentResult('x', None, [], {'x': object()})", "TypeError", "not JSON serializable"),
        ("AgentResult('x', 5, [], {})", "TypeError", "gave what is no AgentResult: function: "),
        ("AgentResult('x', None, [], {'x': 1.5})", "TypeError", "gave what is no AgentResult: usage.x: "),
    ],
)
def test_an_agent_that_fails_is_reported_to_its_author(server: Server, does: str, kind: str, reason: str) -> None:
    put(server, "odd", "agent/odd.py", ODD)
    asked = {"question": does, "workspace": "odd", "agent": "odd"}
    refused = server.session.post("/run_script", json=asked)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["exception"]) == (502, "agent_failed", kind)
    assert reason in error["reason"] and reason in error["message"] and "not_recorded" not in error
    assert [step["thought"] for step in error["steps"]] == ["I will do it."]
    if does.startswith("raise"):
        assert (error["file"], error["line"]) == ("server/agent/odd.py", 12)
        assert "server/agent/odd.py" in error["traceback"] and "server/workers" not in error["traceback"]
    [run] = server.session.get("/runs", params={"workspace": "odd", "limit": "1"}).json()["runs"]
    assert (run["state"], run["error"]["type"]) == ("failed", "agent_failed")
    [worker] = [one for one in server.health()["workers"] if one["workspace"] == "odd"]
    assert worker["state"] == "idle", "it lives on"


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (
            BRIEF.replace('"brief"', '"chat"'),
            "DuplicateAgentError",
            "agent/brief.py and server/agent/chat.py both have",
        ),
        (
            BRIEF.replace('    name = "brief"\n', ""),
            "NamelessAgentError",
            "Brief in server/agent/brief.py needs a name",
        ),
    ],
)
def test_an_agent_that_can_not_be_is_refused(server: Server, code: str, kind: str, message: str) -> None:
    workspace = f"refused-{kind.lower()}"
    put(server, workspace, "agent/brief.py", code)
    refused = server.session.post("/reload_modules", json={"workspace": workspace})
    assert refused.status_code == 422
    [error] = refused.json()["error"]["errors"]
    assert error["type"] == kind and message in error["message"]


def test_the_probability_of_a_choice_is_the_models(engine: GuidedEngine) -> None:
    prompt = "How many? "
    with logprobs.measured() as chance:
        lm = engine.program() + guidance.string(prompt) + select(["1", "2", "7"], name="option")
    tokenizer = engine.tokenizer.transformers
    tokens = engine.tokenizer.encode_prompt(prompt)
    with torch.no_grad():
        logits = LlamaForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)(torch.tensor([tokens])).logits[0, -1]
    options = {text: tokenizer.convert_tokens_to_ids(text) for text in ("1", "2", "7")}
    among = torch.stack([logits[token] for token in options.values()]).softmax(-1)
    expected = dict(zip(options, among.tolist(), strict=True))[lm["option"]]
    assert math.isclose(math.exp(chance.log_probability), expected, rel_tol=1e-4)
    assert expected == max(among.tolist())


@settings(max_examples=5)
@given(question=st.text(min_size=1, max_size=60), max_steps=st.integers(1, 4))
def test_any_plan_ends_within_its_bounds(
    engine: GuidedEngine, tools: dict[str, BaseTool], question: str, max_steps: int
) -> None:
    result = PlanExecute(engine, tools, max_steps)(question)
    states = [step["state"] for step in result.details["plan"]]
    assert len(result.steps) <= max_steps
    assert 1 <= len(states) - states.count("planned") <= MOST_STEPS
    assert ("planned" in states) == ("out_of_steps" in result.details)
    json.dumps(result.details)


def test_several_questions_are_a_plan(engine: GuidedEngine, tools: dict[str, BaseTool]) -> None:
    result = PlanExecute(engine, tools, 6)("What is 37 * 52, and what weekday is 19 August 2026?")
    assert result.answer == "1924; Wednesday"
    assert [(step.tool, step.observation) for step in result.steps] == [
        ("calculator", "1924"),
        ("weekday", "Wednesday"),
    ]
    plan = [(one["step"].lower(), one["state"], one["result"]) for one in result.details["plan"]]
    assert plan == [
        ("what is 37 * 52", "done", "1924"),
        ("what weekday is 19 august 2026", "done", "Wednesday"),
    ]
    assert result.usage["forward_passes"] > 0


def test_a_step_works_on_what_the_one_before_it_gave(engine: GuidedEngine, tools: dict[str, BaseTool]) -> None:
    result = PlanExecute(engine, tools, 6)("What is 37 * 52? Then multiply it by 3.")
    assert result.answer == "5772"
    assert result.steps[-1].input == {"expression": "1924 * 3"}


def test_a_step_that_fails_is_tried_once_more(engine: GuidedEngine, tools: dict[str, BaseTool]) -> None:
    tried: list[str] = []

    @tool
    def weekday(date: str) -> str:
        """Tell the day of the week of a date."""
        tried.append(date)
        raise ToolException("the calendar is closed")

    result = PlanExecute(engine, {**tools, "weekday": weekday}, 6)(
        "What is 37 * 52, and what weekday is 19 August 2026?"
    )
    assert tried == ["19 August 2026"] * 2
    first, second = result.details["plan"][:2]
    assert first["state"] == "done"
    assert (second["state"], second["error"]) == ("failed", "the calendar is closed")
    assert "1924" in result.answer and "the calendar is closed" in result.answer


def test_a_long_error_of_a_step_does_not_cost_the_answer(engine: GuidedEngine, tools: dict[str, BaseTool]) -> None:
    trouble = "the calendar is closed; " + "; ".join(f"row {number} of it is damaged" for number in range(2000))

    @tool
    def weekday(date: str) -> str:
        """Tell the day of the week of a date."""
        raise ToolException(trouble)

    result = PlanExecute(engine, {"calculator": tools["calculator"], "weekday": weekday}, 6)(
        "What is 37 * 52, and what weekday is 19 August 2026?"
    )
    first, second = result.details["plan"][:2]
    assert (first["result"], second["state"], second["error"]) == ("1924", "failed", trouble)
    assert result.answer


def test_a_plan_says_when_it_is_out_of_steps(engine: GuidedEngine, tools: dict[str, BaseTool]) -> None:
    result = PlanExecute(engine, tools, 1)("What is 37 * 52, and what weekday is 19 August 2026?")
    assert result.details["out_of_steps"] is True
    assert [step["state"] for step in result.details["plan"]] == ["done", "planned"]
    assert "ran out of steps after 1" in result.answer


@pytest.mark.parametrize(
    ("question", "agent"),
    [
        ("hello", "chat"),
        ("What is 37 * 52?", "react"),
        ("What is 6 * 7? And how many words are in 'a b c'?", "plan_execute"),
    ],
)
def test_the_model_chooses_the_agent(
    engine: GuidedEngine, tools: dict[str, BaseTool], question: str, agent: str
) -> None:
    result = Auto(engine, tools, 6)(question)
    choice = result.details["choice"]
    assert choice["agent"] == agent and 0.5 < choice["probability"] <= 1
    assert result.answer == AGENTS[agent](engine, tools, 6)(question).answer
    alone = AGENTS[agent](engine, tools, 6)(question).usage["completion_tokens"]
    assert result.usage["completion_tokens"] > alone, "the choice counts too"


def test_a_chat_uses_no_tool(engine: GuidedEngine, tools: dict[str, BaseTool]) -> None:
    result = Chat(engine, tools, 6)("hello")
    assert (result.answer, result.function, result.steps) == ("Hello! How can I help?", None, [])


@pytest.mark.parametrize("agent", ["chat", "react"])
def test_history_stands_before_the_question(engine: GuidedEngine, tools: dict[str, BaseTool], agent: str) -> None:
    history = [
        {"role": "system", "content": "Notes on the conversation so far:\n1. What is 9 * 9? -> 81"},
        {"role": "user", "content": "What is 37 * 52?"},
        {"role": "assistant", "content": "1924"},
    ]
    made = load_agents()[agent](engine, tools, 4)
    longer, shorter = made("hello", history), made("hello")
    assert longer.usage["prompt_tokens"] > shorter.usage["prompt_tokens"]


def test_what_was_said_is_known(engine: GuidedEngine, tools: dict[str, BaseTool]) -> None:
    history = [
        {"role": "user", "content": "What is 37 * 52?"},
        {"role": "assistant", "content": "1924"},
        {"role": "user", "content": "What weekday is 19 August 2026?"},
        {"role": "assistant", "content": "Wednesday"},
    ]
    agent = CustomAgentGuidance(engine, tools, 4)
    assert agent("what was the answer to my first question?", history).answer == "1924"
    assert agent("What is 9 * 9?", history).answer == "81"


def test_the_plan_is_reported_as_it_changes(server: Server) -> None:
    question = "What is 37 * 52, and what weekday is 19 August 2026?"
    events = list(read(ask(server, question, agent="plan_execute")))
    plans = [event.data["steps"] for event in events if event.kind == "plan"]
    assert [sum(step["state"] == "done" for step in plan) for plan in plans] == [0, 1, 2]
    assert events[-1].kind == "answer"
    assert events[-1].data["details"]["plan"] == plans[-1]
