"""Jobs, the sessions that they wake, and the values that they share."""

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Three more tables."""
    op.create_table(
        "job",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False, unique=True),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("session", sa.Text),
        sa.Column("run", sa.Text),
        sa.Column("generation", sa.Text, sa.ForeignKey("generation.hash"), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("log", sa.Text),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("started", sa.Double),
        sa.Column("ended", sa.Double),
    )
    op.create_index("job_state", "job", ["state"])
    op.create_index("job_session", "job", ["workspace", "session"])
    op.create_index("job_generation", "job", ["generation"])
    op.create_table(
        "wake",
        sa.Column("job", sa.Text, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
    )
    op.create_index("wake_session", "wake", ["workspace", "session"])
    op.create_table(
        "shared_value",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("session", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
