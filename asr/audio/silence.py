"""Silence as an array that takes no memory: one zero that is repeated with strides of 0.

The clock of a container may leave a gap of up to an hour. Its silence passes through decoding as
one such array. Each step recognises it with `is_silence` and does not process its samples.
"""

from __future__ import annotations

import numpy as np


def silence(n_frames: int, *n_channels: int) -> np.ndarray:
    """Return float32 zeros of shape (n_frames,) or (n_frames, n_channels). Do not write to them."""
    return np.broadcast_to(np.float32(0), (n_frames, *n_channels))


def is_silence(block: np.ndarray) -> bool:
    """Return whether `silence` made this array, of which it may be a part."""
    return bool(block.size) and not any(block.strides) and not block.flat[0]
