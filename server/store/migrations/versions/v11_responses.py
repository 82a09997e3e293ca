"""Responses of OpenAI's API, and their items."""

import sqlalchemy as sa
from alembic import op

revision = "11"
down_revision = "10"


def upgrade() -> None:
    """Two more tables."""
    op.create_table(
        "response",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("previous", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
    )
    op.create_table(
        "response_item",
        sa.Column("response", sa.Text, sa.ForeignKey("response.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("is_output", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
