"""The tables, as queries name them. `migrations/` makes them; a change here needs a migration there.

Over 400 lines, one table after the other.
"""

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
    Column("owner", Text, nullable=False, server_default=""),  # a username; without accounts, the workspace's name
    Column("generation", Text, ForeignKey("generation.hash")),  # NULL: it ended before any code was pinned
    Column("record", Text, nullable=False),  # JSON; without the steps, which have a table
    Column("summary", Text),  # JSON, what lists show; NULL: the record of an older format
    Column("state", Text),
    Column("agent", Text),
    Column("model", Text),
    Column("session", Text),
    Column("searched", Text),  # the question in lower case
    Column("asked", Double),  # seconds since 1970
    Index("run_workspace", "workspace", "number"),
    Index("run_generation", "generation"),
    Index("run_session", "workspace", "session", "number"),
    Index("run_asked", "asked"),
    Index("run_owner", "owner", "number"),
)
STEP = Table(  # a tool call of a run. Runs of older formats have their steps in their records
    "step",
    METADATA,
    Column("run", Text, ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, ...
    Column("line", Text, nullable=False),  # JSON, what lists show
    Column("step", Text, nullable=False),  # JSON
    Column("written", Text),  # a JSON string: the model's text that made it, with which a fork repeats it
)
MODEL_CALL = Table(  # see server.runs.trace.TracedCall
    "model_call",
    METADATA,
    Column("run", Text, ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, ...
    Column("step", Integer, nullable=False),
    Column("tool", Text),
    Column("kind", Text, nullable=False),
    Column("shared", Integer, nullable=False),
    Column("rest", Text),  # a JSON string; NULL: the run's trace was too long
    Column("written", Text),  # the same
    Column("tokens", LargeBinary, nullable=False),  # uint32, little-endian: twice the id, and 1 if it was chosen
    Column("details", Text, nullable=False),  # JSON
    Index("model_call_step", "run", "step"),
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
    Index("session_owned", "owner", "used"),
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
    Index("job_owner", "owner", "number"),
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
COLLECTION = Table(  # of documents
    "collection",
    METADATA,
    Column("key", Integer, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("session", Text, nullable=False),  # empty: it is the workspace's. NULLs would not be unique
    Column("name", Text, nullable=False),
    Column("created", Double, nullable=False),  # seconds since 1970
    UniqueConstraint("workspace", "session", "name"),
    sqlite_autoincrement=True,
)
DOCUMENT = Table(
    "document",
    METADATA,
    Column("key", Integer, primary_key=True),  # never used again: an index in memory may still name a deleted one
    Column("id", Text, nullable=False, unique=True),
    Column("collection", Integer, ForeignKey("collection.key", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),  # file, url or text
    Column("place", Text, nullable=False),  # the URL, or session and name of the file
    Column("sha256", Text, nullable=False),  # of the bytes
    Column("bytes", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("date", Text),  # ISO 8601, of the document's content
    Column("state", Text, nullable=False),  # embedding, ready, words_only
    Column("error", Text),  # why it is words_only
    Column("version", Text, nullable=False),  # changes with its text
    Column("pages", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("vectors", Integer, nullable=False),
    Column("characters", Integer, nullable=False),
    Column("skipped", Text, nullable=False),  # JSON
    Column("chunker", Text, nullable=False),  # what made its chunks
    Column("model", Text),  # what made its vectors
    Column("created", Double, nullable=False),
    Column("changed", Double, nullable=False),
    UniqueConstraint("collection", "name"),
    Index("document_state", "state"),
    sqlite_autoincrement=True,
)
DOCUMENT_PAGE = Table(
    "document_page",
    METADATA,
    Column("document", Integer, ForeignKey("document.key", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),  # from 0
    Column("label", Text),  # as printed; NULL: what has no pages
    Column("start", Integer, nullable=False),  # in the document's text, in characters
    Column("text", Text, nullable=False),
)
CHUNK = Table(  # a passage of a document, which a search finds
    "chunk",
    METADATA,
    Column("key", Integer, primary_key=True),  # never used again
    Column("document", Integer, ForeignKey("document.key", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),  # its place in the document
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("first_page", Integer, nullable=False),
    Column("last_page", Integer, nullable=False),
    Column("text", Text, nullable=False),
    UniqueConstraint("document", "number"),
    sqlite_autoincrement=True,
)
CHUNK_VECTOR = Table(
    "chunk_vector",
    METADATA,
    Column("chunk", Integer, ForeignKey("chunk.key", ondelete="CASCADE"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian, of length 1
)
COMPARISON = Table(  # of two versions, over a list of questions
    "comparison",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False, unique=True),  # the order of their arrival
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("server", Text, nullable=False),  # the data folder of the server that runs it
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("generation_a", Text, ForeignKey("generation.hash"), nullable=False),
    Column("generation_b", Text, ForeignKey("generation.hash"), nullable=False),
    Column("details", Text, nullable=False),  # JSON: both sides, the check, how many at once
    Column("questions", Integer, nullable=False),
    Column("error", Text),  # JSON
    Column("created", Double, nullable=False),  # seconds since 1970
    Column("ended", Double),
    Index("comparison_workspace", "workspace", "number"),
    Index("comparison_generation_a", "generation_a"),
    Index("comparison_generation_b", "generation_b"),
)
COMPARISON_ROW = Table(  # a question of a comparison, and what both sides answered
    "comparison_row",
    METADATA,
    Column("comparison", Text, ForeignKey("comparison.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 1
    Column("question", Text, nullable=False),  # JSON: question, expected answer, history
    Column("rank", Integer, nullable=False),  # as Row.rank has it
    Column("a", Text),  # JSON; NULL: not answered yet
    Column("b", Text),
    Index("comparison_row_rank", "comparison", "rank", "number"),
)
RESPONSE = Table(  # of OpenAI's API
    "response",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("previous", Text),  # the response that it continues, perhaps deleted; NULL: none
    Column("body", Text, nullable=False),  # JSON, as the route shows it
    Column("created", Double, nullable=False),  # seconds since 1970
)
RESPONSE_ITEM = Table(  # what a response was given, and then what it gave
    "response_item",
    METADATA,
    Column("response", Text, ForeignKey("response.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),  # from 0
    Column("id", Text, nullable=False, unique=True),
    Column("is_output", Integer, nullable=False),  # 0 or 1
    Column("body", Text, nullable=False),  # JSON
)
AUDIT = Table(  # append-only: triggers refuse changes
    "audit",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, ... without a gap
    Column("time", Double, nullable=False),  # seconds since 1970
    Column("actor", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("target", Text, nullable=False),  # a JSON string
    Column("details", Text, nullable=False),  # JSON
    Column("hash", Text, nullable=False),  # SHA-256 of the hash before and of this event, hexadecimal
    Index("audit_actor", "actor", "number"),
    Index("audit_act", "act", "number"),
)
USAGE = Table(
    "usage",
    METADATA,
    Column("day", Text, primary_key=True),  # of UTC, like 2026-01-31
    Column("person", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # the API key that asked; empty: none
    Column("model", Text, primary_key=True),  # empty: none, as for jobs
    Column("tokens_processed", BigInteger, nullable=False),
    Column("tokens_written", BigInteger, nullable=False),
    Column("runs", BigInteger, nullable=False),
    Column("job_seconds", Double, nullable=False),
    Index("usage_person", "person", "day"),
)
QUOTA = Table(
    "quota",
    METADATA,
    Column("name", Text, primary_key=True),  # a role or a person
    Column("limits", Text, nullable=False),  # JSON
)
ACCOUNT = Table(
    "account",
    METADATA,
    Column("username", Text, primary_key=True),  # never another person's, since objects have it as their owner
    Column("role", Text, nullable=False),
    Column("password", Text, nullable=False),  # argon2id
    Column("created", Double, nullable=False),  # seconds since 1970
    Column("used", Double),  # its last login
    Column("deleted", Double),
)
INVITATION = Table(
    "invitation",
    METADATA,
    Column("digest", Text, primary_key=True),  # SHA-256
    Column("role", Text, nullable=False),
    Column("inviter", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("username", Text),  # who has used it
)
LOGIN = Table(  # the family of a cookie and of the tokens that follow one another
    "login",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("username", Text, nullable=False),  # empty: who has the start token
    Column("cookie", Text, nullable=False, unique=True),  # SHA-256
    Column("start_token", Text, nullable=False),  # SHA-256 of the one it was made with; empty: made by a password
    Column("refreshes", Integer, nullable=False),  # the number of its current refresh token
    Column("refreshed", Double, nullable=False),  # since when that is the current one
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
)
API_KEY = Table(
    "api_key",
    METADATA,
    Column("prefix", Text, primary_key=True),
    Column("username", Text, nullable=False),
    Column("digest", Text, nullable=False),  # SHA-256 of the whole key
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # JSON
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("used", Double),  # to the minute
)
OPENING = Table(  # an admin reads a person's objects for a while
    "opening",
    METADATA,
    Column("admin", Text, primary_key=True),
    Column("username", Text, primary_key=True),
    Column("until", Double, nullable=False),
)
SESSION_OWNER = Table(  # whose name it is, also before the first question and after the session was deleted
    "session_owner",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("session", Text, primary_key=True),
    Column("owner", Text, nullable=False),
)
SESSION_MEMBER = Table(  # colleagues who may read and write in a session
    "session_member",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("session", Text, primary_key=True),
    Column("username", Text, primary_key=True),
    Index("session_member_username", "username"),
)
WORKSPACE_MEMBER = Table(
    "workspace_member",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("username", Text, primary_key=True),
    Column("role", Text, nullable=False),  # owner, editor, reader
)
PEOPLE_STATE = Table(
    "people_state",
    METADATA,
    # changes: how often anything of the above has changed; secret: signs tokens
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
