"""Generations by their content, when each was live, and records of runs."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "blob",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table("generation", sa.Column("hash", sa.Text, primary_key=True))
    op.create_table(
        "file",
        sa.Column("generation", sa.Text, sa.ForeignKey("generation.hash", ondelete="CASCADE"), primary_key=True),
        sa.Column("path", sa.LargeBinary, primary_key=True),
        sa.Column("digest", sa.Text, sa.ForeignKey("blob.digest"), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("file_digest", "file", ["digest"])
    op.create_table(
        "take_over",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("generation", sa.Text, sa.ForeignKey("generation.hash", ondelete="CASCADE"), nullable=False),
        sa.Column("time", sa.Double, nullable=False),
    )
    op.create_index("take_over_workspace", "take_over", ["workspace", "id"])
    op.create_index("take_over_generation", "take_over", ["generation"])
    op.create_table(
        "run",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False, unique=True),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("generation", sa.Text, sa.ForeignKey("generation.hash")),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("run_workspace", "run", ["workspace", "number"])
    op.create_index("run_generation", "run", ["generation"])
