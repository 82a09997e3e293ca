"""A real HTTP server with OpenAI's API whose replies a script makes: for conversations that a small model can't
hold."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from tests.support.model_api import ModelApi
from tests.support.wire_formats import Request

Messages = list[dict[str, str]]
Script = Callable[[Messages], dict[str, Any]]
"""Makes a step from the conversation: `{"answer": ...}`, `{"action": ..., "action_input": ...}`, or, when a plan is
asked for, `{"plan": [...]}`."""


class ScriptedApi(ModelApi):
    """Its model does what `script` says. Whatever else is asked of it, such as a title, it answers with `{}`."""

    def __init__(self, script: Script) -> None:
        words = SimpleNamespace(count=lambda text: len(text.split()))
        super().__init__(cast(Any, SimpleNamespace(tokenizer=words, context_length=100_000)))
        self.script = script

    def reply(self, request: Request) -> tuple[str, int, int]:
        """See `ModelApi`."""
        if request.schema is not None and "ready" in request.schema.get("properties", {}):
            return '{"ready": true}', 1, 1  # the server asks whether schemas are supported
        parts = {} if request.schema is None else request.schema.get("properties", {})
        if request.schema is None or "steps" in parts:
            said = self.script(list(request.messages))
            return said["answer"] if request.schema is None else json.dumps({"steps": said["plan"]}), 1, 1
        if "step" not in parts:
            return "{}", 1, 1
        step = self.script(list(request.messages))
        return json.dumps({"thought": "as the script says", "step": step}), 1, 1
