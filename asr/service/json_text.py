"""Limits on JSON texts, checked before anything parses them.

A JSON parser holds the lock of the interpreter until it ends, so a text of 4 MB with 300,000 fields
stops all other clients, in whichever thread it is parsed. This check reads only the structure, and
stops at the limit. Long strings cost little.
"""

from __future__ import annotations

import re
from typing import Final

from asr.service.errors import Malformed

MAX_MARKS: Final = 4000
"""Brackets, braces, commas, colons and strings. A form with 64 fields and a hundred keywords has
400 of them."""
MAX_DEPTH: Final = 16

_MARK: Final = re.compile(r'["\[\]{},:]')
_IN_STRING: Final = re.compile(r'(?:[^"\\]+|\\.){1,4096}', re.DOTALL)


def check_structure(text: str) -> None:
    """Check the number of values and the depth of a JSON text. The text need not be valid.

    Raises:
        Malformed: it has more than a request can need.
    """
    depth = position = n_marks = 0
    while (mark := _MARK.search(text, position)) is not None:
        n_marks += 1
        depth += (mark[0] in "[{") - (mark[0] in "]}")
        if n_marks > MAX_MARKS:
            raise Malformed("the JSON has too many fields or values", "too_many_fields")
        if depth > MAX_DEPTH:
            raise Malformed(f"the JSON is nested deeper than {MAX_DEPTH} levels", "malformed_body")
        position = _end_of_string(text, mark.end()) if mark[0] == '"' else mark.end()


def _end_of_string(text: str, start: int) -> int:
    """The position after the string that starts at `start`, or the end of the text."""
    end = text.find('"', start)
    if end < 0:
        return len(text)
    if text.find("\\", start, end) < 0:
        return end + 1
    position = start
    # In steps, so that other threads can run in between.
    while (piece := _IN_STRING.match(text, position)) is not None:
        position = piece.end()
    return position + 1
