"""The warnings of a transcript as a response header, because SRT and plain text have no place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

WARNINGS_HEADER: Final = "X-Transcript-Warnings"
MAX_LENGTH: Final = 4_000
"""Proxies often allow 8 KB for all headers together."""


def warning_header(warnings: Sequence[str]) -> dict[str, str]:
    """Return the header: a JSON array of strings in ASCII; nothing without warnings.

    If the array is longer than `MAX_LENGTH`, it ends with the number of warnings left out.
    """
    for n_kept in range(len(warnings), -1, -1):
        n_left = len(warnings) - n_kept
        kept = [*warnings[:n_kept], *([f"{n_left} more warnings"] if n_left else [])]
        value = json.dumps(kept)
        if kept and len(value) <= MAX_LENGTH:
            return {WARNINGS_HEADER: value}
    return {}
