"""PERSISTENT. Models behind an API, as LangChain reaches them, with what the rest of Hearth asks of a model.

Rule: a provider's package is imported when a model of it is loaded, and nothing here imports torch or guidance. No
text that leaves this folder, an error's or a log's, has a key in it.
"""

from server.providers.catalog import PROVIDERS, Provider, is_remote
from server.providers.remote_model import RemoteModel

__all__ = ["PROVIDERS", "Provider", "RemoteModel", "is_remote"]
