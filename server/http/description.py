"""`GET /openapi.json`: what flask-openapi3 makes of the views, with what holds for all routes and no view says."""

import copy
import re
from typing import Any

from flask_openapi3 import OpenAPI
from flask_openapi3.models import Schema
from pydantic import BaseModel

from server.errors import (
    ForbiddenError,
    HearthError,
    InvalidRequestError,
    MalformedRequestError,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedMediaTypeError,
    WrongHostError,
)
from server.http import auth

REF = "#/components/schemas/{model}"
OF_ALL: tuple[type[HearthError], ...] = (WrongHostError,)
OF_CALLERS: tuple[type[HearthError], ...] = (UnauthorizedError, ForbiddenError)
"""Of routes that need a credential."""
OF_OBJECTS: tuple[type[HearthError], ...] = (NotFoundError,)
"""Of routes about somebody's objects: what is another's does not exist."""
OF_BODIES: tuple[type[HearthError], ...] = (
    MalformedRequestError,
    ForbiddenError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
"""Of methods that may have a body: also that a page of somebody else's has sent it."""
OPENAI_PATHS = ("/v1/", "/api/chat")
"""Below these, errors have the shape of OpenAI's, where an invalid request is 400."""


def describe(app: OpenAPI) -> dict[str, Any]:
    """The whole description. Each operation has the name of its blueprint as its tag."""
    document: dict[str, Any] = copy.deepcopy(app.api_doc)
    tags = set()
    for rule in app.url_map.iter_rules():
        operations = document["paths"].get(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        access = auth.declared_by(app, rule.endpoint)
        for method in (rule.methods or set()) & {name.upper() for name in operations}:
            operation = operations[method.lower()]
            tag = rule.endpoint.partition(".")[0].replace("_", " ")
            tags.add(tag)
            operation["tags"] = [tag]
            kinds = OF_ALL
            if access is not None and access.scope != "public":
                kinds += OF_CALLERS
            elif access is not None:
                operation["security"] = []
            if access is not None and access.owner != "nobody":
                kinds += OF_OBJECTS
            if method not in ("GET", "HEAD"):
                kinds += OF_BODIES
            _add_errors(operation["responses"], kinds, rule.rule.startswith(OPENAI_PATHS))
    document["tags"] = [{"name": tag} for tag in sorted(tags)]
    return document


def _add_errors(responses: dict[str, Any], kinds: tuple[type[HearthError], ...], is_openai: bool) -> None:
    schema = "OpenAIError" if is_openai else "ErrorAnswer"
    invalid = str(InvalidRequestError.status)
    if "items" in responses.get(invalid, {}).get("content", {}).get("application/json", {}).get("schema", {}):
        # flask-openapi3 says of routes that declare none: a list of errors.
        del responses[invalid]
    kinds += (MalformedRequestError,) if is_openai else (InvalidRequestError,)
    for kind in kinds:
        content = {"application/json": {"schema": {"$ref": REF.format(model=schema)}}}
        responses.setdefault(str(kind.status), {"description": kind.__doc__, "content": content})


def components(model: type[BaseModel]) -> dict[str, Any]:
    """The schemas that the schema of a model names, for the blueprint of a view that reads the body itself."""
    found = model.model_json_schema(ref_template=REF).get("$defs", {})
    return {name: Schema(**schema) for name, schema in found.items()}
