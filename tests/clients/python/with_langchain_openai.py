"""langchain-openai: langchain-tests' standard tests, over chat completions, over responses, and of embeddings.

`OpenAIEmbeddings` needs `check_embedding_ctx_length=False`: it sends tokens of OpenAI's own tokenizer otherwise.
"""

import sys
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests


class TestChat(ChatModelIntegrationTests):
    """Over `/v1/chat/completions`."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "hearth", "max_tokens": 200, "temperature": 0, "stream_usage": True}

    @property
    def model_override_value(self) -> str:
        return "embedded"


class TestResponses(TestChat):
    """Over `/v1/responses`."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        # Otherwise it sends tokens of OpenAI's own tokenizer.
        return {"model": "hearth-embedding", "check_embedding_ctx_length": False}


if __name__ == "__main__":
    # Neither Hearth's own settings of pytest nor its fixtures: they need its packages.
    own = ["-c", "/dev/null", "--rootdir", "/", "--noconftest", "-p", "no:cacheprovider", "-W", "ignore"]
    # One event loop for all: ChatOpenAI shares its connections among its models.
    loops = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"]
    sys.exit(pytest.main([__file__, "-q", *loops, *own]))
