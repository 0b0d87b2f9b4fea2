"""The metadata of jobs: up to 16 pairs of strings, with OpenAI's limits.

The database stores them as JSON with one pair in each line. A line break cannot occur inside a JSON
string, so a pair is found by searching for its line.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from asr.config import check
from asr.service.json_text import check_structure

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PAIRS: Final = 16
MAX_KEY_LENGTH: Final = 64
MAX_VALUE_LENGTH: Final = 512
FIELD: Final = "metadata"
_BRACKETS: Final = re.compile(r"metadata\[([^\[\]]*)\]", re.DOTALL)

Pairs = list[tuple[str, str]]


def is_label(name: str) -> bool:
    """Whether a field is ``metadata`` or ``metadata[key]``."""
    return name == FIELD or _BRACKETS.fullmatch(name) is not None


def read_metadata(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The metadata in the fields of a request: a JSON object, or fields like ``metadata[key]``.

    Raises:
        InvalidOption: it is no object of strings, or exceeds a limit.
    """
    found: dict[str, str] = {}
    for name, value in fields:
        if name == FIELD and value:
            found |= _parse(value)
        elif bracketed := _BRACKETS.fullmatch(name):
            found[bracketed[1]] = value
    check(len(found) <= MAX_PAIRS, FIELD, f"at most {MAX_PAIRS} pairs")
    for key, value in found.items():
        told = f"keys must have 1 to {MAX_KEY_LENGTH} characters: {key[:80]!r}"
        check(0 < len(key) <= MAX_KEY_LENGTH, FIELD, told)
        told = f"{key}: values may have {MAX_VALUE_LENGTH} characters"
        check(len(value) <= MAX_VALUE_LENGTH, FIELD, told)
    return found


def _parse(text: str) -> dict[str, str]:
    told = "must be a JSON object whose values are strings"
    try:
        check_structure(text)
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    is_object = isinstance(found, dict) and all(isinstance(it, str) for it in found.values())
    check(is_object, FIELD, told)
    return dict(found or {})


def pack_metadata(found: dict[str, str]) -> str | None:
    """Encode as JSON with one pair in each line; None if there are no pairs."""
    return json.dumps(found, indent=0, sort_keys=True) if found else None


def lines_of(key: str, value: str) -> tuple[str, str]:
    """The two texts of which `pack_metadata` writes one for a pair."""
    line = f"\n{json.dumps(key)}: {json.dumps(value)}"
    return f"{line},\n", f"{line}\n"
