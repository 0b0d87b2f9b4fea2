"""Reads and checks the headers of a tus request."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from asr.errors import InvalidOption
from asr.service.names import clean_name
from asr.service.uploads.parts import Checksum

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_METADATA: Final = 8192
"""Bytes of Upload-Metadata."""
_PAIR: Final = re.compile(r"([!-+\--~]+)(?: ([A-Za-z0-9+/=]*))?")
"""A key of printable ASCII without space and comma, and an optional value in base64."""
_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)


def content_type(request: Request) -> str:
    """The media type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def number(request: Request, header: str) -> int | None:
    """A header with a whole number, or None when it is absent.

    Raises:
        InvalidOption: it is not a whole number.
    """
    text = request.headers.get(header)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise InvalidOption(header, "must be a whole number")
    return int(text)


def required_number(request: Request, header: str) -> int:
    """As `number`, for a header that must be there."""
    value = number(request, header)
    if value is None:
        raise InvalidOption(header, "is missing")
    return value


def declared_length(request: Request) -> int | None:
    """The length of a new upload, or None when the client defers it.

    Raises:
        InvalidOption: the request does not have exactly one of Upload-Length and
            Upload-Defer-Length: 1.
    """
    length = number(request, "Upload-Length")
    deferred = request.headers.get("upload-defer-length")
    if (length is None) != (deferred == "1") or deferred not in (None, "1"):
        raise InvalidOption("Upload-Length", "send it, or Upload-Defer-Length: 1")
    return length


def metadata(request: Request) -> str:
    """The header Upload-Metadata as it was sent.

    Raises:
        InvalidOption: it is not a list of unique keys, each with an optional value in base64.
    """
    text = request.headers.get("upload-metadata", "")
    pairs = [_PAIR.fullmatch(pair.strip()) for pair in text.split(",")] if text else []
    keys = [pair[1] for pair in pairs if pair]
    if len(text) > MAX_METADATA or len(set(keys)) < len(pairs) or not _all_base64(pairs):
        message = f"must be `key base64,...` of {MAX_METADATA} bytes at most"
        raise InvalidOption("Upload-Metadata", message)
    return text


def _all_base64(pairs: list[re.Match[str] | None]) -> bool:
    try:
        for pair in pairs:
            base64.b64decode((pair and pair[2]) or "", validate=True)
    except ValueError:
        return False
    return True


def name_in(metadata_text: str) -> str | None:
    """The file name in the header Upload-Metadata of an upload, cleaned, or None.

    tus names no key for it. Most clients send ``filename``, some ``name``.
    """
    values = dict(pair.strip().partition(" ")[::2] for pair in metadata_text.split(","))
    for key in ("filename", "name"):
        text = base64.b64decode(values.get(key, "")).decode("utf-8", "replace")
        if name := clean_name(text):
            return name
    return None


def checksum(request: Request) -> Checksum | None:
    """The header Upload-Checksum, or None when it is absent.

    Raises:
        InvalidOption: as `Checksum.parse`.
    """
    header = request.headers.get("upload-checksum")
    return None if header is None else Checksum.parse(header)
