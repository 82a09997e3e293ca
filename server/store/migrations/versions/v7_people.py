"""Accounts and their credentials, and who may see whose objects."""

import sqlalchemy as sa
from alembic import op

revision = "7"
down_revision = "6"


def upgrade() -> None:
    """Nine more tables, and what lists of one person's objects are found by."""
    op.create_table(
        "account",
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("used", sa.Double),
        sa.Column("deleted", sa.Double),
    )
    op.create_table(
        "invitation",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("inviter", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("username", sa.Text),
    )
    op.create_table(
        "login",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("cookie", sa.Text, nullable=False, unique=True),
        sa.Column("start_token", sa.Text, nullable=False),
        sa.Column("refreshes", sa.Integer, nullable=False),
        sa.Column("refreshed", sa.Double, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
    )
    op.create_table(
        "api_key",
        sa.Column("prefix", sa.Text, primary_key=True),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("used", sa.Double),
    )
    op.create_table(
        "opening",
        sa.Column("admin", sa.Text, primary_key=True),
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("until", sa.Double, nullable=False),
    )
    op.create_table(
        "session_owner",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("session", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
    )
    op.create_table(
        "session_member",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("session", sa.Text, primary_key=True),
        sa.Column("username", sa.Text, primary_key=True),
    )
    op.create_table(
        "workspace_member",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
    )
    op.create_table(
        "people_state",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_index("run_owner", "run", ["owner", "number"])
    op.create_index("job_owner", "job", ["owner", "number"])
    op.create_index("session_owned", "session", ["owner", "used"])
    op.create_index("session_member_username", "session_member", ["username"])
