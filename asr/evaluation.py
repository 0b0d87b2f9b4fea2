"""How good a transcript is: word errors, word-time errors, speed. Knows no engine and no pipeline.

Counts are pooled, rates are derived: a WER over files is the sum of errors over the sum of words,
and RTFx is audio seconds over wall seconds, never a mean of ratios. A file that fails is not
left out: its words count as deletions, its wall time counts, and it is listed.

Before scoring, both sides are turned into spoken tokens, one written word at a time:

- NFKC, casefolded; punctuation dropped except apostrophes inside words; hyphens split words;
- numbers in English words: ``1,234``, ``-3.5``, ``21st``, ``$3.50``, ``50%``. Four digits that look
  like a year are read like one, a leading zero or seven digits without commas one by one;
- the abbreviations of `_ABBREVIATIONS`, ``&`` as "and", initials joined (``U.S.`` is "us").

It does not expand contractions, unify spellings or compounds (colour, good bye), drop fillers, put
"and" inside numbers, or read clock times, fractions, Roman numerals, ``1980s``, ``4k`` and what
depends on the next word (``St.``, ``$2 million``). Other scripts pass unchanged, unsegmented.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import time
import unicodedata
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jiwer

from asr.config import check
from asr.errors import AsrError, InvalidOption
from asr.types import Transcript, Word, ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

NORMALISER = "NFKC, casefold, no punctuation, numbers in English words, one word at a time"
COLLAR = 0.2
"""Seconds by which a word's time may be off and still count as right."""

_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor", "jr": "junior",
    "sr": "senior", "vs": "versus", "etc": "et cetera", "ok": "okay",
}  # fmt: skip
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
).split()
_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
_COINS = {
    "$": (("dollar", "dollars"), ("cent", "cents")),
    "£": (("pound", "pounds"), ("penny", "pence")),
    "€": (("euro", "euros"), ("cent", "cents")),
}
_NUMBER = re.compile(
    r"(?<![^\W_])(?P<minus>(?<!\S)[-−])?(?P<coin>[$£€])?"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.(?P<part>[0-9]+))?"
    r"(?P<ordinal>st|nd|rd|th)?(?P<percent>%)?(?![^\W_])"
)


def normalise(text: str) -> list[str]:
    """The spoken tokens of a text. Applying it to its own output changes nothing."""
    return list(chain.from_iterable(_spoken(written) for written in text.split()))


def _spoken(written: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", written).casefold())
    said = _NUMBER.sub(_say_number, re.sub("[‘’ʼ]", "'", folded)).replace("&", " and ")  # noqa: RUF001
    joined = re.sub(r"(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)", "", said)
    letters = "".join(c if unicodedata.category(c)[0] in "LMN" or c == "'" else " " for c in joined)
    pieces = (piece.strip("'") for piece in letters.split())
    return " ".join(_ABBREVIATIONS.get(piece, piece) for piece in pieces).split()


def _say_number(found: re.Match[str]) -> str:
    words, part, coin = _integer(found["whole"]), found["part"] or "", found["coin"]
    if coin and len(part) in (0, 2):
        words = _money(int(found["whole"].replace(",", "")), int(part or 0), coin)
    elif part:
        words += ["point", *(_ONES[int(digit)] for digit in part)]
        words += [_COINS[coin][0][1]] if coin else []
    if found["ordinal"]:
        words[-1] = _ORDINALS.get(words[-1]) or re.sub("y$", "ie", words[-1]) + "th"
    minus, percent = found["minus"] and "minus", found["percent"] and "percent"
    return f" {' '.join(filter(None, (minus, *words, percent)))} "


def _integer(text: str) -> list[str]:
    """A year, a row of digits or a cardinal number."""
    value = int(text.replace(",", ""))
    if (text[0] == "0" and len(text) > 1) or ("," not in text and len(text) > 6):
        return [_ONES[int(digit)] for digit in text if digit != ","]
    if "," not in text and (1100 <= value <= 1999 or 2010 <= value <= 2099):
        century, year = divmod(value, 100)
        rest = _cardinal(year) if year else ["hundred"]
        return [*_cardinal(century), *(["oh"] if 0 < year < 10 else []), *rest]
    return _cardinal(value)


def _cardinal(value: int) -> list[str]:
    for size, name in _SCALES:
        if value >= size:
            return [*_cardinal(value // size), name, *(_cardinal(value % size) if value % size else [])]
    if value < 20:
        return [_ONES[value]]
    return [_TENS[value // 10], *([_ONES[value % 10]] if value % 10 else [])]


def _money(whole: int, hundredths: int, coin: str) -> list[str]:
    counted = zip((whole, hundredths), _COINS[coin], strict=True)
    amounts = [[*_cardinal(n), one if n == 1 else many] for n, (one, many) in counted if n]
    return " and ".join(map(" ".join, amounts or [["zero", _COINS[coin][0][1]]])).split()


@dataclass(frozen=True, slots=True)
class WordScore:
    """Counts of the WER alignment; they add up over files."""

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    def __add__(self, other: WordScore) -> WordScore:
        return WordScore(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
        )

    @property
    def n_reference(self) -> int:
        """Spoken tokens of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def wer(self) -> float | None:
        """Errors per reference word, above 1 when much is inserted.

        None for an empty reference, which has no rate (jiwer gives the count of insertions there);
        its insertions still weigh in the files it is pooled with.
        """
        errors = self.substitutions + self.insertions + self.deletions
        return errors / self.n_reference if self.n_reference else None


@dataclass(frozen=True, slots=True)
class TimeScore:
    """Time errors of the matched words; they add up over files. Read them beside `matched_share`.

    Attributes:
        n_reference: words of the reference that have a time.
        start_errors: seconds by which each matched word starts late (early: negative).
        end_errors: the same for its end.
    """

    n_reference: int = 0
    start_errors: tuple[float, ...] = ()
    end_errors: tuple[float, ...] = ()

    def __add__(self, other: TimeScore) -> TimeScore:
        return TimeScore(
            self.n_reference + other.n_reference,
            self.start_errors + other.start_errors,
            self.end_errors + other.end_errors,
        )

    @property
    def matched(self) -> int:
        """Reference words whose times could be compared."""
        return len(self.start_errors)

    @property
    def matched_share(self) -> float | None:
        """Of the timed reference words."""
        return self.matched / self.n_reference if self.n_reference else None

    @property
    def start_median(self) -> float | None:
        """Median of the absolute start errors in seconds."""
        return _quantile(self.start_errors, 0.5)

    @property
    def start_p95(self) -> float | None:
        """95th percentile (nearest rank) of the absolute start errors in seconds."""
        return _quantile(self.start_errors, 0.95)

    @property
    def end_median(self) -> float | None:
        """Median of the absolute end errors in seconds."""
        return _quantile(self.end_errors, 0.5)

    @property
    def start_bias(self) -> float | None:
        """Median of the signed start errors: what a constant delay would show."""
        return statistics.median(self.start_errors) if self.start_errors else None

    def start_within(self, collar: float = COLLAR) -> float | None:
        """Share of matched words that start within `collar` seconds of the reference."""
        return _share_within(self.start_errors, collar)

    def end_within(self, collar: float = COLLAR) -> float | None:
        """Share of matched words that end within `collar` seconds of the reference."""
        return _share_within(self.end_errors, collar)


def _quantile(errors: Sequence[float], share: float) -> float | None:
    ranked = sorted(map(abs, errors))
    return ranked[math.ceil(share * len(ranked)) - 1] if ranked else None


def _share_within(errors: Sequence[float], collar: float) -> float | None:
    return sum(abs(error) <= collar for error in errors) / len(errors) if errors else None


def _align(reference: Iterable[str], hypothesis: Iterable[str]) -> jiwer.WordOutput:
    return jiwer.process_words(" ".join(reference), " ".join(hypothesis))


def score_words(reference: str, hypothesis: str) -> WordScore:
    """Compare two texts after normalising both."""
    found = _align(normalise(reference), normalise(hypothesis))
    return WordScore(found.hits, found.substitutions, found.insertions, found.deletions)


def score_times(reference: Sequence[Word], hypothesis: Sequence[Word]) -> TimeScore:
    """Compare the times of the words that the WER alignment takes for the same.

    A written word may be several tokens. It matches when all of them do and both its edges are
    edges of hypothesis words as well, so "25" compares with "twenty five"; the "twenty" of a
    reference cannot with the first half of "twenty-five", and lowers the matched share.
    """
    ours, theirs = _spans(reference), _spans(hypothesis)
    tokens = [[token for *_, spoken in spans for token in spoken] for spans in (ours, theirs)]
    hits = {
        chunk.ref_start_idx + offset: chunk.hyp_start_idx + offset
        for chunk in _align(*tokens).alignments[0]
        if chunk.type == "equal"
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx)
    }
    starts = {first: word.start for word, first, _ in theirs}
    ends = {first + len(spoken) - 1: word.end for word, first, spoken in theirs}
    errors = []
    for word, first, spoken in ours:
        last = first + len(spoken) - 1
        edges = starts.get(hits.get(first, -1)), ends.get(hits.get(last, -1))
        
