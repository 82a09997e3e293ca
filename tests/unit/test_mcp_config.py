"""`mcp.json`, before anything is connected: variables, secrets, and what is missing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.workers.inside import mcp_tools
from server.workers.inside.mcp.config import Expansion, UnsetVariableError
from server.workers.inside.mcp_tools import McpTools


def test_variables_are_put_in_and_hidden_again() -> None:
    expansion = Expansion({"KEY": "a-secret", "LONGER": "a-secret-of-another", "PORT": "80", "EMPTY": ""})
    assert expansion.expand("Bearer ${KEY}, ${LONGER}${EMPTY} at ${PORT}, $KEY ${}") == (
        "Bearer a-secret, a-secret-of-another at 80, $KEY ${}"
    )
    assert expansion.hide("a-secret-of-another, not a-secret, 80") == "${LONGER}, not ${KEY}, 80"
    with pytest.raises(UnsetVariableError, match="NOTHING is not set"):
        expansion.expand("${NOTHING}")


def made(folder: Path) -> McpTools:
    code: Any = SimpleNamespace(folder=folder)
    return McpTools(code, {})


def test_without_a_file_there_is_nothing(tmp_path: Path) -> None:
    tools = made(tmp_path)
    tools.find(1.0)
    assert (tools.tools, tools.absent, tools.imports) == ({}, [], [])


def test_without_the_package_the_reason_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mcp.json").write_text('{"mcpServers": {"a": {"command": "true"}}}')
    monkeypatch.setattr(mcp_tools.importlib.util, "find_spec", lambda name: None)
    tools = made(tmp_path)
    tools.find(1.0)
    [absent] = tools.absent
    assert "pip install -r requirements-mcp.txt" in absent.reason and tools.tools == {}
    assert tools.warnings == [{"file": "server/mcp.json", "message": absent.reason}]
