"""What each route declares: the scope that a caller needs, and whose object the route is about."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from server.people.principal import Scope

__all__ = ["Access", "Owner", "Scope", "access"]

Owner = Literal[
    "nobody",
    "caller",
    "run",
    "session",
    "workspace",
    "generation",
    "job",
    "collection",
    "comparison",
    "response",
    "account",
    "key",
]
"""`nobody`: the route is about the server. `caller`: it lists or makes the caller's own. Otherwise the object that
the path, the query or the body names: its owner is checked."""

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Access:
    """The declaration of a route."""

    scope: Scope
    owner: Owner
    owner_only: bool = False
    """Whether members of a session or a workspace are not enough."""
    query: type[BaseModel] | None = None
    """The models of its path, its query and its body. Those of the last two say where objects are named."""
    body: type[BaseModel] | None = None
    path: type[BaseModel] | None = None
    takes_form: bool = False
    """Whether the body may be a form, which the view reads. It asks `Permissions` about what the form names."""


def access(
    scope: Scope,
    owner: Owner,
    *,
    owner_only: bool = False,
    body: type[BaseModel] | None = None,
    takes_form: bool = False,
) -> Callable[[View], View]:
    """Declare a view's access. It stands between the view and the decorator of its route.

    `owner_only`: members of a session or a workspace are not enough. `body`: the model of a JSON body that the view
    reads itself. `takes_form`: the view reads forms too, and checks what they name.
    """

    def declare(view: View) -> View:
        takes = inspect.signature(view).parameters
        models = {name: takes[name].annotation if name in takes else None for name in ("path", "query", "body")}
        declared = Access(
            scope, owner, owner_only, models["query"], models["body"] or body, models["path"], takes_form
        )
        view.access = declared  # type: ignore[attr-defined]
        return view

    return declare
