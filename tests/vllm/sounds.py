"""What the servers are given to hear."""

import numpy as np

from asr.types import Audio
from tests.support.makers import noise


def sound(seconds, seed=0):
    """Noise, another one for each seed."""
    return Audio(noise(seconds, seed=seed).astype(np.float32))
