"""Form fields in a body without a file: urlencoded or JSON.

Both parsers return pairs of name and value, as a multipart form does. So the same code can check
the fields of all three.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from asr.service.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FIELD_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 64


def parse_urlencoded(text: bytes) -> list[tuple[str, str]]:
    """Parse ``application/x-www-form-urlencoded``.

    Raises:
        Problem: 400, the form is malformed or has too many fields.
    """
    try:
        return parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise Problem(400, f"malformed form: {error}", "malformed_body") from error


def parse_json(text: bytes) -> list[tuple[str, str]]:
    """Parse a JSON object. A list becomes several fields with the same name.

    Raises:
        Problem: 400, the text is not a JSON object, or holds values that a form cannot express.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not JSON", "malformed_body") from None
    if not isinstance(body, dict):
        raise Problem(400, "the body must be a JSON object", "malformed_body")
    pairs = [pair for name, value in body.items() for pair in _flatten(name, value)]
    try:
        "".join(text for pair in pairs for text in pair).encode()
    except UnicodeEncodeError:  # JSON can escape half of a surrogate pair
        message = "the body holds half of a surrogate pair"
        raise Problem(400, message, "malformed_body") from None
    return pairs


def _flatten(name: str, value: object) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            yield name, json.dumps(value)
        case list():
            yield from ((name, _scalar(name, item)) for item in value)
        case _:
            yield name, _scalar(name, value)


def _scalar(name: str, value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
    raise Problem(400, f"{name}: a list must not hold lists or objects", "invalid_value", name)
