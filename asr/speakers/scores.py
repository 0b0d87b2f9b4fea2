"""How well each voice fits each word: from the embeddings of windows to the words.

Each 10 ms frame has, for each voice, the mean cosine of the windows over it. A window weighs most
at its middle. A word's score is the sum over its frames, so long words weigh more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.speakers.windows import Span

FRAME: Final = 0.01
"""Seconds."""
SLACK: Final = 0.15
"""Seconds by which a window reaches beyond its ends, so that the frames at its ends count."""


def word_scores(
    words: Sequence[Span], windows: np.ndarray, cosines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of words.

    Args:
        words: start and end of each word in seconds, ordered by start.
        windows: start and end of each window, shape (n_windows, 2), ordered by start.
        cosines: of each window and voice, shape (n_windows, n_voices).

    Returns:
        The sums over the frames and the means over them, each of shape (n_words, n_voices). A word
        without a window has zeros.
    """
    sums = np.zeros((len(words), cosines.shape[1]))
    means = np.zeros_like(sums)
    middles, reach = windows.mean(axis=1), np.diff(windows, axis=1)[:, 0] / 2 + SLACK
    longest = float(np.diff(windows, axis=1).max(initial=0)) + 2 * SLACK
    starts = windows[:, 0]
    for number, (start, end) in enumerate(words):
        first, last = np.searchsorted(starts, (start - longest, end + SLACK))
        if first == last:
            continue
        near = slice(first, last)
        n_frames = max(1, round((end - start) / FRAME))
        times = start + (np.arange(n_frames) + 0.5) * (end - start) / n_frames
        weights = np.maximum(0, 1 - np.abs(times[:, None] - middles[near]) / reach[near])
        totals = weights.sum(axis=1, keepdims=True)
        weights = weights / np.maximum(totals, 1e-6)
        sums[number] = weights.sum(axis=0) @ cosines[near]
        covered = int((totals[:, 0] > 0).sum())
        means[number] = sums[number] / max(covered, 1)
    return sums, means


def best_path(sums: np.ndarray, change: float) -> np.ndarray:
    """The voice of each word by Viterbi's algorithm.

    Args:
        sums: the score of each word and voice.
        change: what a change of the voice between two words costs.
    """
    n_words, n_voices = sums.shape
    best = np.zeros(n_voices)
    previous = np.zeros((n_words, n_voices), np.int64)
    own = np.arange(n_voices)
    for number in range(n_words):
        leader = int(best.argmax())
        changed = best < best[leader] - change
        previous[number] = np.where(changed, leader, own)
        best = np.where(changed, best[leader] - change, best) + sums[number]
    path = np.zeros(n_words, np.int64)
    voice = int(best.argmax())
    for number in range(n_words - 1, -1, -1):
        path[number] = voice
        voice = int(previous[number, voice])
    return path
