"""From the path through a trellis to words with times; words in, words out, in order."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from asr.align.ctc.trellis import NO_LABEL, STAR
from asr.types import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.align.ctc.frames import FrameGrid
    from asr.align.ctc.spelling import Spelt


def place_words(
    texts: Sequence[str],
    spelt: Spelt,
    path: np.ndarray,
    emission: np.ndarray,
    grid: FrameGrid,
    duration: float,
) -> tuple[Word, ...]:
    """Time every word by the frames that say its labels.

    A word's confidence is the mean probability of its labels in these frames. Stars do not count,
    for any sound matches them: a word of nothing else is "interpolated", between its neighbours.
    So is a word without labels, which shares the pause where it stands with others of its kind.

    Args:
        texts: the words as written.
        spelt: their labels.
        path: the label that each frame says, shape (n_frames,).
        emission: log-probabilities, shape (n_frames, n_columns).
        grid: where the frames lie.
        duration: of the audio in seconds; no word ends later.
    """
    frames = np.flatnonzero(path != NO_LABEL)
    labels = spelt.target.labels[path[frames]]
    owners = spelt.word[path[frames]]
    probabilities = np.exp(emission[frames, labels], where=labels != STAR, out=np.ones(len(frames)))
    words: list[Word | None] = [None] * len(texts)
    spoken, begins = np.unique(owners, return_index=True)
    for index, begin, stop in zip(spoken, begins, [*begins[1:], len(frames)], strict=True):
        start, end = grid.seconds(int(frames[begin])), grid.seconds(int(frames[stop - 1]) + 1)
        start, end = min(max(start, 0.0), duration), min(max(end, 0.0), duration)
        heard = probabilities[begin:stop][labels[begin:stop] != STAR]
        if len(heard):
            confidence = min(float(heard.mean()), 1.0)
            words[index] = Word(texts[index], start, end, confidence, "aligned")
        else:
            words[index] = Word(texts[index], start, end, None, "interpolated")
    return _fill(texts, words, duration)


def _fill(texts: Sequence[str], words: Sequence[Word | None], duration: float) -> tuple[Word, ...]:
    """Give the words without a time the pauses where they stand, in proportion to their letters."""
    filled: list[Word] = []
    for is_missing, run in itertools.groupby(range(len(texts)), lambda i: words[i] is None):
        places = list(run)
        if not is_missing:
            filled += [word for i in places if (word := words[i]) is not None]
            continue
        start = filled[-1].end if filled else 0.0
        behind = words[places[-1] + 1] if places[-1] + 1 < len(texts) else None
        end = max(start, behind.start if behind else duration)
        sizes = [max(1, sum(map(str.isalnum, texts[i]))) for i in places]
        edges = start + (end - start) * np.cumsum([0, *sizes]) / sum(sizes)
        edges = np.minimum(edges, end)  # rounding
        for i, (begin, stop) in zip(places, itertools.pairwise(edges.tolist()), strict=True):
            filled.append(Word(texts[i], begin, stop, None, "interpolated"))
    return tuple(filled)
