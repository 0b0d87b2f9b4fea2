"""Quiet speech is amplified for the engine and the aligner.

The decoded recording keeps its level. Engines are trained on speech of ordinary levels: at -60 dBFS
Moonshine misses half of the words that it hears in the same speech amplified.

A chunk that is quiet as a whole gets one gain. In other chunks, the quiet stretches get gains of
their own, for example if a speaker close to the microphone and a distant one take turns. Their
noise stays far below the level of speech, so ordinary pauses hardly change.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from asr.types import Audio

QUIET_PEAK: Final = 0.03
"""-30 dBFS. What is louder stays as it is."""
AMPLIFIED_PEAK: Final = 0.1
"""-20 dBFS, about the peak of a microphone that is far away."""
HOP: Final = 160
"""Samples (10 ms) that share a peak."""
REACH: Final = 25
"""Hops (0.25 s). A stretch is quiet if nothing louder is so near."""
MAX_NOISE: Final = 0.001
"""-60 dBFS. In a chunk that is not quiet as a whole, no gain raises the noise beyond this RMS."""
QUIET_SHARE: Final = 0.02
"""The noise of a chunk is the RMS below which this share of its hops stays. Digital silence does
not count."""


def audible(audio: Audio) -> Audio:
    """Return the audio with its quiet speech amplified. Chunks without any are not copied."""
    samples = audio.samples
    if len(samples) < HOP:
        return audio
    centred = samples - samples.mean(dtype=np.float64).astype(np.float32)
    peak = float(np.abs(centred).max())
    if 0 < peak < QUIET_PEAK:
        return Audio(centred * np.float32(AMPLIFIED_PEAK / peak), audio.sample_rate)
    gains = _gains(samples[: len(samples) // HOP * HOP].reshape(-1, HOP))
    if gains.max() <= 1:
        return audio
    middles = (np.arange(len(gains)) + 0.5) * HOP
    smooth = np.interp(np.arange(len(samples)), middles, gains).astype(np.float32)
    return Audio(np.clip(samples * smooth, -1, 1), audio.sample_rate)


def _gains(hops: np.ndarray) -> np.ndarray:
    """Return a gain for each hop, 1 where the chunk is loud, digitally silent or noisy."""
    peaks = np.pad(np.abs(hops).max(axis=1), REACH)
    near = np.lib.stride_tricks.sliding_window_view(peaks, 2 * REACH + 1).max(axis=1)
    levels = np.sqrt(np.square(hops).mean(axis=1))
    noise = np.quantile(levels[levels > 0], QUIET_SHARE) if levels.any() else 0.0
    highest = MAX_NOISE / max(float(noise), 1e-5)
    wanted = np.minimum(AMPLIFIED_PEAK / np.maximum(near, 1e-6), highest)
    gains: np.ndarray = np.where((near > 0) & (near < QUIET_PEAK), wanted.clip(1), 1.0)
    return gains
