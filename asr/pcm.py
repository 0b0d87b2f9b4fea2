"""Samples as 16-bit PCM and back: little-endian int16 on disk and on the wire, float32 in memory.

A float of 1.0 corresponds to 32,768, so that int16 -> float32 -> int16 is exact. Values that do not
fit into 16 bits are clipped.
"""

from __future__ import annotations

import numpy as np

SCALE = np.float32(32768)
_BLOCK = 1 << 14
"""How many samples are converted at once; intermediate results then stay in the CPU's cache."""


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Convert float32 samples in [-1, 1], shape (n,), to int16, rounded and clipped."""
    converted = np.empty(samples.shape, "<i2")
    for start in range(0, len(samples), _BLOCK):
        block = samples[start : start + _BLOCK] * SCALE
        np.rint(block, out=block)
        np.clip(block, -SCALE, SCALE - 1, out=block)
        converted[start : start + _BLOCK] = block
    return converted


def to_float32(pcm: np.ndarray) -> np.ndarray:
    """Convert int16 samples, shape (n,), to float32 in [-1, 1)."""
    samples = pcm.astype(np.float32)
    samples /= SCALE
    return samples


def to_bytes(pcm: np.ndarray) -> bytes:
    """Return int16 samples as little-endian bytes."""
    return pcm.astype("<i2", copy=False).tobytes()


def from_bytes(data: bytes | memoryview) -> np.ndarray:
    """View little-endian bytes as int16 samples, shape (n,).

    Raises:
        ValueError: the number of bytes is odd.
    """
    return np.frombuffer(data, "<i2")
