"""Where the files of sessions are."""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

STAGED = "staged-"
"""How the names of folders begin that belong to no session."""


WORKSPACE = "workspace"
"""The file beside a session's folders that says whose they are. No sandbox sees it."""


@dataclass(frozen=True)
class SessionFolder:
    """The folders of one session, which code in its sandbox can change: never follow a link in them."""

    files: Path
    """What a person has uploaded and what code has written. The working directory of the session's code."""
    state: Path
    """What the sandbox saves to continue with: variables, and the code of the cells."""


class SessionFolders:
    """The folders of all sessions, below one folder that only the server's user can read. No sandbox sees `incoming`
    and `removed`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        """The folder of all sessions' folders."""
        # No session's folder has such a name.
        self.incoming = root / "incoming"
        """Uploads that are not complete yet. Each server removes its own files."""
        self.removed = root / "removed"
        """Folders of deleted sessions, until their content is removed."""

    def of(self, workspace: str, session: str) -> SessionFolder:
        """The folders of a session; they may not exist yet."""
        # A workspace may have any name, and two names of sessions may differ in the case of their letters alone.
        name = hashlib.sha256(f"{workspace}\0{session}".encode()).hexdigest()[:32]
        return SessionFolder(self.root / name / "files", self.root / name / "state")

    def make(self, workspace: str, session: str) -> SessionFolder:
        """The same, and they exist."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self.of(workspace, session)
        folder.files.parent.mkdir(mode=0o700, exist_ok=True)
        folder.files.mkdir(mode=0o700, exist_ok=True)
        folder.state.mkdir(mode=0o700, exist_ok=True)
        named = folder.files.parent / WORKSPACE
        if not named.exists():
            named.write_text(workspace, encoding="utf-8")
        return folder

    def in_workspace(self, workspace: str) -> list[SessionFolder]:
        """The folders of a workspace's sessions."""
        found = []
        for file in self.root.glob(f"*/{WORKSPACE}"):
            try:
                found_in = file.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue  # deleted since it was listed
            if found_in == workspace:
                found.append(SessionFolder(file.parent / "files", file.parent / "state"))
        return found

    def exist(self, workspace: str, session: str) -> bool:
        """Whether a session has folders."""
        return self.of(workspace, session).files.parent.is_dir()

    def stage(self) -> SessionFolder:
        """New folders for a document that is being read; of no session."""
        folder = self.root / f"{STAGED}{secrets.token_hex(16)}"
        made = SessionFolder(folder / "files", folder / "state")
        for one in (folder, made.files, made.state):
            one.mkdir(mode=0o700, parents=True)
        return made

    def make_own(self) -> None:
        """Make the folders that no session has. Raises `OSError`."""
        for folder in (self.root, self.incoming, self.removed):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
