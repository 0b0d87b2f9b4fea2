"""Samples above full scale, and samples that are not numbers.

A file of floats may hold any value: amplified speech at +24 dB, 16-bit integers that nobody divided
by 32,768, NaN, infinity. Clipping would turn such speech into garbage. `scaled` divides it instead,
by a factor that it finds while the samples stream by.

Samples up to `TOLERATED` stay as they are and are clipped later: loud mp3s often exceed 1.0
a little when they are decoded.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.audio.silence import is_silence
from asr.audio.windows import WINDOWS_PER_SECOND, bounds

if TYPE_CHECKING:
    from asr.audio.decoding import Decoding, RatedBlocks

TOLERATED: Final = 1.5
"""3.5 dB above full scale. Louder windows are scaled down."""
MAX_AMPLIFIED: Final = 64.0
"""36 dB above full scale. Beyond it, the samples are taken for integers that were not divided."""
INTEGER_SCALES: Final = (2.0**15, 2.0**23, 2.0**31)
MAX_SAMPLE: Final = 2.0**32
"""A sample beyond this is no sound, and is treated like NaN."""
HOLD_WINDOWS: Final = 10 * WINDOWS_PER_SECOND
"""The scale is that of the loudest of so many windows, so it is the same in words and in pauses,
and one damaged place does not silence the rest."""
SPIKES: Final = 500
"""One sample in so many may be above the scale. It is clipped."""
RAMP_SECONDS: Final = 0.005
"""How long the way back to a higher factor takes, so that it makes no click."""


def scaled(source: RatedBlocks, decoding: Decoding) -> RatedBlocks:
    """Scale each channel of blocks that `in_windows` made; add warnings to `decoding`."""
    scaler: _Scaler | None = None
    report = _Report()
    for rate, block in source:
        n_channels = block.shape[1]
        if scaler is None or scaler.n_channels != n_channels:
            scaler = _Scaler(n_channels, report)
        yield rate, scaler.push(rate, block)
    decoding.warnings += report.warnings()


class _Report:
    """What was repaired, in all channels."""

    def __init__(self) -> None:
        self.n_invalid = 0
        self.n_spikes = 0
        self.peak = 1.0

    def warnings(self) -> list[str]:
        found = []
        if self.peak > 1:
            excess = 20 * math.log10(self.peak)
            found.append(
                f"the audio exceeds full scale by up to {excess:.0f} dB: it was scaled down"
            )
        if self.n_invalid:
            found.append(f"{self.n_invalid} samples are not numbers: they were replaced by silence")
        if self.n_spikes:
            found.append(f"{self.n_spikes} single samples far above full scale were clipped")
        return found


class _Scaler:
    """Scales the channels of blocks, each by its own factor."""

    def __init__(self, n_channels: int, report: _Report) -> None:
        self.n_channels = n_channels
        self._report = report
        self._factors = np.ones(n_channels)
        self._scales: deque[np.ndarray] = deque(maxlen=HOLD_WINDOWS)

    def push(self, rate: int, block: np.ndarray) -> np.ndarray:
        if not block.size or is_silence(block):
            return block
        if not self._scales and max(float(block.max()), -float(block.min())) <= TOLERATED:
            return block  # a NaN makes the comparison false
        return np.concatenate(
            [self._scale(rate, block[start:end]) for start, end in bounds(len(block), rate)]
        )

    def _scale(self, rate: int, window: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            is_valid = np.abs(window) <= MAX_SAMPLE
        self._report.n_invalid += int(window.size - np.count_nonzero(is_valid))
        samples = np.where(is_valid, window, 0).astype(np.float64)
        self._scales.append(_scale_of(samples))
        if not any(scale.max() > 1 for scale in self._scales):
            self._scales.clear()  # so that the next blocks pass quickly
        factors = 1 / np.max([np.ones(self.n_channels), *self._scales], axis=0)
        self._count(samples, factors)
        if (factors < 1).any() or (self._factors < 1).any() or samples.max() > TOLERATED:
            samples = np.clip(samples * self._ramp(rate, len(samples), factors), -1.0, 1.0)
        self._factors = factors
        return samples.astype(np.float32)

    def _count(self, samples: np.ndarray, factors: np.ndarray) -> None:
        magnitudes = np.abs(samples)
        self._report.n_spikes += int(np.count_nonzero(magnitudes * factors > TOLERATED))
        if (factors < 1).any():
            self._report.peak = max(self._report.peak, float((1 / factors).max()))

    def _ramp(self, rate: int, n_frames: int, factors: np.ndarray) -> np.ndarray:
        """Return a factor for each frame and channel. It falls at once and rises gradually."""
        done = np.minimum(np.arange(1, n_frames + 1) / (RAMP_SECONDS * rate), 1.0)[:, np.newaxis]
        before = np.minimum(self._factors, factors)
        ramp: np.ndarray = before + (factors - before) * done
        return ramp


def _scale_of(samples: np.ndarray) -> np.ndarray:
    """Return full scale for each channel of a window; 1 if the channel needs no scaling."""
    n_spikes = len(samples) // SPIKES
    peaks = np.partition(np.abs(samples), -1 - n_spikes, axis=0)[-1 - n_spikes]
    return np.array([_full_scale(peaks[i], samples[:, i]) for i in range(len(peaks))])


def _full_scale(peak: float, samples: np.ndarray) -> float:
    if peak <= TOLERATED:
        return 1.0
    if peak <= MAX_AMPLIFIED and (samples != np.rint(samples)).any():
        return peak
    return next((scale for scale in INTEGER_SCALES if peak <= scale * TOLERATED), peak)
