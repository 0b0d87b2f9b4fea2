"""The level of a recording, for the message that explains why no speech was found."""

from __future__ import annotations

import math

import numpy as np

from asr.audio.silence import is_silence


class LevelMeter:
    """Measures the RMS of float samples that are added block by block."""

    def __init__(self) -> None:
        self._n_samples = 0
        self._sum = 0.0

    def add(self, samples: np.ndarray) -> None:
        """Add samples of shape (n,)."""
        self._n_samples += len(samples)
        if not is_silence(samples):
            self._sum += float(np.square(samples, dtype=np.float64).sum())

    @property
    def dbfs(self) -> float | None:
        """Decibels relative to an RMS of 1.0; None for digital silence."""
        return 10 * math.log10(self._sum / self._n_samples) if self._sum > 0 else None
