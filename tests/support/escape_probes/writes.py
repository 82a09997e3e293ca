"""Writing where others would execute or read it. Outside, what is made is removed at once, and no content changes."""

import ctypes
import errno
import os
import shutil
import site
import sys
import sysconfig

from .namespaces import MS_BIND, mount, private_mounts
from .probe import Given, expect, probe

NAME = f"hearth-probe-{os.getpid()}"


def _make_in(folder: str, name: str = NAME) -> None:
    path = os.path.join(folder, name)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink(path)


def _packages() -> str:
    return sysconfig.get_path("purelib")


@probe(
    "root",
    cases={
        folder: (folder,) for folder in ("/usr/bin", "/usr/lib", "/usr/local/bin", "/etc", "/etc/fonts", "/", "/dev")
    },
)
def makes_a_file_of_the_system(given: Given, folder: str) -> None:
    _make_in(folder)


@probe("owner")
def makes_a_pth_file(given: Given) -> None:
    """Each line of it is executed at the start of every Python of the environment."""
    _make_in(_packages(), NAME + ".pth")


@probe("owner")
def makes_a_package(given: Given) -> None:
    folder = os.path.join(_packages(), NAME)
    os.mkdir(folder)
    os.rmdir(folder)


@probe("owner")
def makes_a_link_among_the_packages(given: Given) -> None:
    path = os.path.join(_packages(), NAME)
    os.symlink("/session", path)
    os.unlink(path)


@probe("owner")
def makes_a_file_in_the_standard_library(given: Given) -> None:
    _make_in(os.path.dirname(os.__file__))


@probe("owner")
def makes_a_file_of_the_environment(given: Given) -> None:
    _make_in(os.path.join(sys.prefix, "bin"))


@probe("root")
def opens_a_module_to_write(given: Given) -> None:
    os.close(os.open(os.__file__, os.O_WRONLY | os.O_APPEND))


@probe("owner")
def opens_the_settings_of_the_environment(given: Given) -> None:
    os.close(os.open(os.path.join(sys.prefix, "pyvenv.cfg"), os.O_WRONLY | os.O_APPEND))


@probe("owner")
def makes_a_file_in_the_zygotes_code(given: Given) -> None:
    inside = "/hearth/server/sandbox/inside"
    _make_in(inside if os.path.isdir(inside) else given.code)


@probe("owner")
def opens_the_zygotes_code_to_write(given: Given) -> None:
    inside = "/hearth/server/sandbox/inside"
    folder = inside if os.path.isdir(inside) else given.code
    os.close(os.open(os.path.join(folder, "zygote.py"), os.O_WRONLY | os.O_APPEND))


@probe()
def makes_a_file_among_the_sessions(given: Given) -> None:
    _make_in("/sessions" if os.path.isdir("/sessions") else given.sessions)


@probe()
def makes_a_file_in_another_session(given: Given) -> None:
    folder = "/sessions" if os.path.isdir("/sessions") else given.sessions
    _make_in(os.path.join(folder, given.neighbour, "files"))


@probe()
def makes_a_file_in_the_data_folder(given: Given) -> None:
    _make_in(os.path.dirname(given.data_file))


@probe()
def makes_a_file_in_the_home_folder(given: Given) -> None:
    _make_in(os.path.dirname(given.home_file))


@probe("owner")
def makes_a_file_in_the_repository(given: Given) -> None:
    _make_in(os.path.dirname(given.repository_file))


@probe("root", may_lack=(errno.ETXTBSY,))
def opens_a_program_to_write(given: Given) -> None:
    os.close(os.open(os.path.realpath("/usr/bin/env"), os.O_WRONLY | os.O_APPEND))


@probe("owner")
def renames_a_folder_of_packages(given: Given) -> None:
    made = os.path.join(_packages(), NAME + "-new")
    os.mkdir(made)
    os.rename(made, made + "-moved")
    os.rmdir(made + "-moved")


@probe()
def makes_startup_code_for_the_user(given: Given) -> None:
    """The home folder's own site-packages, or the nearest folder above it that is there."""
    folder = site.USER_SITE or ""
    home = os.path.dirname(given.home_file)
    _make_in(folder if folder.startswith(home) and os.path.isdir(folder) else home)


@probe("root")
def covers_a_program(given: Given) -> None:
    """In the control, in mounts of its own."""
    private_mounts()
    with open("fake", "w") as file:
        file.write("#!/bin/sh\n")
    mount(os.path.abspath("fake"), os.path.realpath("/usr/bin/env"), flags=MS_BIND)


@probe("root")
def has_a_writable_system(given: Given) -> None:
    writable = [path for path in ("/usr", "/bin", "/lib", sys.prefix) if not os.statvfs(path).f_flag & os.ST_RDONLY]
    expect(writable, "all are read-only")


@probe()
def writes_to_memory_that_others_have(given: Given) -> None:
    """A mapping that is shared and writable would be the zygote's and every sandbox's. Outside, one is made first."""
    if not os.path.isdir("/session") and shutil.which("env"):
        with open("shared", "wb+") as file:
            file.write(bytes(4096))
            file.flush()
            made = ctypes.CDLL(None).mmap
            made.restype = ctypes.c_void_p
            made(None, ctypes.c_size_t(4096), 3, 1, file.fileno(), ctypes.c_long(0))
    with open("/proc/self/maps") as file_of_maps:
        expect([line for line in file_of_maps if line.split()[1][1:4:2] == "ws"], "there is none")
