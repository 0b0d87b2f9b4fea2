"""Collects the fields of a request by name."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, get_origin

from asr.service.errors import Malformed
from asr.service.http.problems import Problem
from asr.service.json_text import check_structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo

_FREE_TEXT: Final = ("keywords", "known_speaker_names", "known_speaker_references")
"""Lists whose values may contain commas."""


def gather(pairs: Iterable[tuple[str, str]], known: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """Collect values by name. Skip empty strings.

    The values of a list field become a list, and fields like ``a[b]=c`` become an object. A field
    that is not known keeps one of its values.

    Raises:
        Problem: 400, a field that is no list was sent more than once.
    """
    gathered: dict[str, Any] = {}
    for raw_name, value in pairs:
        name, _, rest = raw_name.partition("[")
        key = rest.rstrip("]")
        if value == "":
            continue
        if name not in known:
            gathered[name] = value
        elif get_origin(known[name].annotation) is list:
            gathered.setdefault(name, []).extend(_items(name, value))
        elif key and isinstance(gathered.setdefault(name, {}), dict):
            gathered[name][key] = value
        elif name in gathered:
            raise Problem(400, f"{name}: sent more than once", "invalid_value", name)
        else:
            gathered[name] = value
    return gathered


def _items(name: str, value: str) -> list[str]:
    """The values in one field of a list: itself, a JSON list, or codes separated by commas."""
    if value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError, Malformed):
            check_structure(value)
            found = json.loads(value)
            if isinstance(found, list) and all(isinstance(item, str) for item in found):
                return found
    return [value] if name in _FREE_TEXT else [item.strip() for item in value.split(",")]
