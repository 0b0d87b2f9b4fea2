"""The exact search for the best way through a lattice, frame by frame.

Scores are log-likelihood ratios: each frame's likelihood against what a free loop of phones makes
of it (`loop_scores`). So 0 means "as good as any sounds would be", and one price of a frame that
belongs to no word holds in loud, noisy and telephone speech alike.

Viterbi in numpy over all states at once, without beams: 30 s of audio and 100 words are 3,000 steps
over 1,500 states.
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
"""Emissions are made for so many frames at once."""
PHONE_PRICE: Final = 3.0
"""Nats that the loop pays for each new phone; else it would change phones with every frame."""

_NEVER = np.float32(-1e30)


def loop_scores(phones: Phones, heard: Scores) -> np.ndarray:
    """What a loop over all phones, without context, makes of each frame; shape (n_frames,)."""
    senones = phones.all_alone
    first = np.arange(0, len(senones), STATES)
    last = first + STATES - 1
    scores = heard.values[:, heard.columns(senones)]
    stay, leave = phones.stay.ravel(), phones.leave.ravel()
    best = np.full(len(senones), _NEVER)
    moved = np.zeros(scores.shape, bool)
    ended = np.zeros(len(scores), np.int32)
    enter = np.float32(0.0)
    for frame, score in enumerate(scores):
        arrive = np.empty_like(best)
        arrive[1:] = best[:-1] + leave[:-1]
        arrive[first] = enter - PHONE_PRICE
        best = best + stay
        np.greater(arrive, best, out=moved[frame])
        best = np.maximum(arrive, best) + score
        ends = best[last] + leave[last]
        ended[frame] = last[ends.argmax()]
        enter = ends.max()
    best_scores: np.ndarray = scores[np.arange(len(scores)), _states(moved, ended)]
    return best_scores


def _states(moved: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """The states of the best path through the loop."""
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
        scores: the log-likelihood ratio of each frame, shape (n,).
        states: which state of the arc each frame belongs to, shape (n,).
    """

    arc: Arc
    start: int
    scores: np.ndarray
    states: np.ndarray

    @property
    def end(self) -> int:
        """The frame after its last one."""
        return self.start + len(self.scores)


def best_path(
    lattice: Lattice, heard: Scores, loop: np.ndarray, *, whole: bool = True
) -> list[Step]:
    """The best path from the first junction to the last.

    Args:
        lattice: what may be heard.
        heard: at least the senones of the lattice.
        loop: what `loop_scores` says of them.
        whole: all of the text is in the audio; else the path may end at any junction.

    Returns:
        Its steps in order, without the tokens that it passed over. There is always one, for as
        many tokens are passed over as the text has states too many.
    """
    search = _Search(lattice)
    search.forward(_emissions(lattice, heard, loop))
    return search.backward(whole=whole)


def _emissions(lattice: Lattice, heard: Scores, loop: np.ndarray) -> Iterator[np.ndarray]:
    """The log-likelihood ratio of every state in each frame, shape (n_states,)."""
    groups = sorted(set(lattice.senones))
    number = {group: index for index, group in enumerate(groups)}
    group_of_state = np.array([number[group] for group in lattice.senones])
    width = max(map(len, groups))
    padded = np.array([[*group, *group[:1] * (width - len(group))] for group in groups if group])
    places = heard.columns(padded)
    for begin in range(0, len(heard), BLOCK_FRAMES):
        some = heard.values[begin : begin + BLOCK_FRAMES]
        best = some[:, places[:, 0]]
        for column in places.T[1:]:
            np.maximum(best, some[:, column], out=best)
        ratios = best - loop[begin : begin + len(some), None]
        if not groups[0]:  # speech outside the words, which sorts first
            outside = np.full((len(some), 1), -lattice.other_price)
            ratios = np.concatenate((outside, ratios), axis=1)
        for row in ratios.astype(np.float32):
            yield row[group_of_state]


class _Search:
    """The state of one search. Arcs are sorted by the node that they lead to."""

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
        # What the way back needs, for each frame.
        self._moved: list[np.ndarray] = []
        self._ends: list[np.ndarray] = []
        self._skipped: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []

    def forward(self, emissions: Iterator[np.ndarray]) -> None:
        """Go through all frames."""
        self._at_node[self._main[0]] = 0.0
        self._pass_over()
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
            self._pass_over()

    def _pass_over(self) -> None:
        """Let every junction be reached from the ones before it, at the price of the tokens."""
        total = self._at_node[self._main] + self._skips
        best = np.maximum.accumulate(total)
        self._skipped.append(best > total)
        self._at_node[self._main] = best - self._skips

    def backward(self, *, whole: bool) -> list[Step]:
        """The path that ends in the last junction, or in the best one."""
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
        """The arc by which the path came to `node` with `frame` frames behind it."""
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
        path = np.array(states[::-1])
        scores = np.array([self._scores[frame + i][s] for i, s in enumerate(path)])
        return Step(arc, frame, scores, path - arc.first)
