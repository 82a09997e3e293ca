"""What the tests share: servers, their code, and an engine."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.support.no_session import NoSession
from tests.support.postgres_process import NotInstalledError, Postgres
from tests.support.server_process import REPOSITORY, Server, copy_code, end, start

if TYPE_CHECKING:
    from server.engine import GuidedEngine
    from server.workers.pool import Workers

# How long something takes is a matter for benchmarks; a test machine may have other things to do.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine, as some of LangChain's are."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))
    return True


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`start_server(code=REPOSITORY, ready=True, MAX_RUNS=2, ...)`: a server with settings of its own.

    `code`: the folder whose app.py is run. `ready`: wait for model and tools, and not just for an answer.
    It ends with the test.
    """
    servers: list[Server] = []

    def begin(code: Path = REPOSITORY, ready: bool = True, **settings: object) -> Server:
        server = start(tmp_path / f"server-{len(servers)}", code, settings)
        servers.append(server)
        if ready:
            server.wait_until_ready()
        return server

    yield begin
    for server in servers:
        end(server)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over the repository's own code, model and tools loaded. Shared: leave it as you found it."""
    shared = start(tmp_path_factory.mktemp("shared") / "server", REPOSITORY, {})
    try:
        shared.wait_until_ready()
        yield shared
    finally:
        end(shared)


@pytest.fixture(scope="session")
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without model and tools. Shared: load nothing."""
    shared = start(tmp_path_factory.mktemp("empty") / "server", REPOSITORY, {"AUTOLOAD": 0})
    try:
        yield shared
    finally:
        end(shared)


@pytest.fixture(scope="session")
def workers() -> "Iterator[Workers]":
    """Workers below the tests' own process, for code that asks no model."""
    from server.errors import ModelNotLoadedError
    from server.workers.model_calls import ModelCalls
    from server.workers.pool import Workers

    def none(*_: object, **__: object) -> NoReturn:
        raise ModelNotLoadedError("There is no model in these tests.")

    made = Workers(ModelCalls(none, none), NoSession())
    yield made
    made.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own."""
    try:
        server = Postgres()
    except NotInstalledError as reason:
        pytest.skip(str(reason))
    yield server
    server.end()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """What HEARTH_DATABASE_URL says: nothing, or a new and empty database of PostgreSQL."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres").database()


@pytest.fixture
def code_copy(tmp_path: Path) -> Path:
    """A copy of the code to start a server from, for a test that edits it."""
    return copy_code(tmp_path)


@pytest.fixture(scope="session")
def make_engine() -> "Callable[..., GuidedEngine]":
    """Makes an engine of this process's own over the embedded model, in float32 on the CPU; takes `kv_bytes`."""
    from server.engine import GuidedEngine
    from server.model import load_model

    def make(kv_bytes: int | None = None) -> "GuidedEngine":
        loaded = load_model(
            "embedded",
            load_in_8bit=False,
            device_map="cpu",
            dtype="float32",
            int8_threshold=6.0,
            progress=lambda stage, done, total: None,
        )
        return GuidedEngine(loaded.model, loaded.tokenizer, kv_bytes)

    return make


@pytest.fixture(scope="session")
def engine(make_engine: "Callable[..., GuidedEngine]") -> "GuidedEngine":
    """One for all tests."""
    return make_engine()
