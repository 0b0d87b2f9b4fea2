"""Whether channels hold the same sound: dual mono, which telephone systems record as stereo.

The channels may differ in level and in the noise of their codecs, so samples are not compared but
correlated. Two people in two channels have a correlation near 0, even with some crosstalk.
"""

from __future__ import annotations

from typing import Final

import numpy as np

LIKE: Final = 0.95
"""Correlation from which on two channels hold the same sound."""


class LikenessMeter:
    """Correlates the first channel with the others, block by block."""

    def __init__(self) -> None:
        self._products = np.zeros(0)
        self._squares = np.zeros(0)

    def add(self, columns: np.ndarray) -> None:
        """Take the next samples, shape (n_channels, n_samples)."""
        if len(self._squares) != len(columns):
            self._products, self._squares = np.zeros((2, len(columns)))
        exact = columns.astype(np.float64)
        self._products += exact @ exact[0]
        self._squares += (exact * exact).sum(axis=1)

    @property
    def least(self) -> float | None:
        """The least correlation of the first channel and another one.

        None with a single channel, or if one is silent.
        """
        if len(self._squares) < 2 or not self._squares.all():
            return None
        correlations = self._products / np.sqrt(self._squares * self._squares[0])
        return float(np.abs(correlations[1:]).min())
