"""Files outside, by their paths."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

from .probe import Given, MissedError, expect, probe, read_some

SECRETS = {name: (name,) for name in ("tmp_file", "data_file", "home_file", "neighbour_file")}
OWN = {name: (name,) for name in ("database", "runtime_file", "output_file", "repository_file")}


@probe(cases=SECRETS)
def reads_a_secret(given: Given, name: str) -> None:
    expect(given.secret in read_some(getattr(given, name)).decode(), "it has another content")


@probe(cases=SECRETS | OWN)
def sees_that_a_file_exists(given: Given, name: str) -> None:
    os.stat(getattr(given, name))


@probe(cases=OWN)
def reads_a_file_of_the_server(given: Given, name: str) -> None:
    read_some(getattr(given, name))


@probe(cases=SECRETS | OWN)
def lists_its_folder(given: Given, name: str) -> None:
    path = getattr(given, name)
    expect(os.path.basename(path) in os.listdir(os.path.dirname(path)), "it is not in the folder")


@probe(cases=SECRETS)
def opens_a_secret_to_write(given: Given, name: str) -> None:
    os.close(os.open(getattr(given, name), os.O_WRONLY))


@probe(
    cases={path: (path,) for path in ("/etc/passwd", "/etc/group", "/etc/hostname", "/etc/os-release", "/etc/hosts")},
    may_lack=(2,),
)
def reads_the_configuration(given: Given, path: str) -> None:
    read_some(path)


@probe("root", cases={"/etc/shadow": ("/etc/shadow",), "/etc/gshadow": ("/etc/gshadow",)}, may_lack=(2,))
def reads_a_password_file(given: Given, path: str) -> None:
    read_some(path)


@probe(
    cases={path: (path,) for path in ("/sys", "/mnt", "/srv", "/run", "/boot")},
    may_lack=(2,),
)
def lists_a_folder_of_the_system(given: Given, path: str) -> None:
    os.listdir(path)


@probe()
def reads_the_database(given: Given) -> None:
    try:
        with closing(sqlite3.connect(f"file:{given.database}?mode=ro", uri=True)) as connection:
            expect(connection.execute("select count(*) from sqlite_master").fetchone()[0], "it is empty")
    except sqlite3.Error as error:
        raise MissedError(str(error)) from error


@probe()
def reads_it_in_another_program(given: Given) -> None:
    done = subprocess.run(["cat", given.tmp_file], capture_output=True, text=True, check=False)
    expect(given.secret in done.stdout, done.stderr)


@probe()
def reads_it_in_another_python(given: Given) -> None:
    code = "import sys; print(open(sys.argv[1]).read())"
    done = subprocess.run([sys.executable, "-c", code, given.tmp_file], capture_output=True, text=True, check=False)
    expect(given.secret in done.stdout, done.stderr[-100:])


@probe()
def finds_it_by_walking(given: Given) -> None:
    name = os.path.basename(given.tmp_file)
    for root in ("/tmp", "/session", "/sessions", "/state", "/dev"):
        for _, _, names in os.walk(root):
            if name in names:
                return
    expect(False, "it is nowhere")


@probe()
def lists_the_other_sessions(given: Given) -> None:
    for folder in ("/sessions", given.sessions):
        if os.path.isdir(folder) and given.neighbour in os.listdir(folder):
            return
    expect(False, "the other session's folder is not there")


@probe()
def has_the_servers_environment(given: Given) -> None:
    expect(given.secret in os.environ.values(), "the variable is not there")
