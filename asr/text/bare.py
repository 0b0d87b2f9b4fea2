"""Words without case and punctuation, for comparisons."""

from __future__ import annotations

import unicodedata


def bare(text: str) -> str:
    """The word in lower case without punctuation, or the text itself if it is all punctuation."""
    letters = (sign for sign in text.casefold() if unicodedata.category(sign)[0] != "P")
    return "".join(letters) or text
