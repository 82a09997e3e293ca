"""Hiding secrets: code that reads a secret registers it here, and no log line and no provider's error contains it."""

SHORTEST = 8
"""Shorter ones are words and not secrets, such as EMPTY for a server that needs no key."""
SHOWN = "(secret)"

_secrets: set[str] = set()


def hide(secret: str) -> None:
    """Hide `secret` from now on."""
    if len(secret) >= SHORTEST:
        _secrets.add(secret)


def redacted(text: str) -> str:
    """`text` without registered secrets."""
    # The longest first: one may be a prefix of another.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, SHOWN)
    return text
