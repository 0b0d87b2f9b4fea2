"""Cepstra of audio, as pocketsphinx computes them for its US English model.

A frame is the power spectrum of a window, in mel bands. Steady noise is removed from the bands. The
cepstra are the cosine transform of their logarithms. We compute them ourselves, because
pocketsphinx hands them out only as a file and needs twice the CPU time.

Sources: ``fe_sigproc.c`` and ``fe_noise.c`` in https://github.com/cmusphinx/pocketsphinx, and the
model's ``feat.params``.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np

from asr.align.hmm import compiled
from asr.types import SAMPLE_RATE

HOP: Final = SAMPLE_RATE // 100
"""Samples from one frame to the next."""
WINDOW: Final = 410
FFT: Final = 512
N_BANDS: Final = 25
LOWEST, HIGHEST = 130.0, 6800.0
"""Hertz, the edges of the bands."""
CEPSTRA: Final = 13
LIFTER: Final = 22
EMPHASIS: Final = np.float32(0.97)
LOG_FLOOR: Final = 1e-4
BLOCK_FRAMES: Final = 32
"""How many frames are transformed at once; intermediate results then stay in the CPU's cache."""

SMOOTH: Final = 0.7
"""Share of the past in the smoothed power of a band."""
RISE: Final = 0.995
FALL: Final = 0.5
"""Shares of the past in the level of noise, when the power is above it and when it is below."""
FADE: Final = 0.85
"""How much of the last peak is left after a frame. Power below it cannot be heard."""
MASKED: Final = 0.2
"""Share of the peak that replaces power that cannot be heard."""
MAX_GAIN: Final = 20.0
NEIGHBOURS: Final = 4
"""The gain of a band is averaged with those of this many bands on both sides."""


def cepstra(samples: np.ndarray) -> np.ndarray:
    """Compute the cepstra of all frames; the last frame is padded with zeros.

    Args:
        samples: int16, at least `WINDOW` of them.

    Returns:
        Float32, shape (n_frames, CEPSTRA).
    """
    n_frames = (len(samples) - WINDOW) // HOP + 2
    bands = np.empty((n_frames, N_BANDS))
    for start in range(0, n_frames, BLOCK_FRAMES):
        windows = _windows(samples, start, min(start + BLOCK_FRAMES, n_frames))
        spectrum = np.fft.rfft(windows * _taper(), FFT)
        power = spectrum.real**2 + spectrum.imag**2
        bands[start : start + BLOCK_FRAMES] = power @ _mel_filters()
    gains = np.empty_like(bands)
    loops = compiled.load("noise")
    find_gains = noise_gains if loops is None else loops.noise_gains
    find_gains(bands, gains)
    bands *= gains @ _smoothing()
    logarithms = np.log(bands + LOG_FLOOR)
    found: np.ndarray = (logarithms @ _cosines()).astype(np.float32)
    return found


def _windows(samples: np.ndarray, start: int, end: int) -> np.ndarray:
    """Return the samples of frames [start, end) with high frequencies emphasised."""
    sharp = np.zeros((end - start - 1) * HOP + WINDOW, np.float32)
    first = start * HOP
    piece = samples[first : first + len(sharp)]
    sharp[: len(piece)] = piece
    sharp[1 : len(piece)] -= EMPHASIS * piece[:-1]
    if first:
        sharp[0] -= EMPHASIS * samples[first - 1]
    return np.lib.stride_tricks.sliding_window_view(sharp, WINDOW)[::HOP]


def noise_gains(bands: np.ndarray, gains: np.ndarray) -> None:
    """Compute a factor for each band of each frame. Multiplying with the factors removes noise.

    Args:
        bands: power, shape (n_frames, N_BANDS).
        gains: is filled, same shape.
    """
    smooth = bands[0].copy()
    noise, floor = smooth / MAX_GAIN, smooth / MAX_GAIN
    peak = np.zeros(N_BANDS)
    for power, gain in zip(bands, gains, strict=True):
        smooth = SMOOTH * smooth + (1 - SMOOTH) * power
        noise = _envelope(noise, smooth)
        clean = np.maximum(smooth - noise, 1.0)
        floor = _envelope(floor, clean)
        peak *= FADE
        heard = np.where(clean < FADE * peak, MASKED * peak, clean)
        peak = np.maximum(peak, clean)
        heard = np.maximum(heard, floor)
        ratio = np.divide(heard, smooth, where=heard < MAX_GAIN * smooth, out=gain)
        ratio[heard >= MAX_GAIN * smooth] = MAX_GAIN
        np.maximum(ratio, 1 / MAX_GAIN, out=gain)


def _envelope(level: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Let the level of noise follow the power: slowly upwards, fast downwards."""
    past = np.where(power >= level, RISE, FALL)
    followed: np.ndarray = past * level + (1 - past) * power
    return followed


@functools.cache
def _taper() -> np.ndarray:
    return np.hamming(WINDOW).astype(np.float32)


@functools.cache
def _mel_filters() -> np.ndarray:
    """Triangles of unit area whose corners lie on frequencies of the transform."""
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (LOWEST, HIGHEST))
    corners = 700 * (10 ** (np.linspace(low, high, N_BANDS + 2) / 2595) - 1)
    step = SAMPLE_RATE / FFT
    corners = np.floor(corners / step + 0.5) * step
    frequencies = np.arange(FFT // 2 + 1)[:, None] * step
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rise = (frequencies - left) / (centre - left)
    fall = (right - frequencies) / (right - centre)
    height = 2 / (right - left)
    return (np.clip(np.minimum(rise, fall), 0, None) * height).astype(np.float32)


@functools.cache
def _smoothing() -> np.ndarray:
    """The matrix that averages over neighbouring bands."""
    bands = np.arange(N_BANDS)
    near = np.abs(bands[:, None] - bands) <= NEIGHBOURS
    shares: np.ndarray = near / near.sum(axis=0)
    return shares


@functools.cache
def _cosines() -> np.ndarray:
    """The orthonormal cosine transform and the lifter, shape (N_BANDS, CEPSTRA)."""
    order = np.arange(CEPSTRA)
    waves = np.cos(np.pi / N_BANDS * (np.arange(N_BANDS)[:, None] + 0.5) * order)
    scale = np.sqrt(np.where(order == 0, 1, 2) / N_BANDS)
    cosines: np.ndarray = waves * scale * (1 + LIFTER / 2 * np.sin(np.pi * order / LIFTER))
    return cosines
