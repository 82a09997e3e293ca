"""The requests and responses of the routes for people: accounts, credentials and members."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from server.http.schemas import Name, SessionId, SessionPath, StrictRequest, WorkspaceName
from server.people.principal import Credential, Role, Scope

Username = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Password = Annotated[str, StringConstraints(min_length=8, max_length=1024)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
WorkspaceRole = Literal["owner", "editor", "reader"]


class NewInvitation(StrictRequest):
    role: Role = "researcher"


class Invitation(BaseModel):
    invitation: str = Field(description="for one account; shown this once")
    role: Role
    expires_at: str = Field(description="ISO 8601, UTC")


class NewAccount(StrictRequest):
    username: Username = Field(description="2 to 32 lower-case letters, digits and -")
    password: Password = Field(description="at least 8 characters")
    invitation: Secret | None = Field(None, description="not needed by the first account, with the start token")


class AccountMade(BaseModel):
    username: str
    role: Role


class NamedLogin(StrictRequest):
    username: Username
    password: Annotated[str, StringConstraints(max_length=1024)]
    cookie: bool = Field(
        False, description="whether the answer sets a cookie, for a browser, instead of giving tokens"
    )


class TokenLogin(StrictRequest):
    token: Secret = Field(description="the start token, which the server prints")


class Refresh(StrictRequest):
    refresh_token: Secret


class TokensGiven(BaseModel):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="seconds")
    refresh_token: str = Field(description="for one use; the next one comes with new tokens")


class LoggedInAnswer(BaseModel):
    """The tokens; with `cookie`, only who has logged in."""

    username: str | None = Field(None, description="only with a cookie; null: who has the start token")
    access_token: str | None = None
    token_type: Literal["bearer"] | None = None
    expires_in: int | None = Field(None, description="seconds")
    refresh_token: str | None = Field(None, description="for one use; the next one comes with new tokens")


class LoggedOut(BaseModel):
    logged_out: bool = Field(description="false: the start token itself does not end")


class Me(BaseModel):
    username: str | None = Field(description="null: who has the start token")
    role: Role
    scopes: list[Scope]
    credential: Credential
    accounts: bool = Field(description="whether the server has accounts")


class Ticket(BaseModel):
    ticket: str = Field(description="for one link: /?token=<ticket>")
    expires_in: int = Field(description="seconds")


class NewPassword(StrictRequest):
    old: Annotated[str, StringConstraints(max_length=1024)]
    new: Password


class NewKey(StrictRequest):
    name: Name = Field(description="what it is for")
    scopes: list[Literal["read", "ask", "code", "models", "admin"]] | None = Field(
        None, min_length=1, max_length=5, description="default: all that your role has"
    )
    expires_in_days: float | None = Field(None, gt=0, le=3650, allow_inf_nan=False, description="default: never")


class KeyShown(BaseModel):
    prefix: str
    name: str
    scopes: list[Scope]
    created_at: str
    expires_at: str | None
    used_at: str | None = Field(description="to the minute")


class KeyMade(KeyShown):
    key: str = Field(description="shown this once")


class KeysListed(BaseModel):
    keys: list[KeyShown]


class KeyPath(StrictRequest):
    prefix: Name


class LoginShown(BaseModel):
    login_id: str
    created_at: str
    expires_at: str
    current: bool = Field(description="whether this request comes from it")


class LoginsListed(BaseModel):
    logins: list[LoginShown]


class LoginPath(StrictRequest):
    login_id: Name


class PersonPath(StrictRequest):
    username: Username


class PersonShown(BaseModel):
    username: str
    role: Role
    created_at: str
    login_at: str | None = Field(description="the last login")
    deleted_at: str | None = Field(description="null: the account is in use")


class PeopleListed(BaseModel):
    people: list[PersonShown]


class NewRole(StrictRequest):
    role: Role


class ObjectsQuery(StrictRequest):
    # Query parameters are text.
    limit: int = Field(100, ge=1, le=1000, strict=False, description="of each kind")


class OwnedObject(BaseModel):
    kind: Literal["session", "run", "job", "collection", "comparison"]
    id: str
    workspace: str
    used_at: str | None


class ObjectsListed(BaseModel):
    """What there is, without any content."""

    username: str
    objects: list[OwnedObject]


class Reason(StrictRequest):
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)] = Field(
        description="saved in the audit log"
    )


class Opened(BaseModel):
    username: str
    until: str = Field(description="when it ends; ISO 8601, UTC")


class AdoptedWorkspace(StrictRequest):
    old_workspace: Name = Field(description="a workspace of the time before accounts")


class Adopted(BaseModel):
    username: str
    objects: int


class MemberPath(WorkspaceName):
    username: Username


class WorkspaceMember(StrictRequest):
    role: WorkspaceRole = "reader"


class MemberShown(BaseModel):
    username: str
    role: WorkspaceRole


class MembersListed(BaseModel):
    workspace: str
    members: list[MemberShown]


class SessionMemberPath(SessionPath):
    username: Username


class SessionMembersListed(BaseModel):
    session_id: SessionId
    workspace: str
    owner: str | None
    members: list[str]
