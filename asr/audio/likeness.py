"""Whether channels hold the same sound: dual mono, which telephone systems record as stereo.

The channels may differ in level, polarity, delay and in the noise of their codecs, so samples are
not compared but correlated, at all delays up to `MAX_DELAY`. Two people in two channels have a
correlation near 0, even with some crosstalk. A DC offset or a hum below `LOWEST_HZ`, which
unrelated channels may share, does not count. A hum above it does, if it is louder than the speech.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from asr.types import SAMPLE_RATE

LIKE: Final = 0.9
"""Correlation from which on two channels hold the same sound. Noise 10 dB below the speech, in both
channels, leaves 0.91."""
MAX_DELAY: Final = 0.09
"""Seconds."""
STEP: Final = 2
"""Samples whose mean is one value. The energy of speech is mostly below 4 kHz."""
LENGTH: Final = 32_000
"""Values of a block, 4 s. The part of a block that a delay cuts off lowers the correlation."""
N_FFT: Final = 32_768
"""The zeros behind a block are longer than `MAX_DELAY`, so that its ends do not meet."""
LOWEST_HZ: Final = 100.0
FINER: Final = 2
"""Delays between two values are found by interpolation in as many steps."""


class LikenessMeter:
    """Correlates the first channel with the others.

    It adds up the spectra of blocks, so memory does not grow with the recording.
    """

    def __init__(self) -> None:
        self._waiting = np.zeros((0, 0), np.float32)
        self._cross = np.zeros((0, 0), np.complex128)
        self._powers = np.zeros(0)

    def add(self, columns: np.ndarray) -> None:
        """Take the next samples, shape (n_channels, n_samples)."""
        if len(self._powers) != len(columns):
            self._waiting = np.zeros((len(columns), 0), np.float32)
            self._cross = np.zeros((len(columns), N_FFT // 2 + 1), np.complex128)
            self._powers = np.zeros(len(columns))
        if len(columns) < 2:
            return
        self._waiting = np.concatenate((self._waiting, columns), axis=1)
        size = STEP * LENGTH
        while self._waiting.shape[1] >= size:
            self._count(self._waiting[:, :size])
            self._waiting = self._waiting[:, size:]

    def _count(self, samples: np.ndarray) -> None:
        """Add a block of at most ``STEP * LENGTH`` samples."""
        whole = samples[:, : samples.shape[1] // STEP * STEP]
        values = whole.reshape(len(whole), -1, STEP).mean(axis=2, dtype=np.float64)
        values -= values.mean(axis=1, keepdims=True) if values.size else 0
        spectra = np.fft.rfft(values, N_FFT)
        spectra[:, : round(LOWEST_HZ * N_FFT * STEP / SAMPLE_RATE)] = 0
        spectra[:, -1] = 0
        self._cross += spectra * spectra[0].conj()
        self._powers += (np.abs(spectra) ** 2).sum(axis=1)

    @property
    def least(self) -> float | None:
        """The least correlation of the first channel and another one, each at its best delay.

        None with a single channel, or if one is silent. It ends the last block, so it is for the
        end of the recording.
        """
        if len(self._powers) < 2:
            return None
        self._count(self._waiting)
        self._waiting = self._waiting[:, :0]
        if not self._powers.all():
            return None
        # A spectrum holds half of the frequencies, so the products are twice its sum.
        products = np.fft.irfft(self._cross[1:], FINER * N_FFT) * (FINER * N_FFT / 2)
        n_delays = round(MAX_DELAY * FINER * SAMPLE_RATE / STEP)
        near = np.concatenate((products[:, : n_delays + 1], products[:, -n_delays:]), axis=1)
        levels = np.sqrt(self._powers[1:] * self._powers[0])
        return float((np.abs(near).max(axis=1) / levels).min())
