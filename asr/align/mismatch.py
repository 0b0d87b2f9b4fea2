"""Find where a known text and its recording differ.

Two witnesses judge each word of the text: the aligner's confidence, and the recogniser, which heard
this word or something else. Each judgement is a log-likelihood ratio in nats, positive if the word
was not said. Single judgements prove little, because words are mumbled and recognisers err. So the
evidence is summed over neighbouring words, and a run of words is reported if its sum is large.

Speech that the text lacks is found in the same way: in runs of recognised words that are not in the
text, and in the gaps that the aligner reports.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from asr.align.letters import shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asr.align.longform import Plan
    from asr.types import Word

MIN_UNSAID: Final = 6.0
"""Evidence in nats from which on a run of words was not said."""
MIN_UNWRITTEN: Final = 6.0
"""Evidence in nats from which on a run of recognised words is not in the text."""
NEAR_SECONDS: Final = 0.5
"""How far a recognised word may lie outside a gap that the aligner reports."""
UNSAID_CONFIDENCE: Final = 0.05
"""Largest confidence of a word that was not said."""

_CONFIDENCES: Final = (0.05, 0.2, 0.45, 0.7, 0.85, 0.925, 0.96, 0.985)
_ACOUSTIC: Final = (4.0, 2.8, 2.1, 1.9, 1.5, 0.4, -0.5, -2.0)
"""Evidence for confidences of the embedded aligner: the log of how much more often words of
another text have this confidence than words that were said."""
_MISSED: Final = 2.0
"""Evidence if the recogniser heard something else."""
_HEARD: Final = ((2, -1.2), (4, -1.6), (6, -2.4), (99, -3.5))
"""Evidence if it heard the word, by the number of letters: short words are heard by chance."""


MIN_SUSPICIOUS: Final = 2.5
"""Evidence of the aligner alone from which on it is worth asking the recogniser."""
MIN_MEAN: Final = 0.8
"""The same for the mean confidence of another aligner."""
UNREAD: Final = 1.3
"""Suspicion of a word without a confidence. The aligner cannot read other scripts, so several such
words in a row are a reason to ask the recogniser, but no evidence."""
MIN_COMMON: Final = 0.35
"""Smallest share of the letters of a text that the recogniser also hears if it was said."""


class Span(NamedTuple):
    """Words [first, last), and (start, end) in seconds."""

    first: int
    last: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where a text and a recording differ.

    Attributes:
        unsaid: words of the text that were not said, and the time in which they should have been.
        unwritten: (start, end) in seconds of speech that the text lacks.
        is_other: next to nothing of the text was recognised.
    """

    unsaid: tuple[Span, ...] = ()
    unwritten: tuple[tuple[float, float], ...] = ()
    is_other: bool = False


def is_suspicious(words: Sequence[Word], *, is_calibrated: bool) -> bool:
    """Whether the aligner's confidences give a reason to ask the recogniser, too."""
    measured = [word.confidence for word in words if word.confidence is not None]
    if not is_calibrated:
        return not measured or sum(measured) < MIN_MEAN * len(words)
    doubts = [UNREAD if word.confidence is None else acoustic(word) for word in words]
    return any(_spans(words, doubts, MIN_SUSPICIOUS))


def compare(
    words: Sequence[Word],
    heard: Sequence[Word] | None,
    gaps: Iterable[tuple[float, float]] = (),
    *,
    is_calibrated: bool,
) -> Mismatch:
    """Compare the words of a text, which have times, with what a recogniser heard.

    Args:
        words: of the text, in order.
        heard: recognised words; None if nothing was recognised because nothing was in doubt.
        gaps: (start, end) of speech in which the aligner found no word of the text.
        is_calibrated: whether the confidences are those of the embedded aligner, and measured for
            the language of the text.
    """
    against = [acoustic(word) if is_calibrated else 0.0 for word in words]
    if heard is None:
        return Mismatch(tuple(_spans(words, against, MIN_UNSAID)), tuple(gaps))
    ours, theirs = shares([word.text for word in words], heard)
    total = [a + _textual(*share) for a, share in zip(against, ours, strict=True)]
    n_letters = sum(n for _, n in ours)
    is_rare = sum(n for n, _ in ours) < MIN_COMMON * n_letters
    is_other = is_rare and sum(total) > 0 and len(heard) > 0
    unsaid = [_whole(words)] if is_other else list(_spans(words, total, MIN_UNSAID))
    lacking = [_textual(*share) for share in theirs]
    found = [(span.start, span.end) for span in _spans(heard, lacking, MIN_UNWRITTEN)]
    extra = sorted(it.midpoint for it, score in zip(heard, lacking, strict=True) if score > 0)
    found += [gap for gap in gaps if _has_any(gap, extra)]
    return Mismatch(tuple(unsaid), tuple(merged(found)), is_other)


def _whole(words: Sequence[Word]) -> Span:
    return Span(0, len(words), words[0].start, max(word.end for word in words))


def acoustic(word: Word) -> float:
    """The evidence of the embedded aligner's confidence."""
    if word.confidence is None:
        return 0.0
    return float(np.interp(word.confidence, _CONFIDENCES, _ACOUSTIC))


def _textual(n_found: int, n_letters: int) -> float:
    if n_letters == 0:
        return 0.0
    if n_found == n_letters:
        return next(score for most, score in _HEARD if n_letters <= most or most == 99)
    return _MISSED if n_found <= 0.65 * n_letters else 0.0


def _spans(words: Sequence[Word], evidence: Sequence[float], least: float) -> Iterator[Span]:
    """Yield the runs with the most evidence, if it is at least `least`.

    A run ends where its sum has fallen by `least`, or to zero.
    """
    total = peak = 0.0
    first = last = 0
    for place, score in enumerate([*evidence, -np.inf]):
        total += score
        if total > peak:
            peak, last = total, place + 1
        if total <= max(0.0, peak - least):
            if peak >= least:
                end = max(word.end for word in words[first:last])
                yield Span(first, last, words[first].start, end)
            total = peak = 0.0
            first = place + 1


def _has_any(gap: tuple[float, float], times: Sequence[float]) -> bool:
    """Whether one of the sorted times lies in or near a gap."""
    place = bisect_left(times, gap[0] - NEAR_SECONDS)
    return place < len(times) and times[place] <= gap[1] + NEAR_SECONDS


def merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge spans that overlap or nearly touch."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + NEAR_SECONDS:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def joined(mismatch: Mismatch, plan: Plan, words: Sequence[Word]) -> Mismatch:
    """Add what the plan of a long recording has found."""
    tokens = {token for span in mismatch.unsaid for token in range(span.first, span.last)}
    tokens |= {token for first, last in plan.unsaid for token in range(first, last)}
    unsaid: list[Span] = []
    for token in sorted(tokens):
        word = words[token]
        if unsaid and unsaid[-1].last == token:
            before = unsaid.pop()
            end = max(before.end, word.end)
            unsaid.append(Span(before.first, token + 1, before.start, end))
        else:
            unsaid.append(Span(token, token + 1, word.start, word.end))
    unwritten = merged([*mismatch.unwritten, *plan.unwritten])
    return replace(mismatch, unsaid=tuple(unsaid), unwritten=tuple(unwritten))


def without_trust(words: Sequence[Word], unsaid: Iterable[Span]) -> list[Word]:
    """Mark words that were not said: their times are estimates, and their confidence is low."""
    marked = list(words)
    for span in unsaid:
        for place in range(span.first, span.last):
            confidence = min(words[place].confidence or 0.0, UNSAID_CONFIDENCE)
            marked[place] = replace(words[place], confidence=confidence, timing="interpolated")
    return marked
