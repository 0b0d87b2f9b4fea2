"""Several channels -> one, also if they cancel each other out.

The mix is the mean of the channels. If one channel is phase-inverted, as after a wrong cable, the
mean is silence although each channel is fine. So in each window every channel is compared with the
loudest one. If they are opposite to each other, the polarity of the channel is reversed from there
on, until they are opposite again. Ordinary stereo is mixed as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from asr.audio.silence import is_silence
from asr.audio.windows import bounds, window_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.audio.decoding import Decoding, RatedBlocks

OPPOSITE: Final = -0.6
"""Two channels with a lower correlation are opposite: their difference has at least four times the
power of their sum."""
COMPARED_HZ: Final = 8_000
"""The correlation is that of x[n] - x[n - 2] at about this rate. The difference passes speech, and
blocks a DC offset and most of a hum."""
LAG: Final = 2
MIN_SHARE: Final = 1e-4
"""-40 dB. A channel with less of the loudest one's power cannot cancel it."""
RAMP_SECONDS: Final = 0.005
"""How long a change of the polarity takes, so that it makes no click."""
LOUD: Final = 1e-3
"""-30 dB. Only windows above this share of the loudest window so far count for the warning."""
TOLERANCE: Final = 0.01
MIN_RUN_SECONDS: Final = 0.5
"""The channels must cancel for so long for a warning. Delays do it now and then, but briefly."""


def mixed(source: RatedBlocks, decoding: Decoding) -> Iterator[tuple[int, np.ndarray]]:
    """Mix blocks that `in_windows` made into blocks of shape (n_frames,).

    Adds a warning to `decoding` at the end if channels cancelled each other out.
    """
    mixer: _Mixer | None = None
    report = _Report()
    for rate, block in source:
        n_channels = block.shape[1]
        if n_channels == 1 or is_silence(block):
            report.skip(len(block) / rate)
            yield rate, block[:, 0]
            continue
        if mixer is None or mixer.n_channels != n_channels:
            mixer = _Mixer(n_channels, report)
        yield rate, mixer.push(rate, block)
    decoding.warnings += report.warnings()


class _Report:
    """How much of the recording would have been lost."""

    def __init__(self) -> None:
        self._loudest = 0.0
        self._run = 0.0
        self._longest = 0.0
        self._cancelled = 0.0
        self._position = 0.0
        self._first = 0.0

    def add(self, seconds: float, power: float, *, is_cancelled: bool) -> None:
        self._loudest = max(self._loudest, power)
        if power > self._loudest * LOUD:
            if is_cancelled:
                self._first = self._first if self._cancelled else self._position
                self._cancelled += seconds
            self._run = self._run + seconds if is_cancelled else 0.0
            self._longest = max(self._longest, self._run)
        self._position += seconds

    def skip(self, seconds: float) -> None:
        self._position += seconds

    def warnings(self) -> list[str]:
        if self._longest < MIN_RUN_SECONDS - TOLERANCE:
            return []
        where = f"{self._cancelled:.1f} s, first at {self._first:.1f} s"
        message = f"the channels cancel each other out in {where} (one may be phase-inverted)"
        return [f"{message}: one was inverted before mixing"]


class _Mixer:
    """Mixes blocks with the same number of channels."""

    def __init__(self, n_channels: int, report: _Report) -> None:
        self.n_channels = n_channels
        self._report = report
        self._signs = np.ones(n_channels, np.float32)
        self._has_begun = False

    def push(self, rate: int, block: np.ndarray) -> np.ndarray:
        spans, products = bounds(len(block), rate), _products(block, rate)
        cancels = [bool(row.any()) for row in _opposite(products)]
        powers = np.trace(products, axis1=1, axis2=2)
        for (start, end), power, cancel in zip(spans, powers.tolist(), cancels, strict=True):
            self._report.add((end - start) / rate, power, is_cancelled=cancel)
        if any(cancels) or (self._signs < 0).any():
            parts = zip(spans, products, strict=True)
            signed = [
                block[start:end] * self._weights(rate, end - start, it)
                for (start, end), it in parts
            ]
            block = np.concatenate(signed)
        self._has_begun = True
        return _mean(block)

    def _weights(self, rate: int, n_frames: int, products: np.ndarray) -> np.ndarray:
        """Return the signs of the channels in a window, with a ramp where they change."""
        before = self._signs
        signed = products * before * before[:, np.newaxis]
        self._signs = np.where(_opposite(signed[np.newaxis])[0], -before, before)
        if not self._has_begun or np.array_equal(before, self._signs):
            self._has_begun = True
            return self._signs
        done = np.minimum(np.arange(1, n_frames + 1) / (RAMP_SECONDS * rate), 1.0)
        return (before + (self._signs - before) * done[:, np.newaxis]).astype(np.float32)


def _products(block: np.ndarray, rate: int) -> np.ndarray:
    """Return for each window the products of all pairs of channels: (n_windows, n, n)."""
    size, step, n_channels = window_frames(rate), max(1, rate // COMPARED_HZ), block.shape[1]
    n_whole = len(block) // size * size
    parts = [block[:n_whole].reshape(-1, size, n_channels)] if n_whole else []
    parts += [block[np.newaxis, n_whole:]] if n_whole < len(block) else []
    return np.concatenate([_window_products(part[:, ::step]) for part in parts])


def _window_products(windows: np.ndarray) -> np.ndarray:
    changes = windows[:, LAG:].astype(np.float64) - windows[:, :-LAG]
    products: np.ndarray = np.matmul(changes.transpose(0, 2, 1), changes)
    return products


def _opposite(products: np.ndarray) -> np.ndarray:
    """Return which channels of each window are opposite to its loudest channel."""
    powers = np.diagonal(products, axis1=1, axis2=2)
    loudest = np.argmax(powers, axis=1)
    number = np.arange(len(products))
    reference = powers[number, loudest][:, np.newaxis]
    is_heard = powers > MIN_SHARE * reference
    is_negative = products[number, loudest] < OPPOSITE * np.sqrt(powers * reference)
    return np.asarray(is_heard & is_negative)


def _mean(block: np.ndarray) -> np.ndarray:
    if block.shape[1] == 2:
        mono: np.ndarray = (block[:, 0] + block[:, 1]) * np.float32(0.5)  # far faster than mean()
        return mono
    return np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))
