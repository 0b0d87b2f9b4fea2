"""Word errors and word-time errors as counts that can be summed over files."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import jiwer

from asr.evaluation.normalise import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asr.types import Word

COLLAR = 0.2
"""Seconds; a time with a smaller error counts as correct."""


@dataclass(frozen=True)
class Pooled:
    """Counts that can be added."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class WordScore(Pooled):
    """Counts of the WER alignment. Scores of several files can be added."""

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    @property
    def n_reference(self) -> int:
        """Number of tokens in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def wer(self) -> float | None:
        """Errors per reference word; above 1 if there are many insertions.

        None for an empty reference, where jiwer returns the number of insertions. These insertions
        still count in sums over files.
        """
        return ratio(self.substitutions + self.insertions + self.deletions, self.n_reference)


@dataclass(frozen=True)
class TimeScore(Pooled):
    """Time errors of the matched words. Read them together with `matched_share`.

    Attributes:
        n_reference: number of reference words with a time.
        start_errors: seconds by which each matched word starts too late; negative if too early.
        end_errors: the same for the ends.
    """

    n_reference: int = 0
    start_errors: tuple[float, ...] = ()
    end_errors: tuple[float, ...] = ()

    @property
    def matched(self) -> int:
        """Number of reference words whose times were compared."""
        return len(self.start_errors)

    @property
    def matched_share(self) -> float | None:
        """Matched words as a fraction of the timed reference words."""
        return ratio(self.matched, self.n_reference)

    @property
    def start_median(self) -> float | None:
        """Median absolute error of the starts in seconds."""
        return _quantile(self.start_errors, 0.5)

    @property
    def start_p95(self) -> float | None:
        """95th percentile of the absolute errors of the starts in seconds."""
        return _quantile(self.start_errors, 0.95)

    @property
    def end_median(self) -> float | None:
        """Median absolute error of the ends in seconds."""
        return _quantile(self.end_errors, 0.5)

    def within(self, collar: float = COLLAR) -> tuple[float | None, float | None]:
        """Fractions of matched words whose start, and whose end, is within `collar` seconds."""
        good = [
            sum(abs(e) <= collar for e in each) for each in (self.start_errors, self.end_errors)
        ]
        return ratio(good[0], self.matched), ratio(good[1], self.matched)


def ratio(part: float, whole: float) -> float | None:
    """The quotient, or None if the whole is 0."""
    return part / whole if whole else None


def _quantile(errors: Sequence[float], share: float) -> float | None:
    """Quantile by nearest rank, which is always a measured value."""
    ranked = sorted(map(abs, errors))
    return ranked[math.ceil(share * len(ranked)) - 1] if ranked else None


def score_words(reference: str, hypothesis: str) -> WordScore:
    """Compare two texts after normalising both."""
    found = _align(normalise(reference), normalise(hypothesis))
    return WordScore(found.hits, found.substitutions, found.insertions, found.deletions)


def score_times(reference: Iterable[Word], hypothesis: Iterable[Word]) -> TimeScore:
    """Compare the times of words that the WER alignment matches.

    A written word may have several tokens. It matches if all its tokens match, its first token
    starts a hypothesis word, and its last token ends one. So "25" matches
    "twenty five", but "twenty" in the reference does not match half of "twenty-five"; that lowers
    the matched share.
    """
    (ref_tokens, ref_words), (hyp_tokens, hyp_words) = _spread(reference), _spread(hypothesis)
    hits = {
        chunk.ref_start_idx + offset: chunk.hyp_start_idx + offset
        for chunk in _align(ref_tokens, hyp_tokens).alignments[0]
        if chunk.type == "equal"
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx)
    }
    starts = {first: word.start for first, _, word in hyp_words}
    ends = {last: word.end for _, last, word in hyp_words}
    errors = [
        (round(starts[hits[first]] - word.start, 6), round(ends[hits[last]] - word.end, 6))
        for first, last, word in ref_words
        if all(token in hits for token in range(first, last + 1))
        if hits[first] in starts and hits[last] in ends
    ]
    return TimeScore(len(ref_words), tuple(s for s, _ in errors), tuple(e for _, e in errors))


def _align(reference: Sequence[str], hypothesis: Sequence[str]) -> jiwer.WordOutput:
    return jiwer.process_words(" ".join(reference), " ".join(hypothesis))


def _spread(words: Iterable[Word]) -> tuple[list[str], list[tuple[int, int, Word]]]:
    """The tokens of all words, and (first token, last token, word) of each word that has tokens."""
    tokens: list[str] = []
    spans = []
    for word in words:
        before = len(tokens)
        tokens += normalise(word.text)
        if len(tokens) > before:
            spans.append((before, len(tokens) - 1, word))
    return tokens, spans
