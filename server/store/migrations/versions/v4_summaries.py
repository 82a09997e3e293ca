"""A summary of each run, so that lists need not read whole records."""

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """One more column."""
    op.add_column("run", sa.Column("summary", sa.Text))
