"""The agent that answers with Python code.

It writes code, is asked whether that answers the question, runs it in the session's sandbox, and repairs it with the
error before its eyes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server.sdk import CodeResult, CodeSession, UnreadableReplyError, code_session, run_code, tell_step, usage

from . import prompts
from .agent import Agent, AgentResult, HistoryMessage, Step
from .code_advice import advice
from .conversation import Conversation, shortened

TOOL = "python"
"""The name in steps."""
TRIES = 5
"""Maximum number of times that code is run for a question."""
ROUNDS = 3
"""Maximum number of times that code is written for a try."""
CODE_TOKENS, CODE_SHARE = 2048, 1 / 4
CHECK_TOKENS = 256
ANSWER_TOKENS, ANSWER_SHARE = 1024, 1 / 8
SECTION_SHARE = 1 / 12
"""The maximum of each section of the prompt whose length others decide: a share of the model's context length."""
NO_CODERS = ("embedded",)
"""Models that write no code."""
CHECK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answers": {"type": "boolean"}, "problem": {"type": "string", "maxLength": 500}},
    "required": ["answers", "problem"],
    "additionalProperties": False,
}


@dataclass
class _Failed:
    """Code that failed, and how."""

    code: str
    error: str


class Coder(Agent):
    """Answers with code. `details` has `code`, `output`, `figures`, `files`, `session_id`, and how many `tries`."""

    name = "coder"

    def __call__(self, question: str, history: Sequence[HistoryMessage] = ()) -> AgentResult:
        """The answer to `question`. Every run of code is a step. Raises what the model and the sandbox raise."""
        with usage.measured() as used:
            session = code_session()
            if session.model in NO_CODERS:
                return AgentResult(prompts.NO_CODER.format(model=session.model), None, [], asdict(used))
            result, steps = self.work(question, history, session)
            code, tries = steps[-1].input["code"], len(steps)
            if result.error is None:
                answer = self._conclude(question, code, str(result))
            else:
                answer = prompts.CODE_GAVE_UP.format(tries=tries, error=f"{_kind(result)}: {result.error['message']}")
        details = {
            "code": code,
            "output": str(result),
            "figures": result.figures,
            "files": result.files,
            "session_id": result.session_id,
            "tries": tries,
        }
        return AgentResult(answer, TOOL, steps, asdict(used), details)

    def work(
        self,
        task: str,
        history: Sequence[HistoryMessage],
        session: CodeSession,
        question: str = "",
        plan: Sequence[str] = (),
    ) -> tuple[CodeResult, list[Step]]:
        """Write and run code for `task` until it succeeds or has failed `TRIES` times. Returns its last result, and a
        step for each run. `question` and `plan`: what the task is a part of."""
        failed: list[_Failed] = []
        steps: list[Step] = []
        while True:
            written = {
                "histories": "\n".join(f"{one['role']}: {one['content']}" for one in history),
                "input": question,
                "plans": "\n".join(plan),
                "reacts": "\n\n".join(prompts.FAILED_CODE.format(**vars(one)) for one in failed),
                "task": task,
                "metadata": _metadata(session),
                "rules": _rules(session.blocked_imports),
                "checklist": prompts.CODER_CHECKLIST,
            }
            code, thought = self._write(written, session.blocked_imports)
            result = run_code(code, name="coder")
            step = self._step(thought, code, result)
            steps.append(step)
            tell_step(step)
            if result.error is None or len(steps) >= max(min(TRIES, self.max_steps), 1):
                return result, steps
            failed.append(_Failed(code, step.observation))
            session = CodeSession(session.files, result.variables, session.blocked_imports, session.model)

    def _write(self, sections: Mapping[str, str], blocked: Sequence[str]) -> tuple[str, str]:
        """Code that the model takes for an answer, or that it has written in the last round; and what was wrong with
        the rounds before."""
        asked = prompts.conversation(prompts.CODER, "")
        conversation = self.open(asked)
        limited = {
            name: shortened(conversation, text, int(conversation.window * SECTION_SHARE))
            for name, text in sections.items()
            if text.strip()
        }
        written = "\n\n".join(prompts.SECTION.format(name=name, text=text) for name, text in limited.items())
        conversation = self.open(prompts.conversation(prompts.CODER, written))
        problems: list[str] = []
        while True:
            code = conversation.write_code(min(CODE_TOKENS, int(conversation.window * CODE_SHARE)))
            if len(problems) + 1 >= ROUNDS:
                break
            problem = advice(code, blocked) or self._check(conversation)
            if problem is None:
                break
            problems.append(problem)
            conversation.add(prompts.CODE_PROBLEM.format(problem=problem))
        return code, " ".join(problems)

    def _check(self, conversation: Conversation) -> str | None:
        """What the model finds wrong with its code; None: it answers the question."""
        conversation.add(prompts.CHECK_CODE)
        try:
            said = conversation.write_json(CHECK_SCHEMA, CHECK_TOKENS)
        except UnreadableReplyError:  # without an opinion, the code itself shows
            return None
        return None if said["answers"] else str(said["problem"]) or "it does not answer the question."

    def _step(self, thought: str, code: str, result: CodeResult) -> Step:
        conversation = self.open(prompts.conversation(prompts.CODE_ANSWER, ""))
        observation = shortened(conversation, str(result), int(conversation.window * SECTION_SHARE))
        if result.error is None:
            return Step(thought, TOOL, {"code": code}, observation)
        error = f"{_kind(result)}: {result.error['message']}"
        return Step(thought, TOOL, {"code": code}, observation, error, result.error["traceback"] or None)

    def _conclude(self, question: str, code: str, output: str) -> str:
        conversation = self.open(prompts.conversation(prompts.CODE_ANSWER, ""))
        most = int(conversation.window * CODE_SHARE)
        gave = prompts.CODE_GAVE.format(
            question=question,
            code=shortened(conversation, code, most),
            output=shortened(conversation, output, most),
        )
        conversation = self.open(prompts.conversation(prompts.CODE_ANSWER, gave))
        return conversation.write("", min(ANSWER_TOKENS, int(conversation.window * ANSWER_SHARE)))


def _kind(result: CodeResult) -> str:
    return "" if result.error is None else str(result.error["type"])


def _metadata(session: CodeSession) -> str:
    """The session's files and variables, for the prompt."""
    lines = []
    for file in session.files:
        lines.append(f"file {file['name']}: {file['kind']}, {file['bytes']} bytes")
        lines += [f"  {line}" for line in str(file.get("profile", "")).splitlines()]
    for one in session.variables:
        about = [one["type"]]
        if "shape" in one:
            about.append(" x ".join(map(str, one["shape"])))
        if "columns" in one:
            about.append(", ".join(f"{name} ({kind})" for name, kind in one["columns"].items()))
        if "text" in one:
            about.append(one["text"])
        if not one["saved"]:
            about.append("lost if the interpreter ends")
        lines.append(f"variable {one['name']}: {', '.join(about)}")
    return "\n".join(lines)


def _rules(blocked: Sequence[str]) -> str:
    if not blocked:
        return prompts.CODER_RULES
    return f"{prompts.CODER_RULES}\n{prompts.CODER_BLOCKED.format(modules=', '.join(blocked))}"
