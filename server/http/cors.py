"""CORS: which web pages may call the server."""

import re


def pattern(origin: str) -> re.Pattern[str]:
    """The pattern for an entry of `CORS_ORIGINS`: an origin, an origin with any port (`:*`), or all (`*`)."""
    if origin == "*":
        return re.compile(r".*\Z")
    if origin.endswith(":*"):
        return re.compile(re.escape(origin.removesuffix(":*")) + r"(:\d+)?\Z", re.IGNORECASE)
    return re.compile(re.escape(origin) + r"\Z", re.IGNORECASE)
