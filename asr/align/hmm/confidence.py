"""How likely a word is to have been said where it was found.

Measured: of words whose frames fit so much better or worse than a free loop of phones, how many are
right, that is, in what was said, and within 0.2 s? ``python -m benchmarks.confidence`` made the
table below, on texts in which one word in ten was wrong; where fewer words are wrong, a word is
likelier to be right than it says.
"""

from __future__ import annotations

from typing import Final

import numpy as np

PASSED_OVER: Final = 0.09
"""Of a word that the audio is better explained without."""
_KNOTS: Final = (
    (-8.0, 0.02), (-5.0, 0.15), (-4.0, 0.4), (-3.0, 0.65), (-2.0, 0.81), (-1.5, 0.9), (-1.0, 0.94),
    (0.0, 0.965), (1.0, 0.99), (2.0, 0.993),
)  # fmt: skip
"""Mean log-likelihood ratio of the word's frames, share of such words that are right."""


def confidence(scores: np.ndarray) -> float:
    """The share of words that are right among those that fit as well.

    Args:
        scores: the log-likelihood ratio of each frame of the word.
    """
    ratios, shares = zip(*_KNOTS, strict=True)
    return round(float(np.interp(scores.mean(), ratios, shares)), 3)
