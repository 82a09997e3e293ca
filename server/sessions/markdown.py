"""A session as a Markdown document."""

from collections.abc import Sequence
from datetime import UTC, datetime

from server.store import SessionShown, Turn


def as_markdown(session: SessionShown, turns: Sequence[Turn]) -> str:
    """All that was said, and then the notepad, which is marked as such."""
    parts = [
        f"# {session.title}",
        f"Session `{session.id}` of the workspace `{session.workspace}`, {session.turns} turns, "
        f"{_day(session.created)} to {_day(session.used)}.",
    ]
    for turn in turns:
        parts += [f"## {turn.number}", _quoted(turn.question), turn.answer]
    noted = [turn for turn in turns if turn.entry is not None]
    if noted:
        parts += ["## Notepad", "Notes on the turns above, not what was said."]
    for turn in noted:
        entry = turn.entry or {}
        lines = [f"- **{turn.number}. {entry['title'] or entry['asked']}**", f"  - asked: {entry['asked']}"]
        lines += [f"  - {name}: {', '.join(entry[name])}" for name in ("done", "files", "variables") if entry[name]]
        parts.append("\n".join([*lines, f"  - found: {entry['found']}"]))
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
