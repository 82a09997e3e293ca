"""Comparisons of two versions over a list of questions."""

import sqlalchemy as sa
from alembic import op

revision = "9"
down_revision = "8"


def upgrade() -> None:
    """Two more tables."""
    op.create_table(
        "comparison",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False, unique=True),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("generation_a", sa.Text, sa.ForeignKey("generation.hash"), nullable=False),
        sa.Column("generation_b", sa.Text, sa.ForeignKey("generation.hash"), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("questions", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("ended", sa.Double),
    )
    op.create_index("comparison_workspace", "comparison", ["workspace", "number"])
    op.create_index("comparison_generation_a", "comparison", ["generation_a"])
    op.create_index("comparison_generation_b", "comparison", ["generation_b"])
    op.create_table(
        "comparison_row",
        sa.Column("comparison", sa.Text, sa.ForeignKey("comparison.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("a", sa.Text),
        sa.Column("b", sa.Text),
    )
    op.create_index("comparison_row_rank", "comparison_row", ["comparison", "rank", "number"])
