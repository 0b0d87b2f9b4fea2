"""Word times without a model: spread the words over the loud part of the chunk.

The last resort, and labelled so (`timing` is "interpolated"): on real chunks of 25 s the median
error is above a second (facts/alignment.md). Each word gets time in proportion to its letters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asr.types import SAMPLE_RATE, Audio, Hypothesis, Word

HOP_SAMPLES = SAMPLE_RATE // 100
LOUD_SHARE = 0.02
"""A hop counts as loud from this share of the power of the loudest tenth."""


def interpolate(audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
    """Give each word of the text a time; words in, words out, in order, inside the chunk.

    Nothing here listens to the words, so their confidences are the engine's, if it gave any.
    """
    texts = hypothesis.text.split()
    if not texts:
        return hypothesis
    loud = _loud_seconds(audio)
    weights = np.array([max(1, sum(letter.isalnum() for letter in text)) for text in texts])
    edges = np.concatenate(([0.0], np.cumsum(weights) / weights.sum())) * len(loud)
    sure = hypothesis.word_confidences or [None] * len(texts)
    words = []
    for text, begin, end, confidence in zip(texts, edges[:-1], edges[1:], sure, strict=True):
        first = loud[min(int(begin), len(loud) - 1)]
        last = loud[min(max(int(np.ceil(end)) - 1, int(begin)), len(loud) - 1)]
        stop = min(last + HOP_SAMPLES / SAMPLE_RATE, audio.duration)
        words.append(Word(text, float(min(first, stop)), float(stop), confidence, "interpolated"))
    return replace(hypothesis, words=tuple(words))


def _loud_seconds(audio: Audio) -> np.ndarray:
    """Start times of the hops that carry sound; of all hops when none stands out."""
    n_hops = max(1, len(audio.samples) // HOP_SAMPLES)
    hops = np.resize(audio.samples, n_hops * HOP_SAMPLES).reshape(n_hops, HOP_SAMPLES)
    power = np.square(hops, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power > LOUD_SHARE * np.quantile(power, 0.9))
    chosen = loud if len(loud) else np.arange(n_hops)
    seconds: np.ndarray = chosen * (HOP_SAMPLES / SAMPLE_RATE)
    return seconds


class Interpolator:
    """`interpolate` as an `asr.align.base.Aligner`, where there is no better one."""

    name = "interpolation"

    async def open(self) -> None:
        """Nothing to load."""

    async def align(self, audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
        """Spread the words over the loud part of the audio."""
        return interpolate(audio, hypothesis)

    async def close(self) -> None:
        """Nothing to free."""
