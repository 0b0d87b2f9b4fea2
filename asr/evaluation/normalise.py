"""Text -> the spoken tokens that are scored, one written word at a time.

- NFKC, casefolded; punctuation dropped except apostrophes inside words; hyphens split words, but
  invisible soft hyphens and joiners do not;
- numbers in English words: ``1,234``, ``-3.5``, ``21st``, ``$3.50``, ``50%``. Four digits that look
  like a year are read as one. Digits are read one by one if they start with zero, if there are
  seven or more without commas, or from a trillion on;
- the abbreviations of `_ABBREVIATIONS`, ``&`` as "and", initials as one token (``U.S.`` is "us").

It does not expand contractions, unify spellings or compounds (colour, good bye), drop fillers, or
put "and" inside numbers. It does not read clock times, fractions, Roman numerals, ``1980s``, ``4k``
or anything that depends on the next word (``St.``, ``$2 million``). Other scripts stay unchanged
and unsegmented.
"""

from __future__ import annotations

import re
import unicodedata

from asr.text.numerals import cardinal, digits, ordinal_of, year

NORMALISER = "NFKC, casefold, no punctuation, numbers in English words"

_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor", "jr": "junior",
    "sr": "senior", "vs": "versus", "etc": "et cetera", "ok": "okay",
}  # fmt: skip
_ZERO_WIDTH_SPACE = "\u200b"
_NUMBER = re.compile(
    r"(?<![^\W_])(?P<minus>(?<!\S)[-\u2212])?(?P<dollar>\$)?"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.(?P<part>[0-9]+))?"
    r"(?P<ordinal>st|nd|rd|th)?(?P<percent>%)?(?![^\W_])"
)


def normalise(text: str) -> list[str]:
    """The spoken tokens of a text. Applying it twice gives the same result."""
    return [token for written in text.split() for token in _spoken(written)]


def _spoken(written: str) -> list[str]:
    seen = "".join(c for c in written if c == _ZERO_WIDTH_SPACE or unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())
    said = _NUMBER.sub(_say_number, re.sub(r"[\u2018\u2019\u02bc]", "'", folded))
    said = re.sub(r"(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)", "", said).replace("&", " and ")
    bare = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in said)
    pieces = (piece.strip("'") for piece in bare.split())
    return " ".join(_ABBREVIATIONS.get(piece, piece) for piece in pieces).split()


def _say_number(found: re.Match[str]) -> str:
    words, part = _integer(found["whole"]), found["part"] or ""
    if found["ordinal"]:
        words = ordinal_of(words)
    if found["dollar"] and len(part) in (0, 2):
        words += ["dollar" if words == ["one"] else "dollars"]
        words += [*cardinal(int(part)), "cents"] if part else []
    else:
        words += ["point", *digits(part)] if part else []
        words += ["dollars"] if found["dollar"] else []
    around = "minus" if found["minus"] else "", "percent" if found["percent"] else ""
    return f" {around[0]} {' '.join(words)} {around[1]} "


def _integer(text: str) -> list[str]:
    """Read as single digits, as a year, or as a cardinal number."""
    figures = text.replace(",", "")
    plain = figures == text
    if len(figures) > (6 if plain else 12) or (len(figures) > 1 and figures[0] == "0"):
        return digits(figures)
    value = int(figures)
    is_year = plain and (1100 <= value <= 1999 or 2010 <= value <= 2099)
    return year(value) if is_year else cardinal(value)
