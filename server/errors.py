"""The tree of errors, each with an HTTP status and a code.

Every error that Hearth raises on purpose is a `HearthError`. Any other error is a bug in Hearth: the client gets an
id, and the log has that id with the traceback. Over 400 lines, a short class for each.
"""

import logging
from typing import Any, ClassVar

from server.bounds import shortened
from server.observability.logs import request_id

log = logging.getLogger(__name__)


class HearthError(Exception):
    """An error that is reported to the client.

    `message` says what was wrong and what to do. `details` are JSON values beside `type` and `message` in the
    response; the details `retry_after` (seconds) and `etag` also become headers.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, /, **details: Any) -> None:
        self.message = shortened(message)
        super().__init__(self.message)
        self.details = details

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of an error."""
        return {"error": {"type": self.code, "message": self.message, **self.details}}


class MalformedRequestError(HearthError):
    """The body can't be read as JSON."""

    status = 400
    code = "malformed_json"


class MalformedFormError(HearthError):
    """The body can't be read as multipart/form-data."""

    status = 400
    code = "malformed_form"


class UnauthorizedError(HearthError):
    """No token, or a wrong one."""

    status = 401
    code = "unauthorized"


class ForbiddenError(HearthError):
    """The client is known, and may not do this."""

    status = 403
    code = "forbidden"


class CrossSiteError(ForbiddenError):
    """A page of another site may have sent the request with the cookie of a browser."""

    code = "cross_site"


class InvitationRefusedError(ForbiddenError):
    """The invitation is wrong, was used, or has expired."""

    code = "invitation_refused"


class NotFoundError(HearthError):
    """There is nothing of that name."""

    status = 404
    code = "not_found"


class AccountNotFoundError(NotFoundError):
    """There is no account of that name."""

    code = "account_not_found"


class KeyNotFoundError(NotFoundError):
    """The person has no API key of that prefix."""

    code = "key_not_found"


class LoginNotFoundError(NotFoundError):
    """The person has no login of that id."""

    code = "login_not_found"


class WorkspaceNotFoundError(NotFoundError):
    """There is no workspace of that name."""

    code = "workspace_not_found"


class GenerationNotFoundError(NotFoundError):
    """There is no generation of that hash."""

    code = "generation_not_found"


class RunNotFoundError(NotFoundError):
    """There is no run of that id."""

    code = "run_not_found"


class StepNotFoundError(NotFoundError):
    """The run has no step, or no model call, of that number."""

    code = "step_not_found"


class JobNotFoundError(NotFoundError):
    """There is no job of that name."""

    code = "job_not_found"


class ResponseNotFoundError(NotFoundError):
    """There is no saved response, or item of one, of that id."""

    code = "response_not_found"


class ComparisonNotFoundError(NotFoundError):
    """There is no comparison of that id."""

    code = "comparison_not_found"


class ToolNotFoundError(NotFoundError):
    """The workspace has no tool of that name."""

    code = "tool_not_found"


class SessionNotFoundError(NotFoundError):
    """The workspace has no session of that name."""

    code = "session_not_found"


class FileNotInWorkspaceError(NotFoundError):
    """The workspace has no file of that path."""

    code = "file_not_found"


class FileNotInGenerationError(NotFoundError):
    """The generation has no file of that path."""

    code = "file_not_found"


class FileNotInSessionError(NotFoundError):
    """The session has no regular file of that name."""

    code = "session_file_not_found"


class CollectionNotFoundError(NotFoundError):
    """There is no collection of documents of that name."""

    code = "collection_not_found"


class DocumentNotFoundError(NotFoundError):
    """The collection has no document of that id, or the document no such page."""

    code = "document_not_found"


class ImageNotFoundError(NotFoundError):
    """A picture isn't stored any more."""

    code = "image_not_found"


class NotKeptError(NotFoundError):
    """The workspace has saved no value of that name."""

    code = "not_kept"


class ModelNotResidentError(NotFoundError):
    """No model of that name is loaded, and others are."""

    code = "model_not_resident"


class AgentNotFoundError(NotFoundError):
    """There is no agent of that name."""

    code = "agent_not_found"


class UnknownModelError(NotFoundError):
    """There is no resident model, and no agent, of that name."""

    code = "model_not_found"


class ConflictError(HearthError):
    """The request is valid, but the server's state does not allow it now."""

    status = 409
    code = "conflict"


class AccountExistsError(ConflictError):
    """The username is taken."""

    code = "account_exists"


class AccountsOffError(ConflictError):
    """The server has no accounts."""

    code = "accounts_off"


class ModelNotLoadedError(ConflictError):
    """There is no model yet, or none any more."""

    code = "model_not_loaded"


class ModelAsleepError(ConflictError):
    """The model sleeps."""

    code = "model_asleep"


class ModelCannotSleepError(ConflictError):
    """The model's weights can't be offloaded."""

    code = "model_cannot_sleep"


class ModelNameTakenError(ConflictError):
    """A model of that name is resident with other parameters."""

    code = "model_name_taken"


class ToolsNotLoadedError(ConflictError):
    """The workspace's tools aren't built yet."""

    code = "tools_not_loaded"


class GenerationInUseError(ConflictError):
    """The generation is live, or a run names it."""

    code = "generation_in_use"


class ModelChangedError(ConflictError):
    """The model of an earlier run isn't resident."""

    code = "model_changed"


class RunNotEndedError(ConflictError):
    """The run is in flight."""

    code = "run_not_ended"


class SessionBusyError(ConflictError):
    """A question of the session is being answered."""

    code = "session_busy"


class JobEndedError(ConflictError):
    """The job has ended already."""

    code = "job_ended"


class ComparisonStateError(ConflictError):
    """The comparison is running, or has ended, and the request needs the other."""

    code = "comparison_state"


class FileChangedError(HearthError):
    """A file is not the one that the request's `If-Match` or `If-None-Match` names. `etag`: of the file as it is now;
    null: there is none."""

    status = 412
    code = "file_changed"


class TooLargeError(HearthError):
    """The body, or what would be saved of it, exceeds a limit."""

    status = 413
    code = "too_large"


class WrongHostError(HearthError):
    """The request is for a name that is not the server's."""

    status = 421
    code = "wrong_host"


class UnsupportedMediaTypeError(HearthError):
    """The route takes another Content-Type."""

    status = 415
    code = "unsupported_media_type"


class McpRequestError(HearthError):
    """A message of an MCP client is not as the protocol has it. `jsonrpc_code`: its code there."""

    status = 400
    code = "invalid_mcp_request"


class InvalidRequestError(HearthError):
    """Valid JSON, but not a valid request. `details`: a list of the problems, in pydantic's shape."""

    status = 422
    code = "invalid_request"


class NoHistoryError(HearthError):
    """The agent does not support sessions."""

    status = 422
    code = "no_history"


class InvalidPathError(HearthError):
    """No file of a workspace may have that path."""

    status = 422
    code = "invalid_path"


class ReloadFailedError(HearthError):
    """New code could not be loaded; the old code continues to serve.

    `errors`: a list of `{"file", "line", "type", "message", "traceback"}`. `generation`: the hash of the
    generation that continues to serve, None if there is none.
    """

    status = 422
    code = "reload_failed"


class AgentFailedError(HearthError):
    """The agent's code raised an error. `exception`: its type; `file`, `line`: the innermost place in the
    workspace's code; `traceback`; `steps`: those that were done."""

    status = 502
    code = "agent_failed"


class WorkerCrashedError(HearthError):
    """The workspace's worker ended before there was an answer. `signal` or `exit_code`; `file`
    and `line`, where they are known; `output`: the last lines that it wrote; `steps`: those that were done."""

    status = 502
    code = "worker_crashed"


class WorkerUnavailableError(HearthError):
    """No worker can be started for the workspace now."""

    status = 503
    code = "worker_unavailable"


class PromptTooLongError(HearthError):
    """The prompt exceeds the context length. `tokens`: its length. `limit`: the maximum."""

    status = 422
    code = "prompt_too_long"


class GrammarTooComplexError(HearthError):
    """A grammar, or the JSON schema that it comes from, takes too long or too much memory to compile or to follow.
    `seconds`, `bytes`: the bound that it exceeds."""

    status = 422
    code = "grammar_too_complex"


class ModelError(HearthError):
    """The requested model can't be used."""

    status = 422
    code = "model_load_failed"


class ModelNotFoundError(ModelError):
    """No such folder, and no such id that could be fetched."""

    code = "model_not_found"


class NotACausalModelError(ModelError):
    """The model does not write text from left to right."""

    code = "not_a_causal_model"


class NoChatTemplateError(ModelError):
    """The model's tokenizer does not say how a conversation is written."""

    code = "no_chat_template"


class ModelLoadError(ModelError):
    """The model exists, but loading it failed."""


class ProviderNotInstalledError(ModelError):
    """The package that reaches the provider isn't installed."""

    code = "provider_not_installed"


class ProviderError(HearthError):
    """A remote model gave no answer. The message has its provider's message."""

    status = 502
    code = "provider_error"


class ProviderUnauthorizedError(ProviderError):
    """The provider's key is missing, wrong, or may not do this."""

    code = "provider_unauthorized"


class ProviderRateLimitedError(ProviderError):
    """The provider refuses requests for now. `retry_after`: seconds, if it sent them."""

    status = 503
    code = "provider_rate_limited"


class SchemaRefusedError(ProviderError):
    """The provider does not support the JSON schema."""

    code = "schema_refused"


class UnreadableReplyError(HearthError):
    """The model's replies were empty, or not in the requested form, in all tries."""

    status = 502
    code = "unreadable_reply"


class QueueFullError(HearthError):
    """The maximum number of requests is reached. `retry_after`: seconds."""

    status = 429
    code = "queue_full"


class QuotaReachedError(HearthError):
    """A person's quota is used up. `quota`: its name; `limit`; `used`; `free_at`: when it is free again, UTC, None:
    when something is deleted; `retry_after`: seconds until then."""

    status = 429
    code = "quota_reached"


class TooManyAttemptsError(HearthError):
    """Too many logins were tried. `retry_after`: seconds."""

    status = 429
    code = "too_many_attempts"


class RunCancelledError(HearthError):
    """The run was cancelled. `steps`: the finished ones."""

    status = 499
    code = "run_cancelled"


class RunTimedOutError(HearthError):
    """The run exceeded its time limit. `steps`: the finished ones."""

    status = 408
    code = "run_timed_out"


class TokenLimitError(HearthError):
    """The run exceeded its token limit. `limit`: tokens. `steps`: the finished ones."""

    status = 422
    code = "token_limit"


class OutOfMemoryError(HearthError):
    """A device, or the host, has too little memory for a model. `needed_bytes` and `free_bytes`, if known."""

    status = 503
    code = "out_of_memory"


class StoreError(HearthError):
    """The database can't be read or written."""

    status = 503
    code = "storage_failed"


class StoreRefusedError(StoreError):
    """A change contradicts what is saved, such as a run of a generation that was never saved."""


class StorageFullError(HearthError):
    """The disk, or the user's share of it, is full."""

    status = 507
    code = "storage_full"


class ShuttingDownError(HearthError):
    """The server is shutting down and accepts nothing new."""

    status = 503
    code = "shutting_down"


class OutOfTokensError(ValueError):
    """The `max_tokens` of a whole grammar were used up before it came to its end."""


class InternalError(HearthError):
    """A bug in Hearth. `id`: to look up in the log."""


def as_hearth_error(error: BaseException) -> HearthError:
    """`error` as a `HearthError` for the client. A bug in Hearth is logged, and the client gets its id."""
    if isinstance(error, HearthError):
        return error
    log.error("internal error", exc_info=error)
    reference = request_id.get()
    return InternalError(
        f"Something went wrong inside Hearth. The server's log says more at {reference}.", id=reference
    )


class SandboxUnavailableError(HearthError):
    """Code can't be run: there is no sandbox, or it could not be started."""

    status = 503
    code = "sandbox_unavailable"


class FileRefusedError(HearthError):
    """A file can't be analysed: it is damaged, hostile, or of no known kind."""

    status = 422
    code = "file_refused"


class DocumentsUnavailableError(HearthError):
    """Documents can't be added or searched: a package is missing, or the server has no way to the web."""

    status = 503
    code = "documents_unavailable"


class IngestFailedError(HearthError):
    """A document was read, but what would be saved of it does not agree with what was read. Nothing is saved."""

    code = "ingest_failed"


class FetchRefusedError(HearthError):
    """A URL may not be loaded: its address is not public, or its form is not allowed."""

    status = 422
    code = "fetch_refused"


class FetchFailedError(HearthError):
    """A URL can't be loaded: its server does not answer, replies an error, or sends too much or something else."""

    status = 502
    code = "fetch_failed"


class SearchFailedError(HearthError):
    """The search engine gave no results that can be read."""

    status = 502
    code = "search_failed"


class SearchLimitedError(SearchFailedError):
    """The search engine refuses requests for now. `retry_after`: seconds, if it sent them."""

    status = 503
    code = "search_limited"


class ImageRefusedError(HearthError):
    """A picture can't be decoded: it is damaged, hostile, too large, or in no known format."""

    status = 422
    code = "image_refused"
