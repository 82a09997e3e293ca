"""The providers that there are, and how each one's models are named, reached and limited."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dotenv import dotenv_values

from server.errors import ModelNotFoundError, ProviderUnauthorizedError
from server.observability.redaction import hide

NO_KEY = "no-key-needed"
"""What is sent where no key is: the packages want something."""


@dataclass(frozen=True)
class Provider:
    """A provider of models.

    `requirement`: its package and the version that fits, as pip takes it. `keys`: the variables that may hold the
    key, the first that is set wins. `langchain`: the name by which `init_chat_model` knows it. `limit`: what its chat
    model calls the most tokens of a reply. `base_url`: where it is, if its package doesn't know. `is_local`: it runs
    on this machine as a rule, and wants no key there. `options`: what the chat model is made with besides.
    """

    requirement: str
    keys: tuple[str, ...]
    langchain: str
    limit: str = "max_tokens"
    base_url: str | None = None
    is_local: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """What its package is imported as."""
        return self.requirement.partition("==")[0].replace("-", "_")

    def key(self) -> str | None:
        """Its key, from the environment or a file `.env` in the current folder; None where none is set."""
        in_file = dotenv_values(".env")
        for name in self.keys:
            # Without the end of line that a mounted secret may bring.
            key = (os.environ.get(name) or in_file.get(name) or "").strip()
            if key:
                hide(key)
                return key
        return None

    def needed_key(self) -> str:
        """Its key. Raises `ProviderUnauthorizedError` where it wants one and none is set."""
        key = self.key()
        if key is None and not self.is_local:
            raise ProviderUnauthorizedError(
                f"{self.keys[0]} is not set. Put the key into the environment of the server, or into its file .env."
            )
        return key or NO_KEY


# Retries are Hearth's own, in one place and the same for all, and so is the time that nothing may come. Google's
# package and Mistral's count the first try among the retries.
_OPENAI = "langchain-openai==1.7.3"
_OPENAI_OPTIONS = {"max_retries": 0, "stream_usage": True, "stream_chunk_timeout": None}

PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(_OPENAI, ("OPENAI_API_KEY",), "openai", options=_OPENAI_OPTIONS),
    "anthropic": Provider(
        "langchain-anthropic==1.7.7", ("ANTHROPIC_API_KEY",), "anthropic", options={"max_retries": 0}
    ),
    "google_genai": Provider(
        "langchain-google-genai==4.4.2",
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        "google_genai",
        limit="max_output_tokens",
        options={"max_retries": 1},
    ),
    "mistralai": Provider(
        "langchain-mistralai==1.1.6", ("MISTRAL_API_KEY",), "mistralai", options={"max_retries": 1, "timeout": 600}
    ),
    # Hugging Face's inference speaks OpenAI's API; langchain-huggingface wants an older huggingface_hub than
    # transformers does, and would load the model into this process.
    "huggingface": Provider(
        _OPENAI,
        ("HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN"),
        "openai",
        base_url="https://router.huggingface.co/v1",
        options=_OPENAI_OPTIONS,
    ),
    "ollama": Provider("langchain-ollama==1.1.0", ("OLLAMA_API_KEY",), "ollama", limit="num_predict", is_local=True),
}


def is_remote(name: str) -> bool:
    """Whether the model `name` is behind an API: it begins with the name of a provider and a colon.

    Raises `ModelNotFoundError` for what looks like a provider's and is none's; a folder of that name is a folder.
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
