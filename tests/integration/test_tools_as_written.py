"""Tools as people write them: in real workers, and over a real server."""

import json
import textwrap
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.reload_code import Code, code  # noqa: F401
from tests.support.server_process import Server

VALUES = """
    import math
    import numpy as np
    import pandas as pd
    from langchain_core.tools import tool

    frame = pd.DataFrame({"n": [1, 2], "metal": ["tin", "lead"]})

    @tool(response_format="content_and_artifact")
    def figure(name: str):
        "Draw a figure."
        return f"drawn {name}", object()

    @tool
    def value(name: str):
        "Give a value."
        return eval(name)
"""


def test_results_of_a_worker_are_readable(code: Code) -> None:  # noqa: F811
    code.write("tools/values.py", VALUES)
    code.reload()
    assert code.ask("value", name="frame['n'].sum()") == "3"
    assert code.ask("value", name="frame.groupby('metal')['n'].sum().to_dict()") == '{"lead": 2, "tin": 1}'
    assert code.ask("value", name="frame").endswith("(2 rows x 2 columns)")
    assert json.loads(code.ask("value", name="{pd.Timestamp('2026-01-02'): math.nan}")) == {
        "2026-01-02T00:00:00": "NaN"
    }
    assert code.ask("figure", name="one") == "drawn one"
    with pytest.raises(Exception, match="the tool gave a list, which is no text: RecursionError"):
        code.ask("value", name="(one := [], one.append(one), one)[2]")


INJECTED = """
    from typing import Annotated

    from langchain.tools import InjectedState, ToolRuntime
    from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, tool
    from pydantic import BaseModel
    from pydantic.v1 import BaseModel as OldModel

    @tool
    def by_id(x: int, call: Annotated[str, InjectedToolCallId]) -> str:
        "Give the id."
        return f"{x} {call[:5]}"

    class Arguments(BaseModel):
        x: int
        call: Annotated[str, InjectedToolCallId]

    @tool(args_schema=Arguments)
    def by_schema(x: int, call: str) -> dict:
        "Give the id."
        return {"x": x, "call": call[:5]}

    @tool
    def by_runtime(x: int, runtime: ToolRuntime) -> dict:
        "Give the id."
        return {"x": x, "id": runtime.tool_call_id[:5], "state": runtime.state}

    @tool
    async def awaited(x: int, runtime: ToolRuntime) -> str:
        "Give the id."
        return runtime.tool_call_id[:5]

    @tool
    def by_default(x: int, user: Annotated[str, InjectedToolArg] = "me") -> str:
        "Give the user."
        return f"{x} {user}"

    class OfClass(BaseTool):
        name: str = "of_class"
        description: str = "Give the id."

        def _run(self, x: int, runtime: ToolRuntime, call: Annotated[str, InjectedToolCallId]) -> str:
            return f"{x} {runtime.tool_call_id == call}"

    class Awaited(BaseTool):
        name: str = "awaited_class"
        description: str = "Wait."

        def _run(self, x: int) -> str:
            raise NotImplementedError("use await")

        async def _arun(self, x: int) -> str:
            return f"awaited {x}"

    class Unfinished(Awaited):
        name: str = "unfinished"

        def _run(self, x: int) -> str:
            return self.later(x)

        def later(self, x: int) -> str:
            raise NotImplementedError("not yet")

    of_class, awaited_class, unfinished = OfClass(), Awaited(), Unfinished()

    class Old(OldModel):
        x: int = 3

    @tool(args_schema=Old)
    def old(x: int) -> int:
        "Double a number."
        return 2 * x
"""


def test_what_langchain_injects_is_injected(code: Code) -> None:  # noqa: F811
    code.write("tools/injected.py", INJECTED)
    code.reload()
    assert code.ask("by_id", x=1) == "1 call_"
    assert json.loads(code.ask("by_schema", x=1)) == {"x": 1, "call": "call_"}
    assert json.loads(code.ask("by_runtime", x=1)) == {"x": 1, "id": "call_", "state": {}}
    assert code.ask("awaited", x=1) == "call_"
    assert code.ask("by_default", x=1) == "1 me"
    assert code.ask("of_class", x=1) == "1 True"
    live = code.workspace.live
    assert live is not None and live.tools is not None
    for name in ("by_id", "by_schema", "by_runtime", "by_default", "of_class"):
        assert list(live.tools[name].args_schema["properties"]) == ["x"], name


def test_classes_with_arun_alone_and_old_models_work(code: Code) -> None:  # noqa: F811
    code.write("tools/injected.py", INJECTED)
    code.reload()
    assert code.ask("awaited_class", x=1) == "awaited 1"
    # Its own NotImplementedError is its own: nothing is done twice.
    with pytest.raises(Exception, match="NotImplementedError: not yet"):
        code.ask("unfinished", x=1)
    assert code.ask("old", x=4) == "8"
    with pytest.raises(Exception, match="x: value is not a valid integer"):
        code.ask("old", x="many")


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("state: Annotated[dict, InjectedState]", "'state'"),
        ("user: Annotated[str, InjectedToolArg]", "'user'"),
    ],
)
def test_what_nobody_can_inject_is_refused_at_the_reload(code: Code, argument: str, named: str) -> None:  # noqa: F811
    code.write(
        "tools/state.py",
        f"""
        from typing import Annotated
        from langchain.tools import InjectedState
        from langchain_core.tools import InjectedToolArg, tool

        @tool
        def stateful(x: int, {argument}) -> str:
            "Use the state."
            return "x"
        """,
    )
    (error,) = code.refused()
    assert error["file"] == "server/tools/state.py"
    assert named in error["message"] and "'stateful'" in error["message"] and "default" in error["message"]


RAISES = """
    import sqlite3
    from langchain_core.tools import tool, ToolException
    from pydantic import BaseModel
    from server.sdk import keep

    DB = keep("db", lambda: sqlite3.connect(":memory:"))

    class Row(BaseModel):
        n: int

    @tool
    def calculator(expression: str) -> str:
        "Work out an arithmetic expression."
        return work_out(expression)

    def work_out(what):
        try:
            {}["tin"]
        except KeyError as error:
            if what == "chosen":
                raise ToolException("no such metal") from error
            if what == "model":
                Row(n="many")
            if what == "group":
                raise ExceptionGroup("two", [ValueError("a"), OSError("b")])
            if what == "notes":
                error.add_note("It was sample 7.")
                raise
            if what == "sqlite":
                return DB.execute("select 1").fetchone()[0]
            raise RuntimeError("the table is broken") from error
"""


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("?", r"^RuntimeError: the table is broken \(caused by KeyError: 'tin'\)$"),
        ("chosen", "^no such metal$"),
        ("model", "^ValidationError: n: Input should be a valid integer"),
        ("group", r"^ExceptionGroup: two \(2 sub-exceptions\): ValueError: a; OSError: b \(caused|OSError: b$"),
        ("notes", r"^KeyError: 'tin' It was sample 7\.$"),
    ],
)
def test_the_model_reads_what_led_to_an_error(code: Code, what: str, sentence: str) -> None:  # noqa: F811
    code.write("tools/calculator.py", RAISES)
    code.reload()
    with pytest.raises(Exception, match=sentence):
        code.ask(expression=what)


def test_a_connection_of_another_thread_is_explained(code: Code) -> None:  # noqa: F811
    code.write("tools/calculator.py", RAISES)
    code.reload()
    with pytest.raises(Exception, match=r"ProgrammingError.*check_same_thread=False.*docs/tools-and-agents\.md"):
        code.ask(expression="sqlite")


def put(server: Server, workspace: str, path: str, text: str) -> None:
    answer = server.session.put(f"/workspaces/{workspace}/files/{path}", data=textwrap.dedent(text).encode())
    assert answer.ok, answer.text


def ask(server: Server, workspace: str, **options: Any) -> dict[str, Any]:
    given = {"question": "What is 37 * 52?", "workspace": workspace, **options}
    answer = server.session.post("/run_script", json=given)
    assert answer.ok, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_step_and_the_log_have_the_traceback(server: Server) -> None:
    reload(server, "raises", calculator=RAISES)
    answer = ask(server, "raises", max_steps=1)
    step = answer["steps"][0]
    assert step["error"] == "RuntimeError: the table is broken (caused by KeyError: 'tin')"
    assert step["error"] in step["observation"] and "Traceback" not in step["observation"]
    assert (
        step["traceback"].startswith("KeyError: 'tin'") or "Traceback (most recent call last):" in step["traceback"]
    )
    assert 'File "server/tools/calculator.py", line' in step["traceback"]
    assert "langchain_core" not in step["traceback"] and "/generations/" not in step["traceback"]
    server.wait_until(lambda: "The tool calculator failed." in server.output, "the log's line")
    server.wait_until(lambda: "RuntimeError: the table is broken" in server.output, "the traceback in the log")
    saved = server.session.get(f"/runs/{answer['run_id']}").json()
    assert saved["steps"][0]["traceback"] == step["traceback"]
    # A call that can't be done is no mistake of the tool.
    assert "traceback" not in ask(server, "main", question="What is 1 / 0?")["steps"][0]


DIRECT = """
    from langchain_core.tools import tool

    @tool(return_direct=True)
    def calculator(expression: str) -> dict:
        "Work out an arithmetic expression."
        if expression == "0":
            raise ValueError("none")
        return {"worked out": "x" * 20_000}
"""


@pytest.mark.parametrize("agent", ["react", "auto"])
def test_return_direct_makes_the_result_the_answer(server: Server, agent: str) -> None:
    reload(server, "direct", calculator=DIRECT)
    answer = ask(server, "direct", agent=agent)
    assert answer["answer"] == json.dumps({"worked out": "x" * 20_000})
    assert answer["function"] == "calculator" and len(answer["steps"]) == 1
    assert len(answer["steps"][0]["observation"]) < 20_000


def test_return_direct_over_the_openai_api(server: Server) -> None:
    reload(server, "direct", calculator=DIRECT)
    body: dict[str, Any] = {
        "model": "hearth/react",
        "x_workspace": "direct",
        "messages": [{"role": "user", "content": "What is 37 * 52?"}],
        "stream": True,
    }
    streamed = server.session.post("/v1/chat/completions", json=body).text
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"])
    assert text == json.dumps({"worked out": "x" * 20_000})


KIT = """
    from langchain_core.tools import BaseTool, BaseToolkit, tool

    class Kit(BaseToolkit):
        def get_tools(self) -> list[BaseTool]:
            @tool
            def weigh(sample: str) -> str:
                "Weigh a sample."
                return "1 g"
            return [weigh]

    class Shout(BaseTool):
        name: str = "shout"
        description: str = "Shout a text."

        def _run(self, text: str) -> str:
            return text.upper()
"""


def reload(server: Server, workspace: str, **files: str) -> dict[str, Any]:
    for name, text in files.items():
        put(server, workspace, f"tools/{name.replace('__', '/')}.py", text)
    answer = server.session.post("/reload_modules", json={"workspace": workspace})
    assert answer.ok, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_lists_of_tools_and_sub_folders_are_found(server: Server) -> None:
    text = textwrap.dedent(KIT) + "tools = [*Kit().get_tools(), Shout()]\n"
    mass = """
        from langchain_core.tools import tool

        @tool
        def mass(formula: str) -> float:
            "Give the mass of a molecule."
            return 18.015
        """
    assert reload(server, "kits", kit=text, chem__organic__mass=mass)["warnings"] == []
    names = [one["name"] for one in server.session.get("/tools?workspace=kits").json()["tools"]]
    assert {"weigh", "shout", "mass"} <= set(names)
    changed = reload(server, "kits", kit=text.replace("1 g", "2 g"))["tools"]["changed"]
    assert changed == ["shout", "weigh"]


def test_a_toolkit_and_a_class_alone_are_pointed_out(server: Server) -> None:
    text = textwrap.dedent(KIT) + "kit = Kit()\nby_name = {'weigh': kit.get_tools()[0]}\n"
    reported = reload(server, "kits-alone", kit=text)["warnings"]
    assert {one["file"] for one in reported} == {"server/tools/kit.py"}
    messages = "\n".join(one["message"] for one in reported)
    assert "Shout is the class of a tool, and there is no tool of it: add shout = Shout()" in messages
    assert "kit is a toolkit" in messages and "by_name holds weigh" in messages and len(reported) == 3


def test_copies_are_ignored_and_can_be_deleted(server: Server) -> None:
    reload(server, "copies", x="")
    folder = server.output_file.parent / "data" / "workspaces" / "copies" / "tools"
    copies = ["shout-Copy1.py", "shout copy.py", "shout (1).py", "1shout.py", "my-lib/shout.py"]
    (folder / "my-lib").mkdir()
    for name in copies:
        (folder / name).write_text("1/0")
    reported = reload(server, "copies")["warnings"]
    assert sorted(one["file"] for one in reported) == sorted(f"server/tools/{name}" for name in copies)
    assert all("it is ignored" in one["message"] for one in reported)
    for name in copies:
        path = f"/workspaces/copies/files/tools/{quote(name)}"
        refused = server.session.put(path, data=b"")
        assert (refused.status_code, refused.json()["error"]["type"]) == (422, "invalid_path")
        assert server.session.get(path).content == b"1/0"
        assert server.session.delete(path).ok
    assert reload(server, "copies")["warnings"] == [] and not (folder / "my-lib").exists()


@pytest.mark.parametrize("path", ["../bob/tools/x.py", "tools/../../x.py", "tools", "notes.txt", "tools//x.py"])
def test_no_other_file_can_be_read_or_deleted(server: Server, path: str) -> None:
    reload(server, "inside", x="")
    for request in (server.session.get, server.session.delete):
        assert request(f"/workspaces/inside/files/{quote(path, safe='')}").status_code in (404, 405, 422)


ASKS = """
    import asyncio

    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from pydantic import BaseModel

    class Weight(BaseModel):
        value: int
        unit: str

    def build_tool(llm):
        @tool
        def find_weight(sample: str) -> str:
            "Find the weight of a sample."
            return "3 g"

        @tool
        def calculator(expression: str) -> dict:
            "Work out an arithmetic expression."
            agent = create_agent(llm, [find_weight])
            messages = agent.invoke({"messages": [("user", "What is the weight of sample AB12?")]})["messages"]
            structured = create_agent(llm, [find_weight], response_format=Weight)
            made = structured.invoke({"messages": [("user", "What is the weight of sample AB12?")]})
            streamed = list(llm.stream("Hello! Who are you?"))
            waited = asyncio.run(llm.ainvoke("Hello! Who are you?"))
            return {
                "kinds": [one.type for one in messages],
                "answer": messages[-1].text,
                "structured": made["structured_response"],
                "same": "".join(one.text for one in streamed) == waited.text,
                "chunks": len(streamed),
                "tokens": llm.get_num_tokens("What is 37 * 52?"),
                "used": waited.usage_metadata["total_tokens"],
            }
        return calculator
"""


def test_an_agent_of_langchain_works_inside_a_tool(start_server: Callable[..., Server]) -> None:
    server = start_server(TOOL_TIMEOUT=240)
    reload(server, "asks", calculator=ASKS)
    answer = ask(server, "asks", max_steps=1)
    [step] = answer["steps"]
    assert "error" not in step, step
    seen = json.loads(step["observation"])
    assert seen["kinds"] == ["human", "ai", "tool", "ai"] and "3 g" in seen["answer"]
    assert set(seen["structured"]) == {"value", "unit"}
    assert seen["same"] and seen["chunks"] >= 1 and seen["tokens"] > 3
    # What the tool has used counts for the run.
    plain = ask(server, "main", max_steps=1)
    assert answer["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + seen["used"]
