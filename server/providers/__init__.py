"""Remote models: models behind an API, reached with LangChain.

Rule: a provider's package is imported when one of its models is loaded, and nothing here imports torch or guidance.
No error and no log line from this folder contains a key.
"""

from server.providers.catalog import PROVIDERS, Provider, is_remote
from server.providers.remote_model import RemoteModel

__all__ = ["PROVIDERS", "Provider", "RemoteModel", "is_remote"]
