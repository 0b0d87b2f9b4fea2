"""Find out what people say when they read a written token aloud, in English.

A token becomes slots that are said one after another. Each slot has one or several readings:
"$3.50" can be "three dollars and fifty cents", "three dollars fifty" or "three fifty". The
likeliest reading comes first; the aligner takes the one that fits the audio. Readings may depend on
the adjacent tokens ("$2 million", "March 3", "5 km"). Words are lower-case ASCII; "b." is the name
of a letter.

A token without letters, digits or spoken symbols has no slots. A token that cannot be read in
English, such as another script or 500 letters in a row, is `UNREADABLE`: it was said, but its words
are unknown.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import TYPE_CHECKING, Final

from asr.text.abbreviations import (
    ABBREVIATIONS,
    MONEY,
    SCALES,
    SYMBOLS,
    UNDOTTED,
    UNITS,
    Reading,
    options,
)
from asr.text.figures import figure, number, plural
from asr.text.numerals import cardinal, ordinal

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

Slot = tuple[Reading, ...]

UNREADABLE: Final[tuple[Slot, ...]] = (((),),)
MAX_READINGS: Final = 12
"""Maximum readings of a slot."""
MAX_TOKEN: Final = 200
"""Longest readable token, in characters."""
MAX_RUN: Final = 40
"""A token with at least this many letters, or digits, in a row is unreadable."""
MAX_ACRONYM: Final = 5
"""Longest word in capitals that may be spelled letter by letter."""

_ENDLESS: Final = re.compile(rf"[^\W\d_]{{{MAX_RUN},}}|\d{{{MAX_RUN},}}")
_AROUND: Final = re.compile(r"\A[^\w$€£¥#@&+\u2212°~.%=\u00d7<>-]+|[^\w%°+'\"&=$€£#*]+\Z")
"""Punctuation at the edges of a token; it is never read aloud."""
_RUN: Final = re.compile(
    r"\d{2,4}'?s(?![A-Za-z])|\d+(?:[.,]\d+)*|[A-Za-z]+(?:'[A-Za-z]+)*'?|[^\w\s]|_"
)

_ROMAN: Final = re.compile(r"(?=[IVX])(X{0,3})(IX|IV|V?I{0,3})")
_LETTERS: Final = str.maketrans({
    "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th",
    "\u0131": "i", "Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D",
    "\u2018": "'", "\u2019": "'", "\u02bc": "'",
    "\u2044": "/", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-",
})  # fmt: skip


def spoken(tokens: Sequence[str], known: Container[str]) -> list[tuple[Slot, ...]]:
    """Find the slots of each token.

    Args:
        tokens: in the order of the text.
        known: words that have a pronunciation. For an acronym in it, such as "nasa", the word is
            the likeliest reading; for other acronyms it is the letters.

    Returns:
        For each token its slots: empty if it is silent, `UNREADABLE` if its words are unknown.
    """
    around = ["", *tokens, ""]
    return [
        _Token(before, token, after, known).slots()
        for before, token, after in zip(around, tokens, around[2:], strict=False)
    ]


def _plain(token: str) -> str:
    """Convert Latin letters to ASCII and drop accents."""
    separated = re.sub(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])", "-", token)  # 5\u00bd is 5-1/2
    marked = unicodedata.normalize("NFKD", separated.translate(_LETTERS)).translate(_LETTERS)
    return "".join(character for character in marked if not unicodedata.combining(character))


class _Token:
    """One token with the tokens before and after it."""

    def __init__(self, before: str, token: str, after: str, known: Container[str]) -> None:
        self._before = _plain(before[-MAX_TOKEN:])
        self._text = _plain(token[: MAX_TOKEN + 1])
        self._after = _plain(after[:MAX_TOKEN]).lower()
        self._known = known

    def slots(self) -> tuple[Slot, ...]:
        """Find the slots of this token."""
        text = self._text
        foreign = (sign.isalpha() and not sign.isascii() and sign not in SYMBOLS for sign in text)
        if len(text) > MAX_TOKEN or _ENDLESS.search(text) or any(foreign):
            return UNREADABLE
        core = _AROUND.sub("", text)
        whole = self._whole(core.rstrip("'\"*") or core)
        if whole is not None:
            return (_limited(whole),) if any(whole) else ()
        return _fold(self._runs(core))

    def _whole(self, core: str) -> list[Reading] | None:
        """List the readings of a token that has a meaning as a whole; None for other tokens."""
        if not any(sign.isalnum() for sign in core):
            return self._symbol(core or self._text)
        return (
            self._abbreviation(core)
            or self._after_a_number(core.lower().rstrip("."))
            or _roman(core.rstrip("."))
            or figure(core, self._before, self._after)
        )

    def _symbol(self, text: str) -> list[Reading]:
        """Name a symbol that stands alone.

        A symbol whose likeliest reading is silence is not read, except a dash before a number.
        """
        signs = [sign for sign in text if sign in SYMBOLS]
        if len(signs) != 1:
            return [()]
        names = options(SYMBOLS[signs[0]])
        is_read = names[0] or (signs == ["-"] and self._after[:1].isdigit())
        return names if is_read else [()]

    def _abbreviation(self, core: str) -> list[Reading]:
        key = core.lower().rstrip(".")
        is_dotted = self._text.rstrip(",;:!?)").endswith(".") or "." in core
        table = ABBREVIATIONS if is_dotted else UNDOTTED
        if key not in table or core.isupper():
            return []
        return [*options(table[key]), *([(key,)] if key in self._known else [])]

    def _after_a_number(self, word: str) -> list[Reading]:
        """Read a unit after a number, or a multiplier such as "million" after a sum of money."""
        if word in UNITS and re.search(r"\d\W*\Z", self._before):
            return options(UNITS[word])
        if word in SCALES and self._before[:1] in MONEY:
            unit = MONEY[self._before[0]][0]
            return [(word, unit + "s"), (word,), (word, unit)]
        return []

    def _runs(self, core: str) -> list[list[Reading]]:
        """List the readings of each run of letters, digits or symbols in the token."""
        core = re.sub(r"\A(https?|ftp)://", "", core, flags=re.IGNORECASE)
        runs = _RUN.findall(core)
        return [self._run(runs, place) for place in range(len(runs))]

    def _run(self, runs: list[str], place: int) -> list[Reading]:
        run = runs[place]
        before = runs[place - 1] if place else ""
        if run[0].isdigit():
            decade = re.fullmatch(r"(\d+)'?s", run)
            return plural(decade) if decade else number(run)
        if not run[0].isalpha():
            return _sign(run, before, "".join(runs[place + 1 : place + 2]))
        if (before[:1].isdigit() or before == "°") and run.lower() in UNITS:
            return [*options(UNITS[run.lower()]), *self._letters(run)]
        return self._letters(run)

    def _letters(self, run: str) -> list[Reading]:
        """Read a word, or an acronym with or without a plural or genitive s (GPUs, CEO's)."""
        word = run.lower()
        is_known = word in self._known
        if len(run) == 1:
            return [(word,), _spelled(word)] if word in "ai" else [_spelled(word)]
        if found := re.fullmatch(r"([A-Z]{2,})'?s", run):
            *letters, last = _spelled(found[1])
            return [(*letters, last + "s"), *([(word,)] if is_known else [])]
        if run.isupper() and len(run) <= MAX_ACRONYM and "'" not in run:
            return [(word,), _spelled(run)] if is_known else [_spelled(run), (word,)]
        parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z']+", run)
        if 1 < len(parts) < 4 and not is_known:  # iPhone, YouTube, JavaScript
            separate = itertools.chain.from_iterable(self._letters(part)[0] for part in parts)
            return [(word,), tuple(separate)]
        return [(word,)]


def _spelled(word: str) -> Reading:
    return tuple(letter + "." for letter in word.lower() if letter != "'")


def _sign(sign: str, before: str, after: str) -> list[Reading]:
    """Read a symbol between two runs; a run is "" if the token begins or ends there."""
    is_inner = bool(before and after)
    if sign == "-" and not before[:1].isdigit():
        return options("|dash|hyphen" if is_inner else "minus|negative|")
    if sign in "'\"" and before[:1].isdigit():
        return options(UNITS[sign])
    is_end = sign in ".?" and not is_inner
    is_initial = sign == "." and len(before) == len(after) == 1
    return [()] if is_end or is_initial else options(SYMBOLS.get(sign, ""))


def _roman(core: str) -> list[Reading]:
    found = _ROMAN.fullmatch(core)
    if core == "I" or found is None:
        return []
    units = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX").index(found[2])
    value = 10 * len(found[1]) + units
    return [tuple(cardinal(value)), ("the", *ordinal(value)), _spelled(core)]


def _limited(readings: Iterable[Reading]) -> Slot:
    return tuple(dict.fromkeys(readings))[:MAX_READINGS]


def _fold(runs: list[list[Reading]]) -> tuple[Slot, ...]:
    """Merge each slot that may be silent with its neighbour, so that no slot may be silent."""
    slots: list[list[Reading]] = []
    for run in runs:
        if slots and (() in run or () in slots[-1]):
            slots[-1] = [left + right for left in slots[-1] for right in run][: 4 * MAX_READINGS]
        else:
            slots.append(run)
    if slots and () in slots[-1]:
        slots[-1] = [reading for reading in slots[-1] if reading]
    return tuple(_limited(slot) for slot in slots if slot)
