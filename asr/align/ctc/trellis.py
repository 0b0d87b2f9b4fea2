"""The best way through a CTC trellis whose labels are known: which frame says which label.

Pure numpy, exact, without beams, for a batch of chunks at once. Each frame says a label or none.
CTC's rules hold: a label lasts one frame or more, and equal labels need a frame of blank between
them. Three additions make it an aligner of real transcripts:

- `STAR` among the labels matches any sound: a word that the model's alphabet cannot spell.
- The gap between two words says blank, the model's word delimiter, or at `STAR_PRICE` a frame
  anything at all: speech that the text leaves out. It costs no states.
- Scores are relative to the likeliest label of their frame. No path changes by it, a long chunk
  keeps its precision, and the star has one price everywhere.

Source of the recursion: Graves et al. 2006, "Connectionist temporal classification", section 4.1,
with the maximum for the sum. The star: Pratap et al. 2023, "Scaling speech technology to 1,000+
languages", section 3.1.3, with a price, since a star for nothing eats the ends of the words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

STAR: Final = -1
"""In place of a label: any sound."""
NO_LABEL: Final = -1
"""In a path: the frame belongs to no label."""
STAR_PRICE: Final = 1.0
"""Nats below the likeliest label. Blank is cheaper in silence, a wrong label dearer in speech."""
BLOCK_FRAMES: Final = 64
"""Frames whose emissions and moves are held unpacked; they then stay in the cache."""


@dataclass(frozen=True, slots=True)
class Target:
    """The labels that a chunk says, in order.

    Attributes:
        labels: columns of the emission, or `STAR`; shape (n_labels,).
        opens_word: whether a word begins with this label, so that there is a gap before it.
    """

    labels: np.ndarray
    opens_word: np.ndarray

    @property
    def min_frames(self) -> int:
        """The fewest frames that can say it."""
        return len(self.labels) + int(np.count_nonzero(self.labels[1:] == self.labels[:-1]))


@dataclass(frozen=True, slots=True)
class Symbols:
    """The columns of an emission that are no letters.

    Attributes:
        blank: the column of CTC's blank.
        delimiter: the column of the label between words, if the model has one.
    """

    blank: int
    delimiter: int | None = None


def best_paths(
    emissions: Sequence[np.ndarray], targets: Sequence[Target], symbols: Symbols
) -> list[np.ndarray | None]:
    """Align each emission with its target.

    Args:
        emissions: log-probabilities, each of shape (n_frames, n_columns).
        targets: what each says.
        symbols: which columns mean blank and delimiter.

    Returns:
        For each the index of the label that each frame says, or `NO_LABEL`, shape (n_frames,);
        None where the target needs more frames than there are.
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
    """What each frame makes of each state, relative to its likeliest label.

    Attributes:
        columns: the emission with the star as its last column, shape (n_frames, n_columns + 1).
        blank: shape (n_frames,).
        gap: what the gaps between words make of each frame, shape (n_frames,).
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
    """Scores of all states of all rows, and the moves that led to them.

    Row r has the states pause 0, label 0, pause 1, ..., label n - 1, pause n; a pause is a gap
    between words or the blank inside one. Rows are padded to the longest; padding lies behind a
    row's last state, whence no path leads back.
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
        gaps[:-1] &= ~is_star  # beside a star the sound belongs to the star
        gaps[1:] &= ~is_star

    def forward(self, scores: Sequence[_Scores]) -> None:
        """Go through all frames."""
        self._n_frames = [len(row.columns) for row in scores]
        n_rows, width = self._labels.shape
        before = np.full((n_rows, width + 1), -np.inf, np.float32)  # a column for "no label yet"
        pauses = before.copy()
        pauses[:, 0] = 0.0
        for begin in range(0, max(self._n_frames), BLOCK_FRAMES):
            end = min(begin + BLOCK_FRAMES, max(self._n_frames))
            moves = self._block(self._emit(scores, begin, end), before, pauses, begin)
            self._moves.append(np.packbits(moves, axis=-1))

    def _emit(
        self, scores: Sequence[_Scores], begin: int, end: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the frames [begin, end) make of each label and pause of each row."""
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
        """Advance the scores in place; the moves, shape (n_frames, 3, n_rows, n_labels).

        `before[:, 1:]` scores the labels, so `before[:, :-1]` is the label before each. Moves are:
        into the label from its pause, from the label before it, and into the pause behind it.
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
        """For the rows that end here: in their last label, or in the pause behind it."""
        if n_frames in self._n_frames:
            for row, size in enumerate(self._sizes):
                if self._n_frames[row] == n_frames and size:
                    self._ends_in_label[row] = bool(labels[row, size - 1] > pauses[row, size])

    def backward(self, row: int) -> np.ndarray:
        """The best path of one row."""
        n_frames = self._n_frames[row]
        packed = np.concatenate([block[:, :, row] for block in self._moves])[:n_frames]
        moves, width = packed.tobytes(), packed.shape[-1]
        path = [NO_LABEL] * n_frames
        at, in_label = self._sizes[row] - 1, self._ends_in_label[row]  # a pause lies behind `at`
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
