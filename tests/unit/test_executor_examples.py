"""The examples of docs/examples run as scripts, and with another model."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.examples import generator, shared_counter, slow_random_number
from tests.support.executor_jobs import is_alive
from tests.support.scripted_model import ScriptedModel, action

ROOT = Path(__file__).parents[2]
JOB = r"[\w-]+"


def lines_of(*command: str, folder: Path = ROOT) -> list[str]:
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    return ended.stdout.splitlines()


def check(lines: list[str], patterns: list[str]) -> None:
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_slow_random_number() -> None:
    check(
        lines_of("-m", "docs.examples.slow_random_number"),
        [
            rf"RandomNumber:{JOB} \(start\): Running RandomNumber in the background with job_id {JOB}\.",
            r"agent \(message\): I have started it\. You will hear from me\.",
            rf"RandomNumber:{JOB} \(finish\): The random number is \d+\.",
            r"agent \(message\): Your number is there\.",
        ],
    )


def test_generator() -> None:
    check(
        lines_of(str(ROOT / "docs/examples/generator.py")),  # as a file, too
        [
            rf"Titration:{JOB} \(start\): .*",
            r"agent \(message\): The titration is running\.",
            *(rf"Titration:{JOB} \(report\): drop {drop}: pH {2 + 1.5 * drop}" for drop in (1, 2, 3)),
            rf'Titration:{JOB} \(finish\): {{"drops": 3, "ph": 6\.5}}',
            r"agent \(message\): After 3 drops the pH is 6\.5\.",
        ],
    )


def test_shared_counter() -> None:
    lines = lines_of("-m", "docs.examples.shared_counter")
    assert lines[-1] == "300 cells on ['A', 'B', 'C']"
    assert sum("(finish)" in line for line in lines) == 3
    assert "agent (message): There are results." in lines


@pytest.mark.parametrize(
    ("main", "first", "shown"),
    [
        (slow_random_number.main, action("RandomNumber", a=3, b=3), "The random number is 3."),
        (generator.main, action("Titration", drops=1), "(report): drop 1: pH 3.5"),
        (shared_counter.main, action("Count", plate="Z", cells=7), "7 cells on ['Z']"),
    ],
)
def test_another_model_can_be_used(
    main: Callable[[ScriptedModel], None], first: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(ScriptedModel(replies=[first, "Started.", "Ended."]))
    printed = capsys.readouterr().out
    assert shown in printed and "agent (message): Ended." in printed


# Scripts that are written wrongly

SCRIPT = """
from tests.support.scripted_model import ScriptedModel, action
from tests.support.executor_tools import Background
from server.jobs.executor import initialize

class Mine(Background):
    name: str = "mine"
    def _run(self) -> str:
        return "done"

{guard}
    executor = initialize(llm=ScriptedModel(replies=[action("mine"), "Started.", "Ended."]), tools=[Mine()])
    for message in executor.run_once("Go."):
        print(message.outputs["output"])
"""


def test_tools_of_the_script_itself_work(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard='if __name__ == "__main__":'), encoding="utf-8")
    assert lines_of(str(script))[1:] == ["Started.", "done", "Ended."]


def test_a_script_without_its_last_condition_says_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard="if True:"), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Its process ended before the tool was called" in ended.stdout
    assert "if __name__ == '__main__':" in ended.stdout
    assert "This script starts an executor when it is imported." in ended.stderr


def test_a_tool_of_an_interactive_session_is_refused_with_what_to_do() -> None:
    program = SCRIPT.format(guard="if True:")
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "The tool 'mine' is defined in a notebook or in an interactive session." in ended.stderr
    assert "Put the tool into a file" in ended.stderr


def test_a_script_that_does_not_stop_its_executor_leaves_no_job(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.support.executor_tools import Stubborn\n"
        "from tests.support.scripted_model import ScriptedModel, action\n"
        "from server.jobs.executor import initialize\n"
        "import threading\n"
        "if __name__ == '__main__':\n"
        "    reported = threading.Event()\n"
        "    model = ScriptedModel(replies=[action('stubborn')])\n"
        "    executor = initialize(llm=model, tools=[Stubborn()], grace_seconds=1)\n"
        "    @executor.on_message\n"
        "    def show(who, type, outputs):\n"
        "        if type == 'report':\n"
        "            print(outputs['output'], flush=True)\n"
        "            reported.set()\n"
        "    executor.start()\n"
        "    executor('Start it.')\n"
        "    assert reported.wait(60)\n",
        encoding="utf-8",
    )
    pids = [int(pid) for pid in lines_of(str(script))[0].split()]
    assert len(pids) == 4 and not any(map(is_alive, pids))


def test_the_package_imports_nothing_of_the_server() -> None:
    program = (
        "import sys, server.jobs.executor\n"
        "heavy = {'flask', 'torch', 'sqlalchemy', 'transformers', 'guidance', 'waitress', 'prometheus_client'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
        "print(sorted(name for name in sys.modules if name.startswith('server.') and '.jobs' not in name))"
    )
    assert lines_of("-c", program) == [
        "[]",
        "['server.bounds', 'server.sdk', 'server.sdk.tool_result', 'server.workers', 'server.workers.inside', "
        "'server.workers.inside.guard']",
    ]
