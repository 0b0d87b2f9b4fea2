"""Scripts that are written without spaces between words: Chinese, Japanese, Thai and others.

Their texts are split into characters, and joined again without spaces.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_SCRIPTS: Final = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0ebd\u0ec0-\u0ece"  # Lao
    "\u1000-\u103f\u1050-\u109d"  # Burmese
    "\u1780-\u17d3"  # Khmer
    "\u3005-\u3007\u3031-\u3035\u303b\u3041-\u3096\u309d-\u309f"  # Hiragana
    "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Katakana
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_MARKS: Final = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
    "\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d"
    "\u17b4-\u17d3\u3099\u309a\uff9e\uff9f\ufe00-\ufe0f\U000e0100-\U000e01ef\u0300-\u036f\u200c\u200d"
)
"""Vowels, tones and variants that belong to the letter before them."""
_OPENING: Final = "([{“‘«‹（［｛「『【〈《〔〖〘〝"  # noqa: RUF001

_UNSPACED: Final = re.compile(f"[{_SCRIPTS}]")
_LETTER: Final = re.compile(
    rf"[{re.escape(_OPENING)}]*"
    rf"(?:[{_SCRIPTS}][{_MARKS}]*|[^{_SCRIPTS}\s{re.escape(_OPENING)}]+)"
    rf"(?:(?![{_SCRIPTS}{re.escape(_OPENING)}])[^\w\s])*|\S+"
)
_ENDS: Final = re.compile(rf"[{_SCRIPTS}][{_MARKS}]*[^\w\s]*\Z")
_STARTS: Final = re.compile(rf"[{re.escape(_OPENING)}]*[{_SCRIPTS}]")


def tokens_in(text: str) -> list[str]:
    """Split a text at its spaces, and words of unspaced scripts into characters.

    Punctuation stays with the character before it, or after it if it opens a quotation or bracket.
    """
    tokens: list[str] = []
    for token in text.split():
        if is_unspaced(token):
            tokens += _LETTER.findall(token)
        else:
            tokens.append(token)
    return tokens


def is_unspaced(text: str) -> bool:
    """Whether the text has a letter of an unspaced script."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def join_words(words: Iterable[str]) -> str:
    """Join words with spaces, except between two of unspaced scripts."""
    texts = list(words)
    gaps = (
        "" if index == 0 else separator(texts[index - 1], texts[index])
        for index in range(len(texts))
    )
    return "".join(gap + text for gap, text in zip(gaps, texts, strict=True))


def separator(left: str, right: str) -> str:
    """The space between two words; none if both are of unspaced scripts, or one is a number."""
    ends, starts = _ENDS.search(left[-8:]), _STARTS.match(right)
    is_glued = (ends and starts) or (ends and right.isdecimal()) or (starts and left.isdecimal())
    return "" if is_glued else " "
