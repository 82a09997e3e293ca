"""300 tools: whether the right one is among those that the model is shown, whether the embedded model then calls it,
and what the choice costs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

from benchmarks.tables import milliseconds, print_table
from constants import Settings
from server.agent import CustomAgentGuidance, tool_ranking
from server.agent.agent import Model
from server.agent.shown_tools import ShownTools
from server.documents.embedder import Embedder
from server.documents.tool_vectors import ToolVectors
from server.engine import GuidedEngine
from server.model import load_model
from server.providers import RemoteModel
from server.sdk import ResidentChatModel, arguments_schema, context
from server.tools import load_tools
from tests.support import lab_tools
from tests.support.model_api import ModelApi

DEFAULT: int = Settings.model_fields["TOOLS_SHOWN"].default
SHOWN = (5, 10, 20, DEFAULT)
CALLS = 40
"""Questions to the embedded model."""
VECTORS = ToolVectors(Embedder())
similarities = cache(VECTORS.similarities)
"""Of equal questions computed once: many are asked again with other numbers of tools."""
SETS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "written with the tools": lab_tools.questions,
    "written after the ranker": lab_tools.later_questions,
}


def report(few: bool) -> None:
    """Print the tables."""
    loaded = load_model(
        "embedded",
        load_in_8bit=False,
        device_map="cpu",
        dtype="float32",
        int8_threshold=6.0,
        progress=lambda stage, done, total: None,
    )
    engine = GuidedEngine(loaded.model, loaded.tokenizer)
    # Of a remote model only its window counts here, and how it estimates tokens.
    with (
        ModelApi(engine).serving() as api,
        closing(RemoteModel("openai:embedded", f"{api.url}/v1", with_key=False)) as remote,
    ):
        models: dict[str, Model] = {"8,192 tokens": remote, "4,096 tokens, the embedded model's": engine}
        rows = []
        for name, questions in SETS.items():
            asked = questions()[: 20 if few else None]
            for window, model in models.items():
                rows.append([name, window, "words", str(len(asked)), *_shares(model, asked)])
                with _embedding():
                    rows.append([name, window, "words and meaning", str(len(asked)), *_shares(model, asked)])
    print_table(
        (
            "questions",
            "window",
            "ranked by",
            "n",
            *(f"{most} shown" for most in SHOWN),
            f"{DEFAULT}, and find_tools once",
        ),
        rows,
    )
    print()
    asked = lab_tools.later_questions()[:: 40 if few else 3][:CALLS]
    with _embedding():
        calls = [[str(most), str(len(asked)), *_calls(engine, asked, most)] for most in (5, 12, DEFAULT)]
    print_table(("shown", "n", "the right tool is shown", "and called by the embedded model", "p50"), calls)
    print()
    _print_costs(engine, asked)


@contextmanager
def _embedding() -> Iterator[None]:
    """Within this block tools are ranked by meaning too, as in a run."""

    def ask(what: str, do: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"similarities": similarities(tuple(given["queries"]), tuple(given["texts"]))}

    # Nobody reads the run's events.
    ignored = dict.fromkeys(("step", "plan", "tools_shown", "tool_ended", "tool_failed"), lambda *_: "")
    with context.scope(listener=SimpleNamespace(ask=ask, tool_began=lambda *_: 0, **ignored)):
        yield


def _shares(model: Model, questions: Sequence[tuple[str, str]]) -> list[str]:
    """The shares of the questions whose tool is shown, for `SHOWN`, and after one call of `find_tools` with the
    question's own words."""
    tools = lab_tools.build()
    shares = []
    for most in SHOWN:
        with context.scope(most_tools=most):
            shown = [(ShownTools(model, tools, question), question, name) for question, name in questions]
        shares.append(sum(name in one.schemas for one, _, name in shown))
    for one, question, _ in shown:
        one.find(question)
    shares.append(sum(name in one.schemas for one, _, name in shown))
    return [f"{count / len(questions):.1%}".replace("%", " %") for count in shares]


def _calls(engine: GuidedEngine, questions: Sequence[tuple[str, str]], most: int) -> list[str]:
    """For how many questions the tool is shown, for how many it is called, and the median time of a question."""
    tools = lab_tools.build()
    shown, called, seconds = 0, 0, []
    for question, name in questions:
        with context.scope(most_tools=most):
            shown += name in ShownTools(engine, tools, question).schemas
            began = time.perf_counter()
            result = CustomAgentGuidance(engine, tools, 3)(question)
            seconds.append(time.perf_counter() - began)
        called += name in [step.tool for step in result.steps]
    return [str(shown), str(called), milliseconds(sorted(seconds)[len(seconds) // 2])]


def _print_costs(engine: GuidedEngine, questions: Sequence[tuple[str, str]]) -> None:
    tools = lab_tools.build()
    for tool in tools.values():
        arguments_schema(tool)

    def once(work: Callable[[], object]) -> str:
        began = time.perf_counter()
        work()
        return milliseconds(time.perf_counter() - began)

    def choose() -> None:
        with context.scope(most_tools=DEFAULT):
            for question, _ in questions:
                ShownTools(engine, tools, question)

    def rank() -> None:
        for question, _ in questions:
            tool_ranking.rank(question, tools)

    first = once(lambda: tool_ranking.rank(questions[0][0], tools))
    began = time.perf_counter()
    rank()
    ranked = (time.perf_counter() - began) / len(questions)
    choose()
    began = time.perf_counter()
    choose()
    chosen = (time.perf_counter() - began) / len(questions)
    shipped = load_tools(ResidentChatModel(get_engine=lambda: engine))
    ShownTools(engine, shipped, "hello")
    with _embedding():
        similarities.cache_clear()
        began = time.perf_counter()
        rank()
        compared = (time.perf_counter() - began) / len(questions)
    rows = [
        ["rank 300 tools by words for the first time, index included", first],
        ["rank them again", milliseconds(ranked)],
        ["rank them again by words and meaning, the question's vector included", milliseconds(compared)],
        ["choose those to show", milliseconds(chosen)],
        ["the same with the shipped tools, which are all shown", once(lambda: ShownTools(engine, shipped, "hello"))],
    ]
    print_table(("work before a question", "time"), rows)
