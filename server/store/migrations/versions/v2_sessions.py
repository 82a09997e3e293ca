"""Sessions: what was said in them, and their notepads."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Three more tables."""
    op.create_table(
        "session",
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("used", sa.Double, nullable=False),
        sa.UniqueConstraint("workspace", "id"),
    )
    op.create_index("session_used", "session", ["used"])
    op.create_table(
        "message",
        sa.Column("session", sa.Integer, sa.ForeignKey("session.key", ondelete="CASCADE"), primary_key=True),
        sa.Column("turn", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("run", sa.Text, sa.ForeignKey("run.id"), nullable=False),
        sa.Column("time", sa.Double, nullable=False),
    )
    op.create_table(
        "note",
        sa.Column("session", sa.Integer, sa.ForeignKey("session.key", ondelete="CASCADE"), primary_key=True),
        sa.Column("turn", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("run", sa.Text, sa.ForeignKey("run.id"), nullable=False),
        sa.Column("entry", sa.Text, nullable=False),
    )
    op.create_index("note_run", "note", ["run"])
