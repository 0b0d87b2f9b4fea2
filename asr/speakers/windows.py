"""Cut the windows for which embeddings are computed, at the gaps between words.

Speech regions of the VAD span changes of the speaker. Gaps between words are finer, so a window
seldom holds two voices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.speakers.thresholds import Thresholds

Span = tuple[float, float]
"""Start and end in seconds."""


def cut_windows(words: Iterable[Span], thresholds: Thresholds) -> list[Span]:
    """The windows over words, in order.

    Args:
        words: start and end of each word, ordered by start.
        thresholds: of the model.
    """
    return [
        window
        for start, end in speech_of(words, thresholds.pause)
        for window in _slide(start, end, thresholds)
    ]


def speech_of(words: Iterable[Span], pause: float) -> list[Span]:
    """The stretches of words with pauses of less than `pause` seconds between them."""
    stretches: list[Span] = []
    for start, end in words:
        if stretches and start - stretches[-1][1] < pause:
            stretches[-1] = stretches[-1][0], max(end, stretches[-1][1])
        else:
            stretches.append((start, end))
    return stretches


def _slide(start: float, end: float, thresholds: Thresholds) -> list[Span]:
    """Windows from the start to the end of a stretch, evenly spaced, at most a hop apart."""
    length = thresholds.window
    if end - start < thresholds.shortest:
        return []
    if end - start <= length:
        return [(start, end)]
    n_hops = math.ceil((end - start - length) / thresholds.hop)
    step = (end - start - length) / n_hops
    return [(start + i * step, start + i * step + length) for i in range(n_hops + 1)]
