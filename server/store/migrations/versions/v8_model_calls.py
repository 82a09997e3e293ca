"""The model calls and the steps of runs, and columns by which runs are found."""

import json

import sqlalchemy as sa
from alembic import op

revision = "8"
down_revision = "7"

AT_ONCE = 500


def upgrade() -> None:
    """Two more tables, and more columns of a run. The steps of earlier runs stay in their records."""
    op.create_table(
        "step",
        sa.Column("run", sa.Text, sa.ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("written", sa.Text),
    )
    op.create_table(
        "model_call",
        sa.Column("run", sa.Text, sa.ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("tool", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("shared", sa.Integer, nullable=False),
        sa.Column("rest", sa.Text),
        sa.Column("written", sa.Text),
        sa.Column("tokens", sa.LargeBinary, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
    )
    op.create_index("model_call_step", "model_call", ["run", "step"])
    for column in ("state", "agent", "model", "session", "searched"):
        op.add_column("run", sa.Column(column, sa.Text))
    op.add_column("run", sa.Column("asked", sa.Double))
    op.create_index("run_session", "run", ["workspace", "session", "number"])
    op.create_index("run_asked", "run", ["asked"])
    _fill()


def _fill() -> None:
    """The new columns of runs that are there."""
    run = sa.table(
        "run",
        *map(
            sa.column,
            ("id", "number", "summary", "record", "state", "agent", "model", "session", "searched", "asked"),
        ),
    )
    connection, after = op.get_bind(), -1
    while True:
        found = connection.execute(
            sa.select(run.c.id, run.c.number, sa.func.coalesce(run.c.summary, run.c.record))
            .where(run.c.number > after)
            .order_by(run.c.number)
            .limit(AT_ONCE)
        ).all()
        if not found:
            return
        after = found[-1].number
        for name, _, text in found:
            try:
                record = json.loads(text)
            except ValueError:
                continue
            if isinstance(record, dict):
                connection.execute(sa.update(run).where(run.c.id == name).values(_columns(record)))


def _columns(record: dict[str, object]) -> dict[str, object]:
    given = {"state": "state", "agent": "agent", "model": "model", "session": "session_id", "searched": "question"}
    found: dict[str, object] = {}
    for column, name in given.items():
        value = record.get(name)
        # PostgreSQL has no place for these characters.
        found[column] = value.replace("\0", "").encode(errors="replace").decode() if isinstance(value, str) else None
    if isinstance(found["searched"], str):
        found["searched"] = found["searched"].lower()
    asked = record.get("asked")
    found["asked"] = float(asked) if isinstance(asked, int | float) else None
    return found
