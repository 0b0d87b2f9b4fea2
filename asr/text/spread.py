"""Give times to words that have none: divide a span of time among them.

No other module does this. The aligners and `asr.align.longform` give each word time in proportion
to its letters. Callers that know only the number of words use equal weights.
"""

from __future__ import annotations

from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING

from asr.types import Word

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def n_letters(text: str) -> int:
    """Count letters and digits; at least 1, so that a lone dash gets some time too."""
    return max(1, sum(character.isalnum() for character in text))


def divide(start: float, end: float, weights: Sequence[int]) -> list[tuple[float, float]]:
    """Divide [start, end] into consecutive parts that are proportional to the weights.

    Args:
        start: in any unit, usually seconds.
        end: in the same unit, not before `start`.
        weights: one positive number for each part; may be empty.
    """
    if not weights:
        return []
    sums = list(accumulate(weights, initial=0))
    # Rounding must not carry the last edge past the end.
    edges = [min(start + (end - start) * n / sums[-1], end) for n in sums]
    return list(pairwise(edges))


def spread_words(
    texts: Sequence[str], start: float, end: float, confidence: float | None = None
) -> list[Word]:
    """Place words one after another from start to end, each in proportion to its letters.

    Args:
        texts: the words; at least one.
        start: seconds.
        end: seconds, not before `start`.
        confidence: of every word.
    """
    spans = divide(start, end, [n_letters(text) for text in texts])
    return [
        Word(text, begin, stop, confidence, "interpolated")
        for text, (begin, stop) in zip(texts, spans, strict=True)
    ]


def fill_missing(
    texts: Sequence[str],
    words: Sequence[Word | None],
    start: float,
    end: float,
    spread: Callable[[Sequence[str], float, float], Sequence[Word]] = spread_words,
) -> list[Word]:
    """Spread the words without a time over the span between their timed neighbours.

    Args:
        texts: all words.
        words: for each text its timed word, or None.
        start: seconds; where words before the first timed one begin.
        end: seconds; where words after the last timed one end.
        spread: places a run of words between two times.
    """
    filled: list[Word] = []
    for is_missing, run in groupby(range(len(texts)), key=lambda index: words[index] is None):
        indexes = list(run)
        if not is_missing:
            filled += [word for index in indexes if (word := words[index]) is not None]
            continue
        begin = filled[-1].end if filled else start
        following = words[indexes[-1] + 1] if indexes[-1] + 1 < len(texts) else None
        stop = max(begin, following.start if following else end)
        filled += spread(texts[indexes[0] : indexes[-1] + 1], begin, stop)
    return filled
