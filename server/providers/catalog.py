"""The providers, and how each one's models are named, reached and limited."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dotenv import dotenv_values

from server.errors import ModelNotFoundError, ProviderUnauthorizedError
from server.observability.logs import hide

NO_KEY = "no-key-needed"
"""Sent if there is no key, because the packages require one."""


@dataclass(frozen=True)
class Provider:
    """A provider of models.

    `requirement`: its package with the version, for pip. `keys`: the environment variables for the key; the first one
    that is set wins. `langchain`: its name in `init_chat_model`. `limit`: its chat model's parameter for the maximum
    number of tokens. `base_url`: its address, if its package has none. `is_local`: it usually runs on this machine
    and needs no key. `options`: other arguments of the chat model. `traced_as`: OpenTelemetry's name of it.
    """

    requirement: str
    keys: tuple[str, ...]
    langchain: str
    limit: str = "max_tokens"
    base_url: str | None = None
    is_local: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    traced_as: str = ""

    @property
    def module(self) -> str:
        """The name under which its package is imported."""
        return self.requirement.partition("==")[0].replace("-", "_")

    def key(self) -> str | None:
        """Its key, from the environment or a file `.env` in the current folder; None if none is set."""
        in_file = dotenv_values(".env")
        for name in self.keys:
            # Without the line break that a mounted secret may end with.
            key = (os.environ.get(name) or in_file.get(name) or "").strip()
            if key:
                hide(key)
                return key
        return None

    def needed_key(self) -> str:
        """Its key. Raises `ProviderUnauthorizedError` if it needs one and none is set."""
        key = self.key()
        if key is None and not self.is_local:
            raise ProviderUnauthorizedError(
                f"{self.keys[0]} is not set. Put the key into the environment of the server, or into its file .env."
            )
        return key or NO_KEY


# Hearth itself does retries and timeouts, in one place for all providers. The packages of Google and Mistral count
# the first try as a retry.
_OPENAI = "langchain-openai==1.7.3"
_OPENAI_OPTIONS = {"max_retries": 0, "stream_usage": True, "stream_chunk_timeout": None}

PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(_OPENAI, ("OPENAI_API_KEY",), "openai", options=_OPENAI_OPTIONS, traced_as="openai"),
    "anthropic": Provider(
        "langchain-anthropic==1.7.7",
        ("ANTHROPIC_API_KEY",),
        "anthropic",
        options={"max_retries": 0},
        traced_as="anthropic",
    ),
    "google_genai": Provider(
        "langchain-google-genai==4.4.2",
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        "google_genai",
        limit="max_output_tokens",
        options={"max_retries": 1},
        traced_as="gcp.gemini",
    ),
    "mistralai": Provider(
        "langchain-mistralai==1.1.6",
        ("MISTRAL_API_KEY",),
        "mistralai",
        options={"max_retries": 1, "timeout": 600},
        traced_as="mistral_ai",
    ),
    # Hugging Face's inference has OpenAI's API. langchain-huggingface needs an older huggingface_hub than
    # transformers, and would load the model into this process.
    "huggingface": Provider(
        _OPENAI,
        ("HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN"),
        "openai",
        base_url="https://router.huggingface.co/v1",
        options=_OPENAI_OPTIONS,
        traced_as="huggingface",
    ),
    "ollama": Provider(
        "langchain-ollama==1.1.0",
        ("OLLAMA_API_KEY",),
        "ollama",
        limit="num_predict",
        is_local=True,
        traced_as="ollama",
    ),
}


def is_remote(name: str) -> bool:
    """Whether `name` is a remote model: it begins with the name of a provider and a colon.

    Raises `ModelNotFoundError` for an unknown provider. An existing folder of that name is a local model.
    """
    prefix, colon, model = name.partition(":")
    if not colon or not re.fullmatch(r"[a-z][a-z0-9_]+", prefix) or os.path.isdir(os.path.expanduser(name)):
        return False
    if prefix not in PROVIDERS or not model:
        raise ModelNotFoundError(
            f"{name!r} is no model. One behind an API is called PROVIDER:NAME, and the providers are: "
            f"{', '.join(PROVIDERS)}. A model on this machine is called by its folder or its GGUF file alone."
        )
    return True
