"""Audio for the servers."""

import numpy as np

from asr.types import Audio
from tests.support.makers import noise


def sound(seconds, seed=0):
    """Noise that differs by seed."""
    return Audio(noise(seconds, seed=seed).astype(np.float32))
