"""The parts of the server, each made once and handed what it needs."""

import threading
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from constants import MAY_HOLD_SECRETS, PREFIX, Settings
from server.audit.actor import actor
from server.audit.log import AuditLog
from server.comparisons.comparisons import Comparisons
from server.documents.calls import DocumentCalls
from server.documents.documents import Documents
from server.documents.embedder import Embedder
from server.documents.embeddings import Embeddings
from server.documents.reading import Reader
from server.documents.rerank import reranker
from server.documents.search import Searches
from server.documents.tool_vectors import ToolVectors
from server.files.folders import SessionFolders
from server.files.session_files import SessionFiles
from server.images.calls import ImageCalls
from server.images.pictures import Pictures
from server.internet.addresses import AllowList
from server.internet.calls import KEY, InternetCalls
from server.internet.fetch import Fetcher
from server.internet.pages import WebPages
from server.jobs.calls import JobCalls
from server.jobs.jobs import Jobs
from server.jobs.ray_cluster import RayCluster
from server.jobs.wakes import Waker
from server.models.autoload import Autoload
from server.models.background import BackgroundModel
from server.models.described import describe_all
from server.models.loading import ModelLoader, background_model
from server.models.resident import ResidentModels
from server.observability.load import Load
from server.observability.tracing import COLLECTOR_HEADERS
from server.people.accounts import Accounts
from server.people.credentials import CredentialCheck
from server.people.permissions import Permissions
from server.providers import PROVIDERS
from server.quotas.quotas import Quotas
from server.reload import MAIN, CodeFolders, CodeLoader, CodeRunner, Workspaces
from server.runs import Runs
from server.runs.forks import Forks
from server.runs.questions import Questions
from server.runs.traces import Traces
from server.sandbox.analyses import Analyses
from server.sandbox.calls import CodeCalls
from server.sandbox.sandboxes import Sandboxes
from server.sessions import NoteTaker, Sessions
from server.sessions.calls import SessionCalls
from server.sessions.feed import SessionFeeds
from server.store import Database, GenerationStore, RunStore, SessionStore
from server.store.comparisons import ComparisonStore
from server.store.documents import DocumentStore
from server.store.jobs import JobStore
from server.store.ownership import OwnershipStore
from server.store.people import PeopleStore
from server.store.responses import ResponseStore
from server.store.shared_values import SharedValues
from server.store.traces import TraceStore
from server.store.usage import QuotaStore, UsageStore
from server.workers.model_calls import ModelCalls
from server.workers.pool import Workers

SECRETS = frozenset(
    [PREFIX + name for name in MAY_HOLD_SECRETS]
    + [key for provider in PROVIDERS.values() for key in provider.keys]
    + [KEY, *COLLECTOR_HEADERS]
)
"""Environment variables that people's code does not get."""


class Host:
    """The state of the process between requests: a part for each thing that the routes serve. Idle until the first
    call."""

    def __init__(self, settings: Settings) -> None:
        """Raises `StoreError` when the data folder or the database can't be used, `RayMissingError`."""
        self.settings = settings

        self.database = Database(settings.DATA_DIR, settings.DATABASE_URL)
        self.audit = AuditLog(self.database)
        self.generations = GenerationStore(self.database)
        self.run_store = RunStore(self.database)
        self.session_store = SessionStore(self.database)
        self.responses = ResponseStore(self.database)
        self.job_store = JobStore(self.database, str(settings.DATA_DIR))
        self.sessions = Sessions(self.session_store)
        self.session_folders = SessionFolders(settings.DATA_DIR / "sessions")
        self.session_files = SessionFiles(self.session_folders, settings.SESSION_FILES_BYTES)
        self.sandboxes = Sandboxes(settings, self.session_folders)
        self.analyses = Analyses(self.sandboxes, self.session_files)
        fetcher = (
            Fetcher(AllowList(settings.FETCH_ALLOW), settings.FETCH_TIMEOUT, settings.FETCH_BYTES)
            if settings.FETCH == "on"
            else None
        )
        self.web_pages = WebPages(fetcher, self.sandboxes, self.session_folders)
        self.pictures = Pictures(
            settings,
            self.sandboxes,
            self.session_folders,
            self.session_files,
            None if fetcher is None else lambda url: fetcher.fetch_image(url).content,
        )
        document_store, embedder = DocumentStore(self.database), Embedder(settings.EMBEDDING_MODEL)
        self.documents = Documents(
            document_store,
            Reader(self.sandboxes, self.session_folders),
            embedder,
            Searches(document_store, embedder, reranker(settings.RERANK_MODEL, self._ask_about_passage)),
            None if fetcher is None else self.web_pages.document,
        )

        people = PeopleStore(self.database)
        self.credentials = CredentialCheck(settings, people)
        self.accounts = Accounts(people, self.credentials, self.audit, settings.ACCOUNTS)
        self.quotas = Quotas(
            QuotaStore(self.database),
            UsageStore(self.database),
            lambda person: self._files_bytes(person) + document_store.bytes_of(person),
            self.credentials.role_of,
            lambda person: self.runs.tokens_of(person) + self.jobs.tokens_of(person),
        )

        self.embeddings = Embeddings(embedder, self.quotas, self.database)

        self.models = ResidentModels()
        self.runs = Runs(settings.MAX_RUNS, settings.MAX_CONCURRENT_RUNS)
        self.background = BackgroundModel(
            partial(background_model, settings) if settings.BACKGROUND_MODEL else None, self.models, self.runs.queue
        )
        self.workers = Workers(
            ModelCalls(self.models.engine, self.background.complete),
            SessionCalls(
                JobCalls(settings, lambda: self.jobs, SharedValues(self.database)),
                CodeCalls(settings, self.sandboxes, self.session_files, self.analyses),
                DocumentCalls(self.documents),
                InternetCalls(settings, self.web_pages),
                ImageCalls(self.pictures, self.models.engine),
                ToolVectors(embedder),
            ),
            niceness=settings.WORKER_NICENESS,
            memory_bytes=None if settings.WORKER_MEMORY_GB is None else int(settings.WORKER_MEMORY_GB * 2**30),
            idle_seconds=settings.WORKER_IDLE,
            lasting=[MAIN],
            hidden=SECRETS,
            method=None if settings.WORKER_START == "auto" else settings.WORKER_START,
        )

        folders, data = CodeFolders(settings.DATA_DIR / "generations"), settings.DATA_DIR
        self.workspaces = Workspaces(
            Path(__file__).parent,
            settings.WORKSPACES_DIR or data / "workspaces",
            CodeRunner(
                self.workers, folders, self.generations, data / "kept", settings.RELOAD_TIMEOUT, self._on_live
            ),
        )
        self.permissions = Permissions(
            OwnershipStore(self.database),
            self.credentials,
            self.workspaces,
            self.runs.owned,
            self.session_folders.exist,
        )
        self.code_loader = CodeLoader(self.workspaces, self.models, self.generations, folders, self.runs)
        self.model_loader = ModelLoader(settings, self.models, self.workspaces.main, self.audit)
        self.autoload = Autoload(settings, self.models, self.model_loader, self.code_loader, self.workspaces.main)

        cluster = (
            RayCluster(settings.RAY_ADDRESS, self.workers, data / "kept" / ".ray", SECRETS)
            if settings.RAY_ADDRESS
            else None
        )
        self.jobs = Jobs(settings, self.job_store, self.workspaces, self.runs.queue, self.quotas, cluster)
        self.feeds = SessionFeeds()
        self.note_taker = NoteTaker(self.session_store, self.workspaces)
        trace_store = TraceStore(self.database)
        self.traces = Traces(self.runs, self.run_store, trace_store, self.models)
        self.questions = Questions(
            settings,
            self.runs,
            self.models,
            self.workspaces,
            self.code_loader,
            self.generations,
            self.sessions,
            self.run_store,
            self.note_taker,
            self.feeds,
            self.pictures,
            self.quotas,
        )
        self.comparisons = Comparisons(
            settings,
            ComparisonStore(self.database, str(settings.DATA_DIR)),
            self.questions,
            self.models,
            self.background,
            self.runs.queue,
        )
        self.forks = Forks(self.questions, self.runs, self.run_store, trace_store, self.models, self.workspaces)
        self.waker = Waker(settings, self.job_store, self.questions)
        self.jobs.on_change(self.feeds.on_job)
        self.jobs.on_change(lambda job, is_progress: self.waker.notice(job))
        self.load = Load(lambda: self.runs.written, self._load_sample)
        self.closing = threading.Event()

    def open(self) -> None:
        """Begin what nobody has to ask for: load model and tools, continue with the jobs and the wakes that an
        earlier server has left, and prepare sandboxes. Returns at once."""
        threading.Thread(target=self._begin, name="autoload", daemon=True).start()

    def _begin(self) -> None:
        self.load.open()
        if self.settings.AUTOLOAD:
            self.autoload.run()
        self.jobs.open()
        self.waker.open()
        self.sandboxes.open()
        self.documents.open()
        self.session_files.remove_leftovers()
        self.web_pages.remove_leftovers()
        self.pictures.open()

    def _on_live(self, workspace: str, generation: str, previous: str | None, is_earlier: bool) -> None:
        act = "code.rolled_back" if is_earlier else "code.reloaded"
        self.audit.record(actor.get(), act, workspace, generation=generation, previous=previous)

    def _ask_about_passage(self, messages: list[dict[str, str]], schema: Mapping[str, Any]) -> str:
        """A reply that says whether a passage fits a query; see `server.documents.rerank.Ask`."""
        return self.background.complete(
            messages, workspace=MAIN, max_tokens=8, schema=schema, words='Reply with "yes" or "no" in quotes.'
        )

    def _files_bytes(self, person: str) -> int:
        """The size of the files and variables of a person's sessions; without accounts, of a workspace's."""
        if not self.credentials.are_on:
            return self.session_files.bytes_of(self.session_folders.in_workspace(person))
        sessions = self.permissions.store.sessions_of(person)
        return self.session_files.bytes_of([self.session_folders.of(*one) for one in sessions])

    def _load_sample(self) -> dict[str, Any]:
        """What runs and waits at this moment."""
        return {
            **describe_all(self.models),
            "kv_bytes": self.models.kv_bytes,
            "runs": [run.as_load() for run in self.runs.in_flight()],
            "jobs": self.jobs.counts(),
            "changes": {"runs": self.runs.changes, "jobs": self.jobs.changes},
            "workers": [asdict(one) for one in self.workers.describe()],
            "sandbox": self.sandboxes.health(),
        }

    def close(self) -> None:
        """Refuse new runs, let runs in flight end within the grace period, cancel the rest, and save all of them."""
        self.closing.set()
        self.load.close()
        self.comparisons.close()
        self.background.close()
        self.models.close()
        self.note_taker.close()
        self.waker.close()
        self.runs.drain(self.settings.SHUTDOWN_GRACE)
        self.jobs.close()
        self.documents.close()
        self.pictures.close()
        self.sandboxes.close()
        self.workers.close()
        self.accounts.close()
        self.database.close()
