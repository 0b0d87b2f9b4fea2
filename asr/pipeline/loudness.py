"""Quiet chunks are amplified for the engine and the aligner.

The decoded recording keeps its level. Engines are trained on speech of ordinary levels: at -60 dBFS
Moonshine misses half of the words, and amplified it misses few more than usual.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from asr.types import Audio

QUIET_PEAK: Final = 0.03
"""-30 dBFS. Louder chunks stay as they are."""
AMPLIFIED_PEAK: Final = 0.1
"""-20 dBFS, about the peak of a microphone that is far away."""


def audible(audio: Audio) -> Audio:
    """Return the audio, amplified and without DC offset if it is quiet."""
    if not len(audio.samples):
        return audio
    centred = audio.samples - audio.samples.mean(dtype=np.float64).astype(np.float32)
    peak = float(np.abs(centred).max())
    if not 0 < peak < QUIET_PEAK:
        return audio
    return Audio(centred * np.float32(AMPLIFIED_PEAK / peak), audio.sample_rate)
