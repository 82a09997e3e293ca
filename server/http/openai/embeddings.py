"""`POST /v1/embeddings`."""

import base64
from typing import Annotated, Any, Literal

from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, BeforeValidator, Field

from server.documents.embeddings import NAME
from server.errors import UnknownModelError
from server.host import Host
from server.http.access import access
from server.http.auth import caller
from server.http.concurrency_limit import ConcurrencyLimit
from server.http.openai.chat_schemas import TextOrTokens, Tokens, listed_prompts
from server.http.openai.schemas import Anything, ModelName
from server.http.openai.serializers import REFUSED
from server.http.schemas import StrictRequest
from server.reload import MAIN

MOST_INPUTS = 2048


class EmbeddingsRequest(StrictRequest):
    model: ModelName = Field(description=f"`{NAME}`")
    input: Annotated[
        list[TextOrTokens],
        Field(min_length=1, max_length=MOST_INPUTS),
        BeforeValidator(listed_prompts, json_schema_input_type=str | list[str] | Tokens | list[Tokens]),
    ] = Field(description="texts, or tokens of the embedding model, which are read as they are")
    dimensions: int | None = Field(None, ge=1, description="the first ones of each vector, of length 1 again")
    encoding_format: Literal["float", "base64"] | None = Field(
        "float", description="base64: of float32, little-endian"
    )
    user: Anything = None


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]] = Field(description="each an `embedding` with the `index` of its input")
    model: str
    usage: EmbeddingUsage


def blueprint(host: Host, limit: ConcurrencyLimit) -> APIBlueprint:
    """The route, over `host`. `limit`: for requests that wait."""
    routes = APIBlueprint("openai_embeddings", __name__)

    @routes.post(
        "/v1/embeddings",
        summary="OpenAI: vectors of texts, of length 1",
        responses={200: EmbeddingsAnswer, **REFUSED},
    )
    @access("ask", "nobody")
    def embeddings(body: EmbeddingsRequest) -> dict[str, Any]:
        if body.model != NAME:
            raise UnknownModelError(f"There is no embedding model {body.model!r} here. There is {NAME}.")
        who = caller()
        with limit.acquire():
            vectors, tokens = host.embeddings.embed(body.input, body.dimensions, who.owner_in(MAIN), who.key)
        is_text = body.encoding_format == "base64"
        shown = [
            base64.b64encode(one.astype("<f4").tobytes()).decode() if is_text else one.tolist() for one in vectors
        ]
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)],
            "model": NAME,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    return routes
