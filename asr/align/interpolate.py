"""Word times without a model: spread the words over the loud part of the chunk.

This is the last resort, and `timing` says so ("interpolated"): on real chunks of 25 s the median
error is above one second. Each word gets time in proportion to its letters.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from asr.text.spread import divide, n_letters
from asr.types import SAMPLE_RATE, Audio, Hypothesis, Word

HOP_SAMPLES = SAMPLE_RATE // 100
HOP_SECONDS = HOP_SAMPLES / SAMPLE_RATE
LOUD_SHARE = 0.02
"""A hop is loud if its power is above this share of the 90th percentile of all hops' power."""


def interpolate(audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
    """Give each word of the text a time inside the chunk, in order.

    The audio is not compared with the words. So their confidences are the engine's, if it gave any.
    """
    texts = hypothesis.text.split()
    if not texts:
        return hypothesis
    loud = _loud_seconds(audio)
    spans = divide(0, len(loud), [n_letters(text) for text in texts])
    confidences = hypothesis.word_confidences or [None] * len(texts)
    words = []
    for text, (begin, end), confidence in zip(texts, spans, confidences, strict=True):
        first = loud[min(int(begin), len(loud) - 1)]
        last = loud[min(max(math.ceil(end) - 1, int(begin)), len(loud) - 1)]
        stop = min(last + HOP_SECONDS, audio.duration)
        words.append(Word(text, float(min(first, stop)), float(stop), confidence, "interpolated"))
    return replace(hypothesis, words=tuple(words))


def _loud_seconds(audio: Audio) -> np.ndarray:
    """Start times of the loud hops in seconds; of all hops if none is loud."""
    n_hops = max(1, len(audio.samples) // HOP_SAMPLES)
    hops = np.resize(audio.samples, n_hops * HOP_SAMPLES).reshape(n_hops, HOP_SAMPLES)
    power = np.square(hops, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power > LOUD_SHARE * np.quantile(power, 0.9))
    chosen = loud if len(loud) else np.arange(n_hops)
    seconds: np.ndarray = chosen * HOP_SECONDS
    return seconds


class Interpolator:
    """`interpolate` as an `Aligner`, for use where no better one is available."""

    name = "interpolation"
    language = None

    async def open(self) -> None:
        """Do nothing: there is no model to load."""

    async def align(self, audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
        """Spread the words over the loud part of the audio."""
        return interpolate(audio, hypothesis)

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""
