"""Find the best path through a CTC trellis of known labels: which frame belongs to which label.

This is an exact search in numpy, without beams, over a batch of chunks at once. Each frame belongs
to one label or to none. CTC's rules apply: a label lasts at least one frame, and two equal labels
in a row need a blank frame between them. Three additions suit real transcripts:

- The label `STAR` matches any sound. It stands for letters that the model cannot write.
- A gap between two words may hold blank, the model's word delimiter or, at `STAR_PRICE` per frame,
  any sound. So speech that the text lacks does not shift the words around it. This needs no
  additional states.
- Scores are relative to the likeliest label of each frame. This changes no path, keeps precision in
  long chunks, and allows the same price for the star in every frame.

Sources: the recursion is from Graves et al. 2006, "Connectionist temporal classification", section
4.1, with maxima instead of sums. The star is from Pratap et al. 2023, "Scaling speech technology to
1,000+ languages", section 3.1.3. Our star has a price, because a free star would also cover the
ends of words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

STAR: Final = -1
"""A label that matches any sound."""
NO_LABEL: Final = -1
"""In a path, a frame that belongs to no label."""
STAR_PRICE: Final = 1.0
"""Nats per frame. In silence blank costs less than the star; in speech a wrong label costs more."""
BLOCK_FRAMES: Final = 64
"""Frames in a block. The moves of a block are packed after it; it fits into the CPU's cache."""


@dataclass(frozen=True, slots=True)
class Target:
    """The labels of a chunk, in order.

    Attributes:
        labels: columns of the emission, or `STAR`; shape (n_labels,).
        opens_word: whether each label is the first of a word, so that a gap precedes it.
    """

    labels: np.ndarray
    opens_word: np.ndarray

    @property
    def min_frames(self) -> int:
        """The smallest number of frames that can hold all labels."""
        return len(self.labels) + int(np.count_nonzero(self.labels[1:] == self.labels[:-1]))


@dataclass(frozen=True, slots=True)
class Symbols:
    """The columns of an emission that are not letters.

    Attributes:
        blank: column of CTC's blank.
        delimiter: column of the model's label between words, if it has one.
    """

    blank: int
    delimiter: int | None = None


def best_paths(
    emissions: Sequence[np.ndarray], targets: Sequence[Target], symbols: Symbols
) -> list[np.ndarray | None]:
    """Align each emission with its target.

    Args:
        emissions: log-probabilities, each of shape (n_frames, n_columns).
        targets: the labels of each chunk.
        symbols: the columns of blank and delimiter.

    Returns:
        One array for each chunk, shape (n_frames,). It holds for each frame the index of its label
        in `Target.labels`, or `NO_LABEL`. None replaces the array if the target needs more frames
        than the chunk has.
    """
    paths: list[np.ndarray | None] = [None] * len(targets)
    fits = [i for i, goal in enumerate(targets) if goal.min_frames <= len(emissions[i])]
    if not fits:
        return paths
    trellis = _Trellis([targets[i] for i in fits])
    scores = [_scores(emissions[i], symbols) for i in fits]
    trellis.forward(scores)
    for row, i in enumerate(fits):
        paths[i] = trellis.backward(row)
    return paths


@dataclass(frozen=True, slots=True)
class _Scores:
    """Scores of one chunk in nats, relative to the likeliest label of each frame.

    Attributes:
        columns: the score of each label, and of the star last, shape (n_frames, n_columns + 1).
        blank: the score of blank, shape (n_frames,).
        gap: the score of a gap between words, shape (n_frames,).
    """

    columns: np.ndarray
    blank: np.ndarray
    gap: np.ndarray


def _scores(emission: np.ndarray, symbols: Symbols) -> _Scores:
    n_frames, n_columns = emission.shape
    columns = np.empty((n_frames, n_columns + 1), np.float32)
    np.subtract(emission, emission.max(axis=1, keepdims=True), out=columns[:, :-1])
    columns[:, -1] = -STAR_PRICE
    blank = columns[:, symbols.blank]
    gap = np.maximum(blank, columns[:, -1])
    if symbols.delimiter is not None:
        gap = np.maximum(gap, columns[:, symbols.delimiter])
    return _Scores(columns, blank, gap)


class _Trellis:
    """Scores of all states of all chunks, and the moves that led to them.

    Each chunk is a row with the states pause 0, label 0, pause 1, ..., label n - 1, pause n. A
    pause is a gap between words, or blank inside a word. Rows are padded to the longest. The
    padding comes after a row's last state, and no path leads from it back into the row.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._sizes = [len(target.labels) for target in targets]
        n_rows, width = len(targets), max(self._sizes)
        self._labels = np.zeros((n_rows, width), np.intp)
        self._is_gap = np.zeros((n_rows, width + 1), bool)
        self._skip = np.full((n_rows, width), -np.inf, np.float32)
        for row, target in enumerate(targets):
            self._place(row, target)
        self._moves: list[np.ndarray] = []
        self._ends_in_label = [False] * n_rows
        self._n_frames: list[int] = []

    def _place(self, row: int, target: Target) -> None:
        labels, n_labels = target.labels, len(target.labels)
        is_star = labels == STAR
        self._labels[row, :n_labels] = labels
        self._skip[row, 1:n_labels][labels[1:] != labels[:-1]] = 0.0
        gaps = self._is_gap[row, : n_labels + 1]
        gaps[:-1] = target.opens_word
        gaps[-1] = True
        gaps[:-1] &= ~is_star  # a pause next to a star is only blank: its sound goes to the star
        gaps[1:] &= ~is_star

    def forward(self, scores: Sequence[_Scores]) -> None:
        """Score the best path into every state at every frame."""
        self._n_frames = [len(row.columns) for row in scores]
        n_rows, width = self._labels.shape
        # Every path starts in `pauses[:, 0]`, the pause before any label. `before[:, 0]` stays
        # -inf, because the first label has no predecessor.
        before = np.full((n_rows, width + 1), -np.inf, np.float32)
        pauses = before.copy()
        pauses[:, 0] = 0.0
        for begin in range(0, max(self._n_frames), BLOCK_FRAMES):
            end = min(begin + BLOCK_FRAMES, max(self._n_frames))
            moves = self._block(self._emit(scores, begin, end), before, pauses, begin)
            self._moves.append(np.packbits(moves, axis=-1))

    def _emit(
        self, scores: Sequence[_Scores], begin: int, end: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score each label and each pause of all rows in the frames [begin, end)."""
        n_rows, width = self._labels.shape
        labels = np.zeros((end - begin, n_rows, width), np.float32)
        pauses = np.zeros((end - begin, n_rows, width + 1), np.float32)
        for row, item in enumerate(scores):
            size, some = self._sizes[row], slice(begin, min(end, self._n_frames[row]))
            n_some = max(0, some.stop - begin)
            if n_some:
                columns = self._labels[row, :size]
                labels[:n_some, row, :size] = item.columns[some].take(columns, axis=1, mode="wrap")
                pauses[:n_some, row] = item.blank[some, None]
                pauses[:n_some, row, self._is_gap[row]] = item.gap[some, None]
        return labels, pauses

    def _block(
        self,
        emitted: tuple[np.ndarray, np.ndarray],
        before: np.ndarray,
        pauses: np.ndarray,
        begin: int,
    ) -> np.ndarray:
        """Advance the scores in place.

        `before[:, 1:]` are the scores of the labels, so `before[:, :-1]` are those of each label's
        predecessor.

        Returns:
            Whether the best path into a state takes a move, shape (n_frames, 3, n_rows, n_labels).
            The three moves of each label are: from the pause before it to the label, from the
            previous label to the label, and from the label to the pause after it.
        """
        label_scores, pause_scores = emitted
        moves = np.empty((len(label_scores), 3, *self._skip.shape), bool)
        labels, previous = before[:, 1:], before[:, :-1]
        best, skipped = np.empty_like(self._skip), np.empty_like(self._skip)
        for frame in range(len(label_scores)):
            from_pause, from_label, into_pause = moves[frame]
            np.greater(pauses[:, :-1], labels, out=from_pause)
            np.maximum(pauses[:, :-1], labels, out=best)
            np.add(previous, self._skip, out=skipped)
            np.greater(skipped, best, out=from_label)
            np.maximum(skipped, best, out=best)
            np.greater(labels, pauses[:, 1:], out=into_pause)
            np.maximum(labels, pauses[:, 1:], out=pauses[:, 1:])
            np.add(best, label_scores[frame], out=labels)
            np.add(pauses, pause_scores[frame], out=pauses)
            self._note_ends(begin + frame + 1, labels, pauses)
        return moves

    def _note_ends(self, n_frames: int, labels: np.ndarray, pauses: np.ndarray) -> None:
        """Note for each row of `n_frames` frames whether its path ends in a label or a pause."""
        if n_frames in self._n_frames:
            for row, size in enumerate(self._sizes):
                if self._n_frames[row] == n_frames and size:
                    self._ends_in_label[row] = bool(labels[row, size - 1] > pauses[row, size])

    def backward(self, row: int) -> np.ndarray:
        """Trace the best path of one row."""
        n_frames = self._n_frames[row]
        packed = np.concatenate([block[:, :, row] for block in self._moves])[:n_frames]
        moves, width = packed.tobytes(), packed.shape[-1]
        path = [NO_LABEL] * n_frames
        # If `in_label`, the current state is label `at`; otherwise it is the pause after it.
        at, in_label = self._sizes[row] - 1, self._ends_in_label[row]
        for frame in range(n_frames - 1, -1, -1):
            if in_label:
                path[frame] = at
            elif at < 0:
                break
            byte = 3 * width * frame + (at >> 3)
            bit = 0x80 >> (at & 7)
            if not in_label:
                in_label = bool(moves[byte + 2 * width] & bit)
            elif moves[byte + width] & bit:
                at -= 1
            elif moves[byte] & bit:
                at, in_label = at - 1, False
        return np.array(path, np.intp)
