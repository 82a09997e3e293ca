"""The counters and histograms of `GET /metrics`. Names and units follow Prometheus' practices:
https://prometheus.io/docs/practices/naming/"""

from prometheus_client import Counter, Histogram

from server.sdk.usage import Usage

PASSES = Counter("hearth_forward_passes", "Forward passes of the model")
BATCH = Histogram("hearth_batch_sequences", "Texts that share a forward pass", buckets=(1, 2, 4, 8, 16, 32, 64))
TOKENS = Counter(
    "hearth_tokens",
    "Tokens of finished calls of the model: prompt (cached: those of them that were still in KV memory), completion "
    "(chosen by the model), forced (by a grammar)",
    ["kind"],
)
RUNS = Counter("hearth_runs_ended", "Questions that have ended", ["outcome"])
JOBS = Counter("hearth_jobs_ended", "Jobs that have ended", ["state"])
RELOADS = Counter("hearth_reloads", "Reloads that were asked for", ["outcome"])
WORKER_STARTS = Counter("hearth_workers_started", "Processes started for people's code")
WORKER_ENDS = Counter("hearth_workers_ended", "Such processes that ended: crashed, or ended by the server", ["how"])
TOOL_SECONDS = Histogram("hearth_tool_seconds", "Seconds that calls of tools took", ["tool"])
TOOL_FAILURES = Counter("hearth_tool_failures", "Calls of tools that gave no result", ["tool"])
CELL_SECONDS = Histogram("hearth_cell_seconds", "Seconds that cells of code in the sandbox took", ["outcome"])
FETCH_SECONDS = Histogram("hearth_fetch_seconds", "Seconds that loading pages from the web took", ["outcome"])
SEARCHES = Counter("hearth_searches", "Searches of the web that have ended", ["provider", "outcome"])
SANDBOX_STARTS = Counter("hearth_sandboxes_started", "Processes started for code that models wrote")
DOCUMENTS = Counter("hearth_documents_added", "Documents that were added: saved, or unchanged", ["outcome"])
CHUNKS_EMBEDDED = Counter("hearth_chunks_embedded", "Passages of documents that were embedded")
SEARCH_SECONDS = Histogram("hearth_search_seconds", "Seconds that searches in documents took")

AUDIT_FAILURES = Counter("hearth_audit_failures", "Events that could not be saved in the audit log")


def count_tokens(usage: Usage) -> None:
    """Count the tokens of a call of a model that has ended."""
    for kind in ("prompt", "cached", "completion", "forced"):
        TOKENS.labels(kind).inc(getattr(usage, f"{kind}_tokens"))
