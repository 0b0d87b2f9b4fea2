"""Exact search for the best path through a lattice, frame by frame.

A score is a log-likelihood ratio: the log-likelihood of a frame minus its log-likelihood under the
phone-loop background model (`background_scores`). So 0 means that the frame fits as well as in the
best sequence of phones. For this reason one price per filler frame suits loud, noisy and telephone
speech alike.

This is Viterbi in numpy over all states at once, without beams. 30 s of audio with 100 words take
3,000 steps over 1,500 states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.align.hmm.acoustics import STATES, Phones, Scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.align.hmm.lattice import Arc, Lattice

BLOCK_FRAMES: Final = 500
"""How many frames of emissions are computed at once."""
PHONE_PRICE: Final = 3.0
"""Nats that the phone loop pays for each new phone; else it would change phones in every frame."""

_NEVER = np.float32(-1e30)


def background_scores(phones: Phones, scores: Scores) -> np.ndarray:
    """Score each frame on the best path through a loop of all monophones; shape (n_frames,).

    Args:
        phones: of the model.
        scores: of at least all monophones.
    """
    senones = phones.all_monophones
    first = np.arange(0, len(senones), STATES)
    last = first + STATES - 1
    values = scores.values[:, scores.columns(senones)]
    stay, leave = phones.stay.ravel(), phones.leave.ravel()
    best = np.full(len(senones), _NEVER)
    moved = np.zeros(values.shape, bool)
    ended = np.zeros(len(values), np.int32)
    enter = np.float32(0.0)
    for frame, score in enumerate(values):
        arrive = np.empty_like(best)
        arrive[1:] = best[:-1] + leave[:-1]
        arrive[first] = enter - PHONE_PRICE
        best = best + stay
        np.greater(arrive, best, out=moved[frame])
        best = np.maximum(arrive, best) + score
        ends = best[last] + leave[last]
        ended[frame] = last[ends.argmax()]
        enter = ends.max()
    best_scores: np.ndarray = values[np.arange(len(values)), _states(moved, ended)]
    return best_scores


def _states(moved: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Trace the states of the best path through the phone loop."""
    path = np.zeros(len(ended), np.int32)
    state = int(ended[-1]) if len(ended) else 0
    for frame in range(len(ended) - 1, -1, -1):
        path[frame] = state
        if moved[frame, state]:
            state = state - 1 if state % STATES else int(ended[frame - 1])
    return path


@dataclass(frozen=True, slots=True)
class Step:
    """The frames [start, start + n) that the best path spends on one arc.

    Attributes:
        scores: log-likelihood ratio of each frame, shape (n,).
    """

    arc: Arc
    start: int
    scores: np.ndarray

    @property
    def end(self) -> int:
        """The frame after its last one."""
        return self.start + len(self.scores)


def best_path(
    lattice: Lattice, scores: Scores, background: np.ndarray, *, whole: bool = True
) -> list[Step]:
    """Find the best path from the first junction to the last.

    Args:
        lattice: the text, pauses and fillers.
        scores: of at least the senones of the lattice.
        background: `background_scores` of the same audio.
        whole: the audio holds all of the text; otherwise the path may end at any junction.

    Returns:
        The steps of the path in order; tokens that it skips have none. A path always exists: if the
        text has more states than the audio has frames, tokens are skipped.
    """
    search = _Search(lattice)
    search.forward(_emissions(lattice, scores, background))
    return search.backward(whole=whole)


def _emissions(lattice: Lattice, scores: Scores, background: np.ndarray) -> Iterator[np.ndarray]:
    """Yield for each frame the log-likelihood ratio of every state, shape (n_states,)."""
    groups = sorted(set(lattice.senones))
    number = {group: index for index, group in enumerate(groups)}
    group_of_state = np.array([number[group] for group in lattice.senones])
    width = max(map(len, groups))
    padded = np.array([[*group, *group[:1] * (width - len(group))] for group in groups if group])
    columns = scores.columns(padded)
    for begin in range(0, len(scores), BLOCK_FRAMES):
        block = scores.values[begin : begin + BLOCK_FRAMES]
        best = block[:, columns[:, 0]]
        for column in columns.T[1:]:
            np.maximum(best, block[:, column], out=best)
        ratios = best - background[begin : begin + len(block), None]
        if not groups[0]:  # the state of fillers has no senones, so it sorts first
            fillers = np.full((len(block), 1), -lattice.filler_price)
            ratios = np.concatenate((fillers, ratios), axis=1)
        for row in ratios.astype(np.float32):
            yield row[group_of_state]


class _Search:
    """One search. Arcs are sorted by their target node."""

    def __init__(self, lattice: Lattice) -> None:
        self._arcs = arcs = sorted(lattice.arcs, key=lambda arc: arc.target)
        self._first = np.array([arc.first for arc in arcs])
        self._last = np.array([arc.end - 1 for arc in arcs])
        self._source = np.array([arc.source for arc in arcs])
        self._price = np.array([arc.price for arc in arcs], np.float32)
        self._leave = np.array([arc.leave for arc in arcs], np.float32)
        targets = np.array([arc.target for arc in arcs])
        self._entered, self._into = np.unique(targets, return_index=True)
        self._stay = np.array(lattice.stay, np.float32)
        self._step = np.array(lattice.step, np.float32)
        self._main = np.array(lattice.junctions)
        self._skips = np.concatenate(([0.0], np.cumsum(lattice.skips)))
        self._at_node = np.full(lattice.n_nodes, _NEVER)
        # `forward` keeps these for `backward`: one item for each frame.
        self._moved: list[np.ndarray] = []
        self._ends: list[np.ndarray] = []
        self._skipped: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []

    def forward(self, emissions: Iterator[np.ndarray]) -> None:
        """Score the best path into every node at every frame."""
        self._at_node[self._main[0]] = 0.0
        self._skip_tokens()
        best = np.full(len(self._stay), _NEVER)
        for score in emissions:
            arrive = np.empty_like(best)
            arrive[1:] = best[:-1] + self._step[1:]
            arrive[self._first] = self._at_node[self._source] - self._price
            best = best + self._stay
            self._moved.append(arrive > best)
            best = np.maximum(arrive, best) + score
            self._scores.append(score)
            ends = best[self._last] + self._leave
            self._ends.append(ends)
            self._at_node.fill(_NEVER)
            self._at_node[self._entered] = np.maximum.reduceat(ends, self._into)
            self._skip_tokens()

    def _skip_tokens(self) -> None:
        """Let every junction be reached from earlier ones at the price of the tokens between."""
        total = self._at_node[self._main] + self._skips
        best = np.maximum.accumulate(total)
        self._skipped.append(best > total)
        self._at_node[self._main] = best - self._skips

    def backward(self, *, whole: bool) -> list[Step]:
        """Trace the path that ends in the last junction if `whole`, otherwise in the best one."""
        steps: list[Step] = []
        frame = len(self._scores)
        at = len(self._main) - 1 if whole else int(self._at_node[self._main].argmax())
        node = int(self._main[at])
        while frame or at:
            if node == self._main[at] and at and self._skipped[frame][at]:
                at -= 1
                node = int(self._main[at])
                continue
            step = self._step_into(node, frame)
            steps.append(step)
            frame, node = step.start, step.arc.source
            if at and node == self._main[at - 1]:
                at -= 1
        return steps[::-1]

    def _step_into(self, node: int, frame: int) -> Step:
        """Trace the arc by which the path reached `node` after `frame` frames."""
        index = int(np.searchsorted(self._entered, node))
        begin = int(self._into[index])
        end = int(self._into[index + 1]) if index + 1 < len(self._into) else len(self._arcs)
        arc = self._arcs[begin + int(self._ends[frame - 1][begin:end].argmax())]
        state = arc.end - 1
        states: list[int] = []
        while True:
            frame -= 1
            states.append(state)
            if self._moved[frame][state]:
                if state == arc.first:
                    break
                state -= 1
        path = states[::-1]
        scores = np.array([self._scores[frame + i][s] for i, s in enumerate(path)])
        return Step(arc, frame, scores)
