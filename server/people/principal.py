"""Who a request comes from, whatever the credential."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["admin", "researcher", "guest"]
Scope = Literal["public", "read", "ask", "code", "models", "admin"]
"""`public`: no credential. `read`: see one's own. `ask`: ask questions, and keep sessions, files and documents.
`code`: change and run code. `models`: load and unload models. `admin`: people, quotas and the audit log."""
Credential = Literal["start token", "login", "key", "local"]
"""`local`: the server asks for no token, and answers this machine only."""

SCOPES: dict[Role, frozenset[Scope]] = {
    "admin": frozenset({"read", "ask", "code", "models", "admin"}),
    "researcher": frozenset({"read", "ask", "code", "models"}),
    "guest": frozenset({"read", "ask"}),
}
MAIN = "main"
"""The name of who has the start token: what was made in the workspace main before there were accounts is theirs. No
account has it."""
NOBODY = "nobody"
"""What the audit log calls who has no credential."""


@dataclass(frozen=True)
class Principal:
    """A person, as the credential of a request names them."""

    name: str
    role: Role
    scopes: frozenset[Scope]
    credential: Credential
    id: str = ""
    """Of the login, or the prefix of the key."""
    everything: bool = False
    """Whether all objects are theirs: there are no accounts."""

    def owner_in(self, workspace: str) -> str:
        """The owner of what they make in a workspace. Without accounts, a person is a workspace."""
        return workspace if self.everything else self.name

    @property
    def key(self) -> str:
        """The prefix of the API key; empty: another credential."""
        return self.id if self.credential == "key" else ""

    @property
    def actor(self) -> str:
        """What the audit log calls them."""
        return "start token" if self.name == MAIN else self.name


def token_holder(credential: Credential, everything: bool, login: str = "") -> Principal:
    """Who has the start token: the admin, and without accounts everybody."""
    return Principal(MAIN, "admin", SCOPES["admin"], credential, login, everything)
