"""The packages that documents need, and a bare server doesn't."""

import importlib.util

from server.errors import DocumentsUnavailableError

NEEDED = {"semchunk": "semchunk", "bm25s": "bm25s", "Stemmer": "PyStemmer", "faiss": "faiss-cpu"}
"""Modules, and what they are called where they come from."""


def require() -> None:
    """Raises `DocumentsUnavailableError` if one is missing."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise DocumentsUnavailableError(
            f"Documents need packages that are not installed here: {', '.join(missing)}. "
            "pip install -r requirements-documents.txt installs them; then restart the server."
        )
