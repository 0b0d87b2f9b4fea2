"""Merge the words that two chunks heard in their overlap.

`merge_by_time` compares the times of the words. Where the times are only interpolated,
`merge_by_text` compares the texts of the words. Both keep one copy of every word that both
chunks heard.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from asr.text.bare import bare
from asr.text.numerals import cardinal
from asr.text.spread import divide
from asr.types import SAMPLE_RATE, Chunk, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MATCH_SECONDS: Final = 0.3
"""Two chunks may time the same word differently by at most this."""
GUESSED_SECONDS: Final = 2.5
"""The time of an interpolated word may be wrong by at most this. Near a cut the error is usually
smaller, because the first and the last word of a chunk cannot lie outside the chunk."""
SKIPPED: Final = 0.5
"""Penalty for a word that only one side has; a word that both have gains 1."""
HALF_HEARD: Final = 0.1
"""This smaller penalty replaces `SKIPPED` for the last word of the left side and the first word of
the right side, because the cut may have halved them."""
MAX_SHARED: Final = 64
"""At most this many words are compared on each side: about ten for each of the 6 s that two chunks
may share (1 s of overlap, and `GUESSED_SECONDS` before and after it). The cost is quadratic, and a
hallucinated loop may put thousands of words into this time."""
ENOUGH: Final = 3
"""Upper limit for the gain of an alignment. This many words are equal by chance only where the
speaker repeats words, and in a repetition more equal words are no better evidence."""

_WHOLE_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class HeardWord(NamedTuple):
    """A word at its time in the recording.

    Attributes:
        word: with absolute times.
        avg_logprob: of the chunk that heard it, or None.
    """

    word: Word
    avg_logprob: float | None


def merge_by_time(left: list[HeardWord], right: list[HeardWord], chunk: Chunk) -> list[HeardWord]:
    """Merge the words of two chunks by their times.

    Each side is most reliable far from its cut. So the seam is a word that both sides heard: the
    one nearest to the middle of the overlap. Words up to the seam come from the left, later words
    from the right.

    Args:
        left: words of the earlier chunks.
        right: words of `chunk`.
        chunk: the later chunk.
    """
    middle = (chunk.start_sample + chunk.overlap / 2) / SAMPLE_RATE
    end = (chunk.start_sample + chunk.overlap) / SAMPLE_RATE
    first, last = _after(left, chunk.start - MATCH_SECONDS), _before(right, end + MATCH_SECONDS)
    ours, theirs = left[first:], right[:last]

    def from_middle(pair: tuple[int, int]) -> float:
        i, j = pair
        return abs(ours[i].word.midpoint + theirs[j].word.midpoint - 2 * middle)

    if pairs := _same_words(ours, theirs):
        i, j = min(pairs, key=from_middle)
        shared = ours[: i + 1] + theirs[j + 1 :]
    else:
        shared = _one_at_a_time(ours, theirs, middle)
    return left[:first] + shared + right[last:]


def _after(heard: Sequence[HeardWord], seconds: float) -> int:
    """Index of the first word that ends after `seconds`."""
    return bisect_right(heard, seconds, key=lambda it: it.word.end)


def _before(heard: Sequence[HeardWord], seconds: float) -> int:
    """Index after the last word that starts before `seconds`."""
    return bisect_left(heard, seconds, key=lambda it: it.word.start)


def _is_interpolated(heard: HeardWord) -> bool:
    return heard.word.timing == "interpolated"


def slack(left: Sequence[HeardWord], start: float) -> float:
    """The limit in seconds: a word that ends this long before `start` may be in the next chunk too.

    The merge with the next chunk sees no word that was not there when words were released. So the
    value cannot have grown, and no word that the merge needs has been released.

    Args:
        left: the words so far.
        start: seconds, where the next chunk starts.
    """
    near = left[_after(left, start - GUESSED_SECONDS) :]
    return GUESSED_SECONDS if any(map(_is_interpolated, near)) else MATCH_SECONDS


def has_measured_times(left: Sequence[HeardWord], right: Sequence[HeardWord], chunk: Chunk) -> bool:
    """Whether words can be merged by time.

    True if no word near the overlap is interpolated, or if both sides measured the same word.
    """
    end = chunk.start + chunk.overlap / SAMPLE_RATE
    ours = left[_after(left, chunk.start - GUESSED_SECONDS) :]
    theirs = right[: _before(right, end + GUESSED_SECONDS)]
    if not any(map(_is_interpolated, chain(ours, theirs))):
        return True
    ours = ours[_after(ours, chunk.start - MATCH_SECONDS) :]
    theirs = theirs[: _before(theirs, end + MATCH_SECONDS)]
    pairs = _same_words(ours, theirs)
    return any(not _is_interpolated(ours[i]) and not _is_interpolated(theirs[j]) for i, j in pairs)


def merge_by_text(
    left: list[HeardWord], right: list[HeardWord], chunk: Chunk, n_released: int
) -> tuple[list[HeardWord], list[HeardWord]]:
    """Decide by the texts which words of each side to keep, where times are interpolated.

    The seam is a word that both sides heard. If possible, it is not before the last released word.
    Of several such words, the one whose two times differ least is the seam. Where no word matches,
    both sides keep all their words: a repeated word is better than a lost one.

    Args:
        left: words of the earlier chunks.
        right: words of `chunk`.
        chunk: the later chunk.
        n_released: how many words of `left` are already in segments; they are not returned.
    """
    end = chunk.start + chunk.overlap / SAMPLE_RATE
    first = max(_after(left, chunk.start - slack(left, chunk.start)), len(left) - MAX_SHARED)
    theirs = right[: min(_before(right, end + GUESSED_SECONDS), MAX_SHARED)]
    if not any(map(_is_interpolated, theirs)):
        theirs = right[: min(_before(right, end + MATCH_SECONDS), MAX_SHARED)]
    pairs = [(first + i, j) for i, j in _same_texts(left[first:], theirs)]
    # an earlier seam would repeat words that are already released
    pairs = [(i, j) for i, j in pairs if i + 1 >= n_released] or pairs[-1:]
    if not pairs:
        return left[n_released:], right
    i, j = min(pairs, key=lambda pair: _apart(left[pair[0]], right[pair[1]]))
    return left[n_released : i + 1], right[j + 1 :]


def _same_texts(left: Sequence[HeardWord], right: Sequence[HeardWord]) -> Sequence[tuple[int, int]]:
    """Align a suffix of `left` with a prefix of `right`; return the indexes of equal words.

    This is the overlap alignment of genome assembly: words of `left` before it and words of
    `right` after it cost nothing. The times are inexact, but they choose between several alignments
    ("no, no, no"). An alignment that skips words may match by chance, and the skipped words would
    be lost. So its gain must exceed the mean time difference of its pairs in seconds.
    """
    texts = [_bare(heard.word.text) for heard in right]
    row: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ())]
    for j in range(len(right)):
        row.append((row[-1][0] - (SKIPPED if j else HALF_HEARD), ()))
    for i, ours in enumerate(left):
        text = _bare(ours.word.text)
        above, row = row, [(0.0, ())]
        for j in range(len(right)):
            skip_ours = SKIPPED if i + 1 < len(left) else HALF_HEARD
            skip_theirs = SKIPPED if j else HALF_HEARD
            paths = [
                (above[j + 1][0] - skip_ours, above[j + 1][1]),
                (row[j][0] - skip_theirs, row[j][1]),
            ]
            if text == texts[j]:
                paths.append((above[j][0] + 1, (*above[j][1], (i, j))))
            row.append(max(paths))
    found: Sequence[tuple[int, int]] = ()
    best = -math.inf
    for gain, pairs in row:
        if not pairs or any(more > gain and it[: len(pairs)] == pairs for more, it in row):
            continue  # an alignment that extends this one is better, whatever its times
        apart = sum(_apart(left[i], right[j]) for i, j in pairs) / len(pairs)
        worth = min(gain, ENOUGH) - apart
        if worth > best and (worth > 0 or gain == len(pairs)):
            found, best = pairs, worth
    return found


def _apart(a: HeardWord, b: HeardWord) -> float:
    return abs(a.word.midpoint - b.word.midpoint)


def concatenated(left: list[HeardWord], right: list[HeardWord], earliest: float) -> list[HeardWord]:
    """All words of both sides, in order.

    Where words of the two sides cross in time and all of them are interpolated, they share that
    time evenly.

    Args:
        left: words of the earlier chunks.
        right: words of the later chunk.
        earliest: seconds; no word starts before this.
    """
    end = max([earliest, *(heard.word.end for heard in left[-1:])])
    first, last = _after(left, right[0].word.start if right else end), _before(right, end)
    crossing = left[first:] + right[:last]
    if not last or not all(map(_is_interpolated, crossing)):
        return left + right  # the stitcher then moves only the words that are out of order
    begin = max(earliest, min(heard.word.start for heard in crossing))
    end = max(end, right[last - 1].word.end)
    spans = divide(begin, end, [1] * len(crossing))
    spread = [
        heard._replace(word=replace(heard.word, start=start, end=stop))
        for heard, (start, stop) in zip(crossing, spans, strict=True)
    ]
    return left[:first] + spread + right[last:]


def without_released(released: Sequence[HeardWord], merged: Iterable[HeardWord]) -> list[HeardWord]:
    """The merged words that are not released yet.

    If a released word is not in `merged`, a merged word at the same time is another reading of it
    and is left out.
    """
    merged = list(merged)
    replaced = [it for it in released if it not in merged]
    return [
        it
        for it in merged
        if it not in released and not any(_same_time(it.word, other.word) for other in replaced)
    ]


def _same_words(
    left: Sequence[HeardWord], right: Sequence[HeardWord]
) -> tuple[tuple[int, int], ...]:
    """Align both sides by text and time; return the indexes of equal words.

    An edit alignment in which a pair costs the distance of its midpoints. It considers all words
    together, which tells the words of "no, no, no" apart.
    """
    skip = MATCH_SECONDS / 2
    texts = [_bare(heard.word.text) for heard in right]
    row: list[tuple[float, tuple[tuple[int, int], ...]]]
    row = [(skip * j, ()) for j in range(len(right) + 1)]
    for i, ours in enumerate(left):
        text = _bare(ours.word.text)
        above, row = row, [(row[0][0] + skip, ())]
        for j, theirs in enumerate(right):
            paths = [(cost + skip, pairs) for cost, pairs in (above[j + 1], row[j])]
            distance = abs(ours.word.midpoint - theirs.word.midpoint)
            if text == texts[j] and distance <= MATCH_SECONDS:
                paths.append((above[j][0] + distance, (*above[j][1], (i, j))))
            row.append(min(paths))
    return row[-1][1]


def _bare(text: str) -> str:
    """The word without case and punctuation; a whole number is spelled in English.

    Two chunks may write the same word as "8" and "eight".
    """
    word = bare(text)
    return "".join(cardinal(int(word))) if _WHOLE_NUMBER.fullmatch(word) else word


def _one_at_a_time(
    left: Sequence[HeardWord], right: Sequence[HeardWord], middle: float
) -> list[HeardWord]:
    """Merge two sides that have no word in common.

    If both sides heard a word at the same time, the left one is kept before the middle, and the
    right one after it. Words that only one side heard are kept.
    """

    def is_among(heard: HeardWord, others: Iterable[HeardWord]) -> bool:
        return any(_same_time(heard.word, other.word) for other in others)

    ours = [it for it in left if it.word.midpoint < middle or not is_among(it, right)]
    theirs = [it for it in right if not is_among(it, ours)]
    return sorted(ours + theirs, key=lambda heard: heard.word.midpoint)


def _same_time(a: Word, b: Word) -> bool:
    return a.start <= b.midpoint <= a.end or b.start <= a.midpoint <= b.end
