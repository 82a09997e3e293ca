"""What alembic executes to run the scripts: within a transaction that `schema` hands it."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="hearth_version")
context.run_migrations()
