"""What the server says to a zygote at its start."""

import base64
import enum
import json
from dataclasses import asdict, dataclass


class Mode(enum.Enum):
    """How a sandbox is separated from the machine."""

    NAMESPACES = "bubblewrap"
    """The zygote is in bubblewrap, and each sandbox has namespaces of its own in it."""
    LANDLOCK = "landlock"
    """The kernel checks each access to a file; system calls for networks are refused."""
    UNSAFE = "unsafe"
    """Not at all."""


@dataclass(frozen=True)
class Settings:
    """The settings of a zygote and of all its sandboxes."""

    mode: Mode
    control: int
    """The descriptor of the control socket."""
    preload: list[str]
    """Modules that are imported before the first sandbox."""
    sessions: str
    """The folder of all sessions' folders, as the zygote sees it."""
    filter: bytes
    """The filter of system calls, in the kernel's binary form."""
    readable: list[str]
    """Without namespaces: what a sandbox may read."""
    scratch_bytes: int
    """Size of /tmp, and again of /dev/shm. Both are memory."""
    file_bytes: int
    """Maximum size of a file that code writes."""
    open_files: int
    processes: int
    """Maximum number of processes and threads."""
    process_memory_bytes: int
    """What each process may allocate in addition to its memory at the start; 0: a cgroup limits all of them."""
    figure_dpi: int

    def working_folder(self, session: str) -> str:
        """The session's files, as its code sees them."""
        return "/session" if self.mode is Mode.NAMESPACES else f"{self.sessions}/{session}/files"

    def state_folder(self, session: str) -> str:
        """What is saved of a session's variables, as its code sees it."""
        return "/state" if self.mode is Mode.NAMESPACES else f"{self.sessions}/{session}/state"

    def written(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self) | {"mode": self.mode.value, "filter": base64.b64encode(self.filter).decode()})

    @staticmethod
    def read(text: str) -> "Settings":
        """The settings in `text`, which `written` has made."""
        given = json.loads(text)
        return Settings(**given | {"mode": Mode(given["mode"]), "filter": base64.b64decode(given["filter"])})
