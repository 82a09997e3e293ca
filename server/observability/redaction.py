"""Secrets that must not be shown: whoever reads one names it here, and no log line and no provider's error has it."""

SHORTEST = 8
"""Shorter ones are no secrets but words, like the EMPTY that many give a server that needs no key."""
SHOWN = "(secret)"

_secrets: set[str] = set()


def hide(secret: str) -> None:
    """From now on `secret` is not shown."""
    if len(secret) >= SHORTEST:
        _secrets.add(secret)


def redacted(text: str) -> str:
    """`text` without the secrets that are known."""
    # The longest first: one may be the beginning of another.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, SHOWN)
    return text
