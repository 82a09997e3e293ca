"""How a database comes from one format to the next: alembic's scripts, run when a server starts.

The rule of this folder: a script that was released is never changed, and says all that it does in `op`'s words alone,
so that it does the same whatever becomes of `tables.py`. `schema.LATEST` names the last one.
"""
