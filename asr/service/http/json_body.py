"""A JSON body: its fields, and the recording that it may hold in base64.

OpenRouter and clients that follow it send ``{"input_audio": {"data": BASE64, "format": "mp3"}}``;
others send base64 or a data URL as ``file`` or ``audio``. Text in base64 is a third longer than the
recording, and a parser needs it in memory several times. So such bodies have a limit of their own.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from asr.service.http.fields import (
    MAX_REFERENCE_BYTES,
    MAX_REFERENCES,
    REFERENCE_FIELD,
    pairs_of,
    too_many_references,
)
from asr.service.http.problems import Problem
from asr.service.json_text import check_structure

MAX_JSON_BYTES: Final = 48 << 20
"""The longest JSON body. A recording of 25 MB, OpenAI's limit, has 35 MB in base64."""
AUDIO_FIELDS: Final = ("file", "audio", "input_audio")
_STEP: Final = 1 << 20
"""Characters that are decoded at once, so that other threads run in between. A multiple of 4."""
_URL_SAFE: Final = str.maketrans("-_", "+/")


def read_json(body: bytes, max_form_bytes: int) -> tuple[list[tuple[str, str]], bytes | None]:
    """Parse a JSON object into fields and a recording. A list becomes several fields.

    Args:
        body: the text of the object.
        max_form_bytes: the limit of everything but the recording.

    Raises:
        Problem: 400, the text is not a JSON object, holds values that a form cannot express, or a
            recording that is not base64; 413, it is too long.
        Malformed: it has too many values.
    """
    fields = _parse(body)
    n_rest = len(body) - sum(len(text) for name in AUDIO_FIELDS for text in _texts(fields, name))
    references = _texts(fields, REFERENCE_FIELD)
    if len(references) > MAX_REFERENCES:
        raise too_many_references()
    n_rest -= sum(len(text) for text in references if len(text) <= MAX_REFERENCE_BYTES)
    if n_rest > max_form_bytes:
        message = f"a form without a file may have {max_form_bytes} bytes"
        raise Problem(413, message, "too_large")
    recordings = {name: data for name in AUDIO_FIELDS if (data := _audio(fields, name))}
    if len(recordings) > 1:
        name = list(recordings)[1]
        raise Problem(400, f"{name}: send one recording per request", "invalid_value", name)
    return pairs_of(fields), next(iter(recordings.values()), None)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode(json.detect_encoding(body))
        check_structure(text)
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not JSON", "malformed_body") from None
    if not isinstance(fields, dict):
        raise Problem(400, "the body must be a JSON object", "malformed_body")
    return fields


def _texts(fields: dict[str, Any], name: str) -> list[str]:
    """The strings in a field: its value, the items of its list, or the ``data`` of its object."""
    value = fields.get(name)
    items = value if isinstance(value, list) else [value]
    found = [item.get("data") if isinstance(item, dict) else item for item in items]
    return [item for item in found if isinstance(item, str)]


def _audio(fields: dict[str, Any], name: str) -> bytes | None:
    """Take a recording out of the fields; None if the field is absent or empty."""
    value = fields.pop(name, None)
    if value in (None, ""):
        return None
    text = value.get("data") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text:
        message = "must be the recording in base64, or an object with the base64 as data"
        raise Problem(400, f"{name}: {message}", "invalid_value", name)
    if text.startswith(("http://", "https://")):
        message = "addresses are not fetched; send the recording itself"
        raise Problem(400, f"{name}: {message}", "invalid_value", name)
    found = _decode(text)
    if found is None:
        message = "is not base64; send base64, or the file as multipart/form-data"
        raise Problem(400, f"{name}: {message}", "invalid_value", name)
    return found


def _decode(text: str) -> bytes | None:
    """Decode base64 or a data URL; None if the text is neither.

    The base64 may have line breaks, lack its padding, or use the alphabet of URLs.
    """
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            return None
    clean = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    clean += "=" * (-len(clean) % 4)
    try:
        return b"".join(
            base64.b64decode(clean[start : start + _STEP], validate=True)
            for start in range(0, len(clean), _STEP)
        )
    except ValueError:  # binascii.Error, or a character that is not ASCII
        return None
