"""A real PostgreSQL server of the tests' own, on a Unix socket in a folder that goes with it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

USER = "hearth"
START_SECONDS = 60.0


class NotInstalledError(Exception):
    """There is no PostgreSQL here, or nobody to run it as."""


class Postgres:
    """A server, and databases in it."""

    def __init__(self) -> None:
        """Start it. Raises `NotInstalledError`."""
        initdb, server = _program("initdb"), _program("postgres")
        # It refuses to run as root.
        self._user = _ordinary_user() if os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="hearth-postgres-"))
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        data = self.folder / "data"
        self._run(initdb, "-D", data, "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8", "--no-locale")
        options = {"listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off"}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._command = [server, "-D", str(data), *flags]
        self._databases = 0
        self._start()

    def _start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log, **self._as_user())
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)

    def database(self) -> str:
        """The URL of a new and empty one."""
        self._databases += 1
        self.execute(f"CREATE DATABASE hearth{self._databases}")
        return f"postgresql://{USER}:s3cret%40word@/hearth{self._databases}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Do that as a superuser, outside of any transaction."""
        with psycopg.connect(host=str(self.folder), user=USER, dbname=database, autocommit=True) as connection:
            connection.execute(statement)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Within it there is no server, whoever was connected."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def end(self) -> None:
        """End it, whoever is connected."""
        self._stop()
        shutil.rmtree(self.folder)

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def _run(self, *command: object) -> None:
        subprocess.run(list(map(str, command)), check=True, capture_output=True, **self._as_user())

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": [], "cwd": self.folder}


def _program(name: str) -> str:
    folders = [os.environ["PATH"], *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise NotInstalledError(f"PostgreSQL is not installed: there is no {name}")
    return found


def _ordinary_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NotInstalledError("PostgreSQL does not run as root, and there is no other user to run it as")
