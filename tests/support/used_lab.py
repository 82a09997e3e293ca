"""What a lab has after a day of work: runs that ended well and badly, two versions of a tool, a comparison,
documents, files, a job."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.support.server_process import Server

WORKSPACE = "alice"
SESSION = "warm-cedar"
TOOL = '''from langchain_core.tools import ToolException, tool

FREEZERS = {freezers}


@tool
def freezer_temperature(freezer: str) -> str:
    """Tell the temperature of a freezer."""
    if freezer not in FREEZERS:
        raise ToolException(f"there is no freezer {{freezer}}")
    return f"{{FREEZERS[freezer]}} °C"
'''
LONG = '''from server.sdk import tell_step

from .agent import Agent, AgentResult, Step


class Long(Agent):
    """Takes as many steps as the question says; "fail" makes it fail at its end."""

    name = "long"

    def __call__(self, question, history=()):
        steps = []
        for number in range(1, int(question.split()[-1]) + 1):
            steps.append(Step(f"Sample {number} is next.", "measure", {"sample": number}, f"{number * 37 % 101} mg"))
            tell_step(steps[-1])
        if "fail" in question:
            raise ValueError("sample 3 has no label")
        return AgentResult(f"All {len(steps)} samples are measured.", "measure", steps, {})
'''
JOB = '''from langchain_core.tools import tool

from server.sdk import progress


@tool(extras={"background": True})
def screen_plates(plates: int) -> str:
    """Screen plates for growth."""
    for plate in range(1, plates + 1):
        progress(plate, plates, f"plate {plate}")
        print(f"plate {plate}: {plate * 7 % 5} colonies", flush=True)
    return f"{plates} plates screened, 2 with growth"
'''
QUESTIONS = ["What is 37 * 52?", "What day of the week was 1969-07-20?", "Convert 5 miles to km"]
TABLE = b"sample,dose,growth\n" + b"".join(b"S%d,%d,%.1f\n" % (n, n * 5, n * 1.7) for n in range(1, 9))
TEXT = """Freezers

Freezer F7 holds the cell lines at -81 degrees. Its alarm is set to -70 degrees.

Freezer F8 holds enzymes at -20 degrees. It is defrosted in March and in September.
"""


@dataclass(frozen=True)
class UsedLab:
    """`run`: of one step; `fork`: the same with another result; `failed`, `long` (300 steps): runs."""

    run: str
    fork: str
    failed: str
    long: str
    comparison: str
    job: str
    address: str
    """Of the conversation."""


def use(server: Server) -> UsedLab:
    """Do the work. It takes some seconds."""
    session = server.session

    def answered(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = session.post(path, json=body)
        assert answer.ok, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def put(path: str, text: str) -> None:
        assert session.put(f"/workspaces/{WORKSPACE}/files/{path}", data=text.encode()).ok

    def is_in(path: str, state: str) -> bool:
        return bool(session.get(path).json()["state"] == state)

    where = {"workspace": WORKSPACE}
    put("agent/long.py", LONG)
    put("tools/screen_plates.py", JOB)
    generations = []
    for freezers in ('{"F7": -80}', '{"F7": -81, "F8": -20}'):
        put("tools/freezer_temperature.py", TOOL.format(freezers=freezers))
        generations.append(answered("/reload_modules", where)["generation"])
    asked = [answered("/run_script", {"question": one, "session_id": SESSION, **where}) for one in QUESTIONS]
    run = asked[0]["run_id"]
    answered("/run_script", {"question": "What is the temperature of freezer F7?", **where})
    long = answered("/run_script", {"question": "Measure samples: 300", "agent": "long", **where})["run_id"]
    refused = session.post("/run_script", json={"question": "Measure, and fail after 3", "agent": "long", **where})
    fork = answered(f"/runs/{run}/fork", {"step": 2, "observation": "7777"})["run_id"]
    expected = [("F7", "-81 °C"), ("F8", "-20 °C")]
    comparison = answered(
        "/comparisons",
        {
            "name": "Freezers: one or two",
            "questions": [
                {"question": f"What is the temperature of freezer {name}?", "expected": value}
                for name, value in expected
            ]
            + [{"question": "What is 6 * 7?", "expected": "42"}],
            "a": {"generation": generations[0], **where},
            "b": {"generation": generations[1], **where},
            "check": {"kind": "equal"},
            **where,
        },
    )["comparison_id"]
    files = {"files": ("growth.csv", TABLE, "text/csv")}
    assert session.post(f"/sessions/{SESSION}/files?workspace={WORKSPACE}", files=files).ok
    code = "import pandas\nframe = pandas.read_csv('growth.csv')\nmean = frame.growth.mean()"
    answered(f"/sessions/{SESSION}/code", {"code": code, **where})
    answered(f"/collections/handbook/documents?workspace={WORKSPACE}", {"name": "freezers.md", "text": TEXT})
    job = answered("/jobs", {"tool": "screen_plates", "input": {"plates": 12}, **where})["job_id"]
    for path, last in ((f"/jobs/{job}", "succeeded"), (f"/comparisons/{comparison}", "done")):
        server.wait_until(partial(is_in, path, last), f"{path} is {last}")
    failed = session.get("/runs", params={"state": "failed", **where}).json()["runs"][0]["run_id"]
    assert refused.status_code >= 400, refused.text
    return UsedLab(run, fork, failed, long, comparison, job, f"/ui/ask?session={SESSION}&workspace={WORKSPACE}")
