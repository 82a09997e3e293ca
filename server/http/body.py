"""Reading a request's body, as bytes or as strict JSON. Its errors are `HearthError`s."""

import codecs
import json
from typing import Any, NoReturn

from flask import Flask, Request, request
from pydantic import ValidationError
from pydantic_core import from_json
from werkzeug.exceptions import RequestEntityTooLarge

from server.errors import InvalidRequestError, MalformedRequestError, TooLargeError, UnsupportedMediaTypeError

MOST_DETAILS = 20
LONGEST_NAME = 100


class JsonRequest(Request):
    """A request whose body is JSON, whatever its Content-Type says. An empty body means `{}`."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> dict[str, Any]:
        """The body's object. Flask's arguments have no effect.

        Raises `TooLargeError`, `MalformedRequestError`, and `InvalidRequestError` for JSON that is no object.
        """
        data = read_bytes(self)
        value = read_json(data) if data.strip() else {}
        if not isinstance(value, dict):
            raise InvalidRequestError('The body has to be a JSON object, like {"question": "What is 37 * 52?"}.')
        return value


def register(app: Flask) -> None:
    """Refuse compressed bodies, whose size is not known before they are read."""

    def before() -> None:
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise UnsupportedMediaTypeError(
                f"The body is compressed ({encoding[:LONGEST_NAME]}). Send it as it is, without Content-Encoding."
            )

    app.before_request(before)


def read_bytes(request: Request) -> bytes:
    """The raw body. Raises `TooLargeError`."""
    try:
        return request.get_data()
    except RequestEntityTooLarge:
        raise TooLargeError(
            f"The body is longer than {request.max_content_length} bytes, the limit of HEARTH_MAX_BODY_BYTES. Upload "
            "pictures and long texts as files of a session (POST /sessions/<id>/files), and name them."
        ) from None


def read_json(data: bytes) -> Any:
    """The JSON value in `data`. Raises `MalformedRequestError`.

    A byte order mark is ignored. Stricter than `json.loads`: UTF-8 only, no NaN, no lone surrogates, no duplicate
    names in an object, and a depth of at most 200.
    """
    try:
        data = data.removeprefix(codecs.BOM_UTF8)
        from_json(data, allow_inf_nan=False)
        return json.loads(data, object_pairs_hook=_unique)
    except ValueError as error:
        raise MalformedRequestError(f"The body is not valid JSON: {error}.") from None


def refuse(error: ValidationError) -> NoReturn:
    """Raise pydantic's `error` as an `InvalidRequestError`, without the values, because they may be long."""
    problems = [
        {
            "type": problem["type"],
            "loc": [part[:LONGEST_NAME] if isinstance(part, str) else part for part in problem["loc"]],
            "msg": problem["msg"],
        }
        for problem in error.errors(include_url=False, include_context=False, include_input=False)[:MOST_DETAILS]
    ]
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    raise InvalidRequestError(f"The request is not valid: {where}: {first['msg']}.", details=problems)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("an object has the same name twice")
    return names
