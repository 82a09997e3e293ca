"""The credential in the headers of a request: in `Authorization`, https://www.rfc-editor.org/rfc/rfc6750, or in the
header that Anthropic's clients send."""

from werkzeug.wrappers import Request

SCHEMES = ("bearer", "token")
KEY_HEADER = "x-api-key"
KEY_PATHS = ("/v1/messages", "/v1/messages/count_tokens")
"""The only paths where `KEY_HEADER` is a credential."""


def bearer_of(asked: Request) -> str | None:
    """The start token, access token or API key of a request; empty if it has none in its header; None: there is no
    such header. `Authorization` counts first."""
    if "Authorization" in asked.headers:
        scheme, _, credentials = asked.headers["Authorization"].partition(" ")
        return credentials.strip() if scheme.lower() in SCHEMES else ""
    return asked.headers[KEY_HEADER].strip() if _has_key(asked) else None


def has_bearer(asked: Request) -> bool:
    """Whether a request has a credential in a header. A page of somebody else's can't send one. It can send
    `?token=`, with the cookie beside it."""
    return asked.headers.get("Authorization", "").partition(" ")[0].lower() in SCHEMES or _has_key(asked)


def _has_key(asked: Request) -> bool:
    return asked.path in KEY_PATHS and KEY_HEADER in asked.headers
