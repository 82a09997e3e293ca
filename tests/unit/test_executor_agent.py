"""The agent's turns, over real jobs and a scripted model."""

import logging
import threading
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import StructuredTool

from server.jobs.executor import JobState, Message, ToolNotSendableError, initialize
from server.jobs.executor import tools as executor_tools
from tests.support import executor_tools as tools
from tests.support.executor_jobs import SECONDS
from tests.support.scripted_model import Reply, ScriptedModel, action
from tests.support.watched_executor import Make, open_gate, open_gate_if_anybody_waits, waits


def test_the_agent_answers(make: Make) -> None:
    watched = make(action("lookup", metal="tin"), "It melts at 231.9 degrees.")
    watched.executor("At what temperature does tin melt?")
    watched.wait_until(watched.answers, "no answer")
    assert watched.answers() == ["It melts at 231.9 degrees."]
    assert watched.messages[0].outputs["intermediate_steps"] == [
        {"tool": "lookup", "tool_input": {"metal": "tin"}, "observation": "231.9"}
    ]
    first, second = watched.model.prompts
    assert isinstance(first[0], SystemMessage) and "lookup: Look something up." in first[0].text
    assert "gate: For tests. It runs in the background." in first[0].text
    assert first[1:] == [HumanMessage("At what temperature does tin melt?")]
    assert "Observation: 231.9" in second[1].text


def test_a_background_tool_returns_its_jobs_name_at_once_and_the_agent_continues(make: Make, fifo: Path) -> None:
    watched = make(action("gate", fifo=str(fifo)), "I have started it.", "I am still here.", "It is through.")
    watched.executor("Start it.")
    watched.wait_until(watched.answers, "no answer")
    name = watched.executor.jobs[0].job_id
    assert watched.observations() == [f"Running gate in the background with job_id {name}."]
    watched.executor("Are you there?")
    watched.wait_until(lambda: len(watched.answers()) == 2, "it does not continue")
    assert watched.executor.running_jobs == {name}
    open_gate(fifo)
    watched.wait_until(lambda: len(watched.answers()) == 3, "it was not woken")
    assert watched.answers() == ["I have started it.", "I am still here.", "It is through."]
    assert f"Tool gate with job_id {name} finished: through" in watched.system_turns()[0]
    history = [message.text for message in watched.model.prompts[-1][1:-1]]
    assert history == ["Start it.", "I have started it.", "Are you there?", "I am still here."]
    assert [message.type for message in watched.messages if message.who == f"gate:{name}"] == ["start", "finish"]


@pytest.mark.parametrize("busy", [True, False])
def test_jobs_that_end_together_give_one_system_turn(make: Make, fifo: Path, busy: bool) -> None:
    free = threading.Event()

    def wait(text: str) -> str:
        assert free.wait(SECONDS)
        return "Here."

    starts = [action("gate", fifo=str(fifo), value=number) for number in range(5)]
    watched = make(*starts, "All started.", *([wait] if busy else []), "All ended.", gather_seconds=SECONDS)
    watched.executor("Start five.")
    watched.wait_until(watched.answers, "no answer")
    if busy:
        watched.executor("Are you there?")
    jobs = watched.executor.jobs
    watched.wait_until(lambda: all(job.state is JobState.Running for job in jobs), "they do not run")
    while watched.executor.running_jobs:
        open_gate_if_anybody_waits(fifo)
    watched.wait_until(lambda: len(watched.of("finish")) == 5, "they do not end")
    free.set()
    watched.wait_until(lambda: watched.answers()[-1] == "All ended.", "no system turn")
    assert len(watched.system_turns()) == 1
    assert all(job.job_id in watched.system_turns()[0] for job in jobs)


def test_the_users_turns_go_before_the_systems(make: Make) -> None:
    free = threading.Event()

    def wait(text: str) -> str:
        assert free.wait(SECONDS)
        return "one"

    watched = make(action("echo", value=1), wait)
    watched.executor("first")
    watched.wait_until(lambda: watched.of("finish"), "the job does not end")
    watched.executor("second")
    watched.executor("third")
    free.set()
    watched.wait_until(lambda: len(watched.answers()) == 4, "not all were answered")
    assert [text[:12] for text in watched.model.last_texts[2:]] == ["second", "third", "This message"]


def test_a_failed_job_is_reported(make: Make) -> None:
    watched = make(action("failing", how="exception"), "Started.", "It failed.")
    messages = list(watched.executor.run_once({"input": "Start it."}))
    assert [message.type for message in messages if message.who != "agent"] == ["start", "error"]
    assert "failed: ToolException: no value for tin" in watched.system_turns()[0]


def test_tools_that_fail_or_do_not_exist_are_observations(make: Make) -> None:
    unreadable = "```json\nno\n```"
    actions = [action("lookup", metal="gold"), action("nothing"), action("lookup")]
    watched = make(*actions, unreadable, unreadable, "Well.")
    list(watched.executor.run_once("Try."))
    seen = watched.observations()
    assert seen[0] == "Error: ValueError: unknown metal"
    assert seen[1].startswith("nothing is not a tool. The tools are: echo,")
    assert "metal" in seen[2] and "not JSON" in seen[3]
    assert watched.answers() == ["Well."]


def test_a_turn_has_a_limited_number_of_steps(make: Make) -> None:
    watched = make(*[action("lookup", metal="tin")] * 5, max_iterations=3)
    list(watched.executor.run_once("Try."))
    assert watched.answers() == ["I stopped after 3 steps without an answer."]


def test_a_model_that_fails_ends_its_turn_only(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def fail(text: str) -> str:
        raise ConnectionError("no model")

    watched = make(fail, "I am back.")
    with caplog.at_level(logging.CRITICAL):
        messages = list(watched.executor.run_once("Hello?"))
    assert [message.outputs["output"] for message in messages] == ["ConnectionError: no model"]
    messages = list(watched.executor.run_once("Hello?"))
    assert [message.outputs["output"] for message in messages] == ["I am back."]


# The agent's own tools


def test_it_waits_for_a_job_and_gets_no_second_report(make: Make, fifo: Path) -> None:
    watched = make(action("gate", fifo=str(fifo)), waits(), "It is through.")
    watched.executor("Start it and wait.")
    open_gate(fifo)
    watched.wait_until(watched.answers, "no answer")
    assert watched.observations()[1].endswith("finished: through")
    watched.executor.stop()
    assert watched.system_turns() == [] and watched.answers() == ["It is through."]


def test_a_wait_blocks_no_bookkeeping(make: Make, fifo: Path) -> None:
    watched = make(action("steps", count=3), action("echo", value=2), action("gate", fifo=str(fifo)), waits(), "Yes.")
    watched.executor("Start three, and wait for the last.")
    recorded = lambda: len(watched.of("finish")) == 2 and len(watched.of("report")) == 3  # noqa: E731
    watched.wait_until(recorded, "nothing was recorded")
    assert watched.answers() == []
    open_gate(fifo)
    watched.wait_until(lambda: len(watched.answers()) == 2, "no system turn for the others")
    assert "echo" in watched.system_turns()[0] and "gate" not in watched.system_turns()[0]


def test_it_waits_for_any_job(make: Make, fifo: Path) -> None:
    def any_of(text: str) -> str:
        names = [part.split(".")[0] for part in text.split("with job_id ")[1:]]
        return action("_Wait", job_ids=names, mode="any")

    watched = make(action("gate", fifo=str(fifo)), action("echo", value=7), any_of, "One of them.")
    watched.executor("Start two.")
    watched.wait_until(watched.answers, "no answer")
    gate, echo = watched.observations()[2].splitlines()
    assert echo.endswith("finished: 7") and (" is running" in gate or " is starting" in gate)


def test_waits_that_end_without_the_job(make: Make, fifo: Path) -> None:
    watched = make(action("gate", fifo=str(fifo)), waits(timeout=0.01), waits(), "Hm.", "You wrote.")
    watched.executor("Start it and wait.")
    watched.wait_until(lambda: len(watched.model.prompts) == 3, "no second wait")
    watched.executor("Stop waiting.")
    watched.wait_until(lambda: len(watched.answers()) == 2, "no answers")
    assert watched.observations()[1].startswith("The time is over.")
    assert watched.observations()[2].startswith("The wait was interrupted, because the user has written.")
    assert watched.answers() == ["Hm.", "You wrote."]


def test_a_job_that_is_waited_for_is_cancelled(make: Make) -> None:
    watched = make(action("sleeper"), waits(), "It was cancelled.")
    watched.executor("Start it and wait.")
    watched.wait_until(lambda: len(watched.model.prompts) == 2 and watched.of("start"), "it does not wait")
    name = watched.executor.jobs[0].job_id
    assert watched.executor.cancel(name).state is JobState.Cancelled
    watched.wait_until(watched.answers, "no answer")
    assert watched.observations()[1] == f"Tool sleeper with job_id {name} was cancelled."
    with pytest.raises(KeyError):
        watched.executor.cancel("no-job")


def test_it_cancels_and_inspects_jobs(make: Make) -> None:
    def about(name: str, tool: str) -> Reply:
        return lambda text: action(name, job_id=text.rpartition(f"{tool} with job_id ")[2].split(" ")[0])

    watched = make(
        action("_Status"),
        action("steps", count=2),
        waits(),
        action("sleeper"),
        action("_Status"),
        about("_Status", "sleeper"),
        about("_Cancel", "sleeper"),
        about("_Cancel", "steps"),
        "Done.",
    )
    list(watched.executor.run_once("Work."))
    seen = watched.observations()
    steps, sleeper = (job.job_id for job in watched.executor.jobs)
    assert seen[0] == "There are no jobs."
    assert seen[4].splitlines()[0] == f'Tool steps with job_id {steps} finished: {{"step": 1}}'
    assert seen[4].splitlines()[1].startswith(f"Tool sleeper with job_id {sleeper} is ")
    assert seen[5].startswith(f"Tool sleeper with job_id {sleeper} is ")
    assert seen[6] == f"Tool sleeper with job_id {sleeper} was cancelled."
    assert seen[7].startswith(f"It had already ended. Tool steps with job_id {steps} finished")
    assert watched.system_turns() == []


@pytest.mark.parametrize("name", ["_Wait", "_Cancel", "_Status"])
def test_unknown_names_are_sentences(make: Make, name: str) -> None:
    unknown = action(name, job_ids=["grey-cat"]) if name == "_Wait" else action(name, job_id="grey-cat")
    watched = make(unknown, action("echo", value=1), waits(), unknown, "So.")
    list(watched.executor.run_once("Try."))
    seen = watched.observations()
    assert seen[0] == "There is no job grey-cat. There are no jobs."
    assert seen[3] == f"There is no job grey-cat. The jobs are: {watched.executor.jobs[0].job_id}."


# Tools


def test_foreground_tools_share_the_context_and_report(make: Make) -> None:
    watched = make(action("foreground", value=4), action("plus_one", number=4), "Both.")
    list(watched.executor.run_once("Work."))
    assert watched.of("report") == [Message("foreground", "report", {"output": "on the way"})]
    assert watched.observations()[0] == "5"
    assert (watched.executor.global_context["seen"], watched.executor.global_context["number"]) == (4, 4)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        initialize(llm=ScriptedModel(replies=[]), tools=[tools.Echo(), tools.Echo()])


def test_a_tool_that_can_not_be_sent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    number = 3

    def closure(value: int) -> int:
        """Add."""
        return value + number

    made = StructuredTool.from_function(closure, extras={"background": True})
    with pytest.raises(ToolNotSendableError, match=r"'closure' can't be sent .* top level"):
        initialize(llm=ScriptedModel(replies=[]), tools=[made])

    class Notebook(tools.Background):
        name: str = "notebook"

        def _run(self) -> None: ...

    monkeypatch.setattr(Notebook, "__module__", "__main__")
    monkeypatch.setattr(executor_tools, "_can_be_imported", lambda main: False)
    with pytest.raises(
        ToolNotSendableError, match=r"'notebook' is defined in a notebook .* Put the tool into a file"
    ):
        initialize(llm=ScriptedModel(replies=[]), tools=[Notebook()])
