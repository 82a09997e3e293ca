"""The owner of a run and of a session."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Until now a person was a workspace."""
    for table in ("run", "session"):
        op.add_column(table, sa.Column("owner", sa.Text, nullable=False, server_default=""))
        op.execute(f"UPDATE {table} SET owner = workspace")
