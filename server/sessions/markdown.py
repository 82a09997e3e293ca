"""A session as a Markdown document."""

from collections.abc import Sequence
from datetime import UTC, datetime

from server.store import Exchange, SessionShown


def as_markdown(session: SessionShown, exchanges: Sequence[Exchange]) -> str:
    """All exchanges, and then the notepad, which is marked as such."""
    parts = [
        f"# {session.title}",
        f"Session `{session.id}` of the workspace `{session.workspace}`, {session.turns} turns, "
        f"{_day(session.created)} to {_day(session.used)}.",
    ]
    for exchange in exchanges:
        parts += [f"## {exchange.number}", _quoted(exchange.question), exchange.answer]
    noted = [exchange for exchange in exchanges if exchange.entry is not None]
    if noted:
        parts += ["## Notepad", "Notes on the turns above, not what was said."]
    for exchange in noted:
        entry = exchange.entry or {}
        lines = [f"- **{exchange.number}. {entry['title'] or entry['asked']}**", f"  - asked: {entry['asked']}"]
        lines += [f"  - {name}: {', '.join(entry[name])}" for name in ("done", "files", "variables") if entry[name]]
        parts.append("\n".join([*lines, f"  - found: {entry['found']}"]))
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
