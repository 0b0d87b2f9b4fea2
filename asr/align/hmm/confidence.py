"""The confidence of a word: the probability that it was said where it was found.

The table below maps a word's mean log-likelihood ratio against the phone-loop background model to
the share of such words that were right. A word is right if it was said and starts within 0.2 s of
where it was found. ``python -m benchmarks.confidence`` measured the table on texts in which one
word in ten was wrong. In a text with fewer errors, confidences are too low.
"""

from __future__ import annotations

from typing import Final

import numpy as np

SKIPPED_CONFIDENCE: Final = 0.09
"""Confidence of a word that the search skipped."""
_KNOTS: Final = (
    (-8.0, 0.02), (-5.0, 0.15), (-4.0, 0.4), (-3.0, 0.65), (-2.0, 0.81), (-1.5, 0.9), (-1.0, 0.94),
    (0.0, 0.965), (1.0, 0.99), (2.0, 0.993),
)  # fmt: skip
"""Pairs of a word's mean log-likelihood ratio and the share of such words that are right."""


def confidence(scores: np.ndarray) -> float:
    """Look up the share of right words among those with the same mean score.

    Args:
        scores: the log-likelihood ratio of each frame of the word.
    """
    ratios, shares = zip(*_KNOTS, strict=True)
    return round(float(np.interp(scores.mean(), ratios, shares)), 3)
