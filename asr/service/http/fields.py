"""The fields of a request: the limits that hold for all of them, and one of the parsers.

Fields come in a multipart form, an urlencoded form, a JSON object or the query. All become pairs of
name and value, so the same code checks them. `check_fields` has the limits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from asr.service.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_FIELD_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 64
MAX_LIST_ITEMS: Final = 100
"""A list counts as several fields with one name. So many may come in addition to `MAX_FIELDS`."""
MAX_NAME_BYTES: Final = 256
"""The answer names each field that is not known."""
REFERENCE_FIELD: Final = "known_speaker_references"
"""A list of data URLs of short recordings."""
MAX_REFERENCE_BYTES: Final = 4 << 20
"""Of one data URL. Ten seconds of CD quality in 32 bits have 2.4 MB in base64."""
MAX_REFERENCES: Final = 10


def check_fields(pairs: Sequence[tuple[str, str]], long_field: str = "") -> None:
    """Check the number of fields, and the lengths of their names and values.

    Args:
        pairs: name and value of each field.
        long_field: the name of the field whose length is limited elsewhere.

    Raises:
        Problem: 400, a limit is exceeded. The message names the field.
    """
    n_names = len({name for name, _ in pairs})
    if n_names > MAX_FIELDS or len(pairs) > MAX_FIELDS + MAX_LIST_ITEMS:
        message = f"more than {MAX_FIELDS} fields, or lists of more than {MAX_LIST_ITEMS} values"
        raise Problem(400, message, "too_many_fields")
    for name, value in pairs:
        if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
            message = f"{name[:40]}...: the name is longer than {MAX_NAME_BYTES} bytes"
            raise Problem(400, message, "invalid_value")
        is_reference = name.partition("[")[0] == REFERENCE_FIELD
        limit = MAX_REFERENCE_BYTES if is_reference else MAX_FIELD_BYTES
        # A character has at most four bytes, so most values need not be encoded.
        is_long = len(value) > limit // 4 and name != long_field
        if is_long and len(value.encode("utf-8", "surrogatepass")) > limit:
            message = f"{name}: longer than {limit} bytes"
            raise Problem(400, message, "invalid_value", name)


def too_many_references() -> Problem:
    """The answer to more references than `MAX_REFERENCES`."""
    message = f"{REFERENCE_FIELD}: at most {MAX_REFERENCES} are used; store voices instead"
    return Problem(400, message, "invalid_value", REFERENCE_FIELD)


def check_query(query: bytes) -> None:
    """Check the number of fields in a query without parsing it.

    Raises:
        Problem: 400, it has too many.
    """
    if query.count(b"&") >= MAX_FIELDS + MAX_LIST_ITEMS:
        message = f"the query has more than {MAX_FIELDS + MAX_LIST_ITEMS} fields"
        raise Problem(400, message, "too_many_fields")


def parse_urlencoded(text: bytes) -> list[tuple[str, str]]:
    """Parse ``application/x-www-form-urlencoded``.

    Raises:
        Problem: 400, the form is malformed or has too many fields.
    """
    try:
        most = MAX_FIELDS + MAX_LIST_ITEMS
        return parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=most)
    except UnicodeDecodeError as error:  # "curl --data-binary @audio.wav" says that it is a form
        message = "the body is not the form that its Content-Type says: send a file with "
        message += "multipart/form-data (curl -F file=@NAME)"
        raise Problem(400, message, "malformed_body") from error
    except ValueError as error:
        raise Problem(400, f"malformed form: {error}", "malformed_body") from error


def with_query(
    pairs: list[tuple[str, str]], query: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The fields of a body and those of the query, without fields that are in both."""
    in_body = set(pairs)
    return pairs + [pair for pair in query if pair not in in_body]


def pairs_of(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields of a JSON object. A list becomes several fields with the same name.

    Raises:
        Problem: 400, the object holds values that a form cannot express.
    """
    pairs = [pair for name, value in fields.items() for pair in _flatten(name, value)]
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
