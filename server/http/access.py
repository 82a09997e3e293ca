"""What each route declares: the scope that a caller needs, and whose object the route is about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Scope = Literal["public", "read", "ask", "code", "models", "admin"]
"""`public`: no credential. `read`: see one's own. `ask`: ask questions, and keep sessions, files and documents.
`code`: change and run code. `models`: load and unload models. `admin`: people, quotas and the audit log."""
Owner = Literal[
    "nobody", "caller", "run", "session", "workspace", "generation", "job", "collection", "account", "key"
]
"""`nobody`: the route is about the server. `caller`: it lists or makes the caller's own. Otherwise the object that the
path, the query or the body names: its owner is checked."""

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Access:
    """The declaration of a route."""

    scope: Scope
    owner: Owner


def access(scope: Scope, owner: Owner) -> Callable[[View], View]:
    """Declare a view's access. It stands between the view and the decorator of its route."""

    def declare(view: View) -> View:
        view.access = Access(scope, owner)  # type: ignore[attr-defined]
        return view

    return declare
