"""Turn the best path through a CTC trellis into words with times: one per token, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asr.align.ctc.trellis import NO_LABEL, STAR
from asr.text.spread import fill_missing
from asr.types import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.align.ctc.frames import FrameGrid
    from asr.align.ctc.spelling import SpelledText


def place_words(
    texts: Sequence[str],
    spelled: SpelledText,
    path: np.ndarray,
    emission: np.ndarray,
    grid: FrameGrid,
    duration: float,
) -> tuple[Word, ...]:
    """Time every word by the frames that the path gives to its labels.

    A word's confidence is the mean probability of its labels in these frames. Stars do not count,
    because any sound matches them. A word that consists only of stars keeps the time of its frames,
    but is marked "interpolated". A word without labels is "interpolated" too: consecutive words
    without labels share the pause between their neighbours.

    Args:
        texts: the words as written.
        spelled: their labels.
        path: index of each frame's label, shape (n_frames,).
        emission: log-probabilities, shape (n_frames, n_columns).
        grid: where the frames lie.
        duration: of the audio in seconds; no word ends later.
    """
    frames = np.flatnonzero(path != NO_LABEL)
    labels = spelled.target.labels[path[frames]]
    owners = spelled.word[path[frames]]
    probabilities = np.exp(emission[frames, labels], where=labels != STAR, out=np.ones(len(frames)))
    words: list[Word | None] = [None] * len(texts)
    spoken, begins = np.unique(owners, return_index=True)
    for index, begin, stop in zip(spoken, begins, [*begins[1:], len(frames)], strict=True):
        start, end = grid.seconds(int(frames[begin])), grid.seconds(int(frames[stop - 1]) + 1)
        start, end = min(max(start, 0.0), duration), min(max(end, 0.0), duration)
        measured = probabilities[begin:stop][labels[begin:stop] != STAR]
        if len(measured):
            confidence = min(float(measured.mean()), 1.0)
            words[index] = Word(texts[index], start, end, confidence, "aligned")
        else:
            words[index] = Word(texts[index], start, end, None, "interpolated")
    return tuple(fill_missing(texts, words, 0.0, duration))
