"""What a person may see and change. Whatever they may not see does not exist for them."""

from collections.abc import Callable, Mapping
from typing import Protocol

from server.errors import (
    ComparisonNotFoundError,
    ForbiddenError,
    GenerationNotFoundError,
    JobNotFoundError,
    ResponseNotFoundError,
    RunNotFoundError,
    SessionNotFoundError,
    WorkspaceNotFoundError,
)
from server.people.credentials import CredentialCheck
from server.people.principal import MAIN, Principal
from server.store.ownership import Owned, OwnershipStore, Reader, WorkspaceRole


class Spaces(Protocol):
    """The workspaces, as far as permissions need them."""

    def exists(self, name: str) -> bool:
        """Whether there is a workspace of that name."""

    def names(self) -> list[str]:
        """The names of all."""


class Permissions:
    """Decides for each object that a request names. Safe for any number of threads.

    Without accounts everything is everybody's. `writes` means that the caller wants to change the object; what an
    admin has opened can only be read.
    """

    def __init__(
        self,
        store: OwnershipStore,
        check: CredentialCheck,
        spaces: Spaces,
        run_in_memory: Callable[[str], Owned | None],
        has_files: Callable[[str, str], bool],
    ) -> None:
        """`run_in_memory`: a run in flight, or one that has just ended. `has_files`: whether a session of a workspace
        has a folder."""
        self.store = store
        self._check = check
        self._spaces = spaces
        self._run_in_memory = run_in_memory
        self._has_files = has_files

    def reader(self, principal: Principal) -> Reader | None:
        """Whose objects lists show; None: everybody's."""
        return None if principal.everything else Reader(principal.name, self._check.opened_by(principal))

    # Workspaces

    def role_in(self, principal: Principal, workspace: str) -> WorkspaceRole | None:
        """A person's role in a workspace; None: they don't see it."""
        if principal.everything:
            return "owner"
        if workspace == MAIN:
            return "reader" if principal.role == "guest" else "editor"
        members = self.store.workspace_members(workspace)
        if principal.name in members:
            return members[principal.name]
        owners = _owners(workspace, members)
        if not self._spaces.exists(workspace):
            return None
        if principal.name in owners:
            return "owner"
        return "reader" if self._check.opened_by(principal) & set(owners) else None

    def _is_nobodys(self, workspace: str) -> bool:
        """Whether a workspace is there, and none of its owners has an account."""
        owners = _owners(workspace, self.store.workspace_members(workspace))
        return self._spaces.exists(workspace) and not any(self._check.account(one) for one in owners)

    def workspaces(self, principal: Principal) -> list[str]:
        """The names of those that a person sees."""
        names = self._spaces.names()
        return names if principal.everything else [name for name in names if self.role_in(principal, name)]

    def check_workspace(
        self, principal: Principal, workspace: str, *, writes: bool = False, owns: bool = False, makes: bool = False
    ) -> None:
        """Whether a person may read a workspace, change its code and documents (`writes`), or decide on its members
        (`owns`), which is an admin's if no owner has an account. `makes`: they make it if it is new, and own it then.

        Raises `WorkspaceNotFoundError`, `ForbiddenError`.
        """
        role = self.role_in(principal, workspace)
        if role is None and makes and not self._spaces.exists(workspace):
            role = "owner" if self.store.claim_workspace(workspace, principal.name) else None
        if owns and principal.role == "admin" and self._is_nobodys(workspace):
            return
        if role is None:
            raise WorkspaceNotFoundError(
                f"There is no workspace {workspace!r} of yours. GET /workspaces lists those that you may use."
            )
        if owns and role != "owner":
            raise ForbiddenError(f"Only the owner of the workspace {workspace!r} decides on its members.")
        if writes and role == "reader":
            raise ForbiddenError(
                f"You may read the workspace {workspace!r}, and not change it. Its owner can make you an editor."
            )

    # Sessions

    def check_session(
        self,
        principal: Principal,
        workspace: str,
        session: str,
        *,
        writes: bool,
        owns: bool = False,
        makes: bool = False,
        check_request: Callable[[], None] = lambda: None,
    ) -> None:
        """Whether a person may use a session of a workspace. `owns`: as its owner. `makes`: they make it if it is
        new, and own it from then on; `check_request` is called before, and raises if it must not be made.

        Raises `WorkspaceNotFoundError`, `SessionNotFoundError`, `ForbiddenError`, and what `check_request` raises.
        """
        if principal.everything:
            return
        self.check_workspace(principal, workspace)
        owner = self.store.session_owner(workspace, session)
        if owner is None and self._has_files(workspace, session):
            owner = workspace
        if owner is None and makes:
            check_request()
            owner = self.store.claim_session(workspace, session, principal.name)
        if owner == principal.name:
            return
        is_member = owner is not None and self.store.is_session_member(workspace, session, principal.name)
        if is_member and owns:
            raise ForbiddenError(f"Only the owner of the session {session!r} may do that.")
        if is_member or (not writes and not owns and owner in self._check.opened_by(principal)):
            return
        raise SessionNotFoundError(
            f"There is no session {session!r} of yours in the workspace {workspace!r}. GET /sessions lists yours; "
            "for a new one choose another name."
        )

    # Runs, jobs, generations

    def check_run(self, principal: Principal, run: str, *, writes: bool, repeats: bool = False) -> None:
        """Whether a person may read a run; with `writes`, cancel it; with `repeats`, run its workspace's code again.
        Raises `RunNotFoundError`, `WorkspaceNotFoundError`."""
        if principal.everything:
            return
        found = self.store.run(run) or self._run_in_memory(run)
        if found is None or not self._may(principal, found, writes):
            raise RunNotFoundError(f"There is no run {run!r} of yours. GET /runs lists those that there are.")
        if repeats:
            self.check_workspace(principal, found.workspace)

    def check_job(self, principal: Principal, job: str, *, writes: bool, repeats: bool = False) -> None:
        """The same for a job. Raises `JobNotFoundError`, `WorkspaceNotFoundError`."""
        if principal.everything:
            return
        found = self.store.job(job)
        if found is None or not self._may(principal, found, writes):
            raise JobNotFoundError(f"There is no job {job!r} of yours. GET /jobs lists those that there are.")
        if repeats:
            self.check_workspace(principal, found.workspace)

    def check_comparison(self, principal: Principal, comparison: str, *, writes: bool) -> None:
        """Whether a person may read a comparison; with `writes`, stop or delete it. Raises
        `ComparisonNotFoundError`."""
        if principal.everything:
            return
        found = self.store.comparison(comparison)
        if found is None or not self._may(principal, found, writes):
            raise ComparisonNotFoundError(
                f"There is no comparison {comparison!r} of yours. GET /comparisons lists those that there are."
            )

    def check_response(self, principal: Principal, response: str, *, writes: bool) -> None:
        """Whether a person may read a response of OpenAI's API; with `writes`, delete it. Raises
        `ResponseNotFoundError`."""
        if principal.everything:
            return
        found = self.store.response(response)
        if found is None or not self._may(principal, found, writes):
            raise ResponseNotFoundError(f"There is no response {response!r} of yours.")

    def _may(self, principal: Principal, found: Owned, writes: bool) -> bool:
        if found.owner == principal.name:
            return True
        if writes:
            return False
        if found.owner in self._check.opened_by(principal):
            return True
        # As with the session itself, who has lost its workspace has lost it.
        return (
            found.session is not None
            and self.store.is_session_member(found.workspace, found.session, principal.name)
            and self.role_in(principal, found.workspace) is not None
        )

    def check_generation(self, principal: Principal, generation: str, *, writes: bool = False) -> None:
        """Whether a person may read and run a generation: it was live in a workspace that they see. With `writes`,
        delete it: they may change all workspaces where it was. Raises `GenerationNotFoundError`, `ForbiddenError`."""
        if principal.everything:
            return
        places = self.store.generation_workspaces(generation)
        if not any(self.role_in(principal, place) for live in places.values() for place in live):
            raise GenerationNotFoundError(
                f"There is no generation {generation!r} of yours. GET /generations lists those that there are."
            )
        if writes:
            roles = {self.role_in(principal, place) for live in places.values() for place in live}
            if roles - {"owner", "editor"}:
                raise ForbiddenError(f"Others use the generation {generation!r} too. It can't be deleted.")


def _owners(workspace: str, members: Mapping[str, WorkspaceRole]) -> list[str]:
    """The owners of a workspace. One of the time before accounts is the account's of its name."""
    return [name for name, role in members.items() if role == "owner"] or [workspace]
