"""The tables, as queries name them. `migrations/` makes them; a change here needs a migration there."""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData()

BLOB = Table(
    "blob",
    METADATA,
    Column("digest", Text, primary_key=True),  # SHA-256 of the data, hexadecimal
    Column("data", LargeBinary, nullable=False),
)
GENERATION = Table(
    "generation",
    METADATA,
    Column("hash", Text, primary_key=True),  # as Snapshot.hash has it
)
FILE = Table(
    "file",
    METADATA,
    Column("generation", Text, ForeignKey("generation.hash", ondelete="CASCADE"), primary_key=True),
    Column("path", LargeBinary, primary_key=True),  # bytes, since a file's name may be no text
    Column("digest", Text, ForeignKey("blob.digest"), nullable=False),
    Index("file_digest", "digest"),
)
TAKE_OVER = Table(  # when a generation became the live one of a workspace
    "take_over",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("generation", Text, ForeignKey("generation.hash", ondelete="CASCADE"), nullable=False),
    Column("time", Double, nullable=False),  # seconds since 1970
    Index("take_over_workspace", "workspace", "id"),
    Index("take_over_generation", "generation"),
)
RUN = Table(
    "run",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False, unique=True),  # the order of their ends
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False, server_default=""),  # the person; today the name of the workspace
    Column("generation", Text, ForeignKey("generation.hash")),  # NULL: it ended before any code was pinned
    Column("record", Text, nullable=False),  # JSON
    Column("summary", Text),  # JSON, what lists show; NULL: the record of an older format
    Index("run_workspace", "workspace", "number"),
    Index("run_generation", "generation"),
)
SESSION = Table(
    "session",
    METADATA,
    Column("key", Integer, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False, server_default=""),
    Column("id", Text, nullable=False),  # the name that it has in its workspace
    Column("created", Double, nullable=False),  # seconds since 1970
    Column("used", Double, nullable=False),  # when its last exchange ended
    UniqueConstraint("workspace", "id"),
    Index("session_used", "used"),
)
MESSAGE = Table(
    "message",
    METADATA,
    Column("session", Integer, ForeignKey("session.key", ondelete="CASCADE"), primary_key=True),
    Column("turn", Integer, primary_key=True, autoincrement=False),  # 1, 2, ...: a question and its answer
    Column("role", Text, primary_key=True),  # user, or system when jobs have ended; assistant
    Column("content", Text, nullable=False),  # a JSON string, since PostgreSQL has no place for every character
    Column("run", Text, ForeignKey("run.id"), nullable=False),
    Column("time", Double, nullable=False),
)
NOTE = Table(  # the notepad's entry of an exchange
    "note",
    METADATA,
    Column("session", Integer, ForeignKey("session.key", ondelete="CASCADE"), primary_key=True),
    Column("turn", Integer, primary_key=True, autoincrement=False),
    Column("run", Text, ForeignKey("run.id"), nullable=False),
    Column("entry", Text, nullable=False),  # JSON
    Index("note_run", "run"),
)
JOB = Table(
    "job",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False, unique=True),  # the order of their arrival
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("server", Text, nullable=False),  # the data folder of the server that runs it
    Column("session", Text),  # the session that is woken at its end, and whose values it shares
    Column("run", Text),  # the run that started it; it may never be saved
    Column("generation", Text, ForeignKey("generation.hash"), nullable=False),
    Column("state", Text, nullable=False),
    Column("details", Text, nullable=False),  # JSON: what was asked for
    Column("progress", Text),  # JSON
    Column("outcome", Text),  # JSON: result or error
    Column("log", Text),  # a JSON string
    Column("tries", Integer, nullable=False),
    Column("created", Double, nullable=False),  # seconds since 1970
    Column("started", Double),
    Column("ended", Double),
    Index("job_state", "state"),
    Index("job_session", "workspace", "session"),
    Index("job_generation", "generation"),
)
WAKE = Table(  # a session that is to be woken, since a job of it has ended
    "wake",
    METADATA,
    Column("job", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("session", Text, nullable=False),
    Index("wake_session", "workspace", "session"),
)
SHARED_VALUE = Table(  # the dictionary that the tools and jobs of a session share
    "shared_value",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("session", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),  # JSON
)
