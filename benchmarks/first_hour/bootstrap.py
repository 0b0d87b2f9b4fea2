"""Confidence intervals of WER, and of the difference of two, by resampling whole clips.

Clips are drawn with replacement, because the errors of one clip depend on each other. The
difference is paired: both arms heard the same clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.evaluation import WordScore

ROUNDS: Final = 2000
LEVEL: Final = 0.95
UNCLEAR: Final = 0.01
MIN_CLIPS: Final = 10
"""With fewer clips nothing is called significant."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95% confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """The WER of the second arm minus that of the first.

    Attributes:
        p: two-sided p-value of "no difference".
    """

    p: float
    n_clips: int

    @property
    def is_significant(self) -> bool:
        """Whether chance explains the difference in fewer than one of twenty cases."""
        return self.p < 1 - LEVEL and self.n_clips >= MIN_CLIPS

    @property
    def is_unclear(self) -> bool:
        """Whether the second arm looks worse, but the clips are too few to tell."""
        return not self.is_significant and self.value > UNCLEAR


def wer_interval(scores: Sequence[WordScore]) -> Interval | None:
    """The WER of all clips with its interval, or None without reference words."""
    errors, words = _errors(scores), _words(scores)
    if not words.sum():
        return None
    drawn = _drawn(len(scores))
    low, high = _bounds(drawn @ errors / np.maximum(drawn @ words, 1))
    return Interval(float(errors.sum() / words.sum()), low, high)


def difference(first: Sequence[WordScore], second: Sequence[WordScore]) -> Difference | None:
    """Compare two arms on the same clips in the same order; None without reference words."""
    words = _words(first)
    if not words.sum():
        return None
    more = _errors(second) - _errors(first)
    drawn = _drawn(len(first))
    values = drawn @ more / np.maximum(drawn @ words, 1)
    low, high = _bounds(values)
    p = 2 * min(float(np.mean(values <= 0)), float(np.mean(values >= 0)))
    return Difference(float(more.sum() / words.sum()), low, high, min(p, 1.0), len(first))


@lru_cache(8)
def _drawn(n: int) -> np.ndarray:
    """How often each clip is in each sample, shape (ROUNDS, n)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), ROUNDS)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _errors(scores: Sequence[WordScore]) -> np.ndarray:
    return np.array([s.substitutions + s.insertions + s.deletions for s in scores])


def _words(scores: Sequence[WordScore]) -> np.ndarray:
    return np.array([s.n_reference for s in scores])
