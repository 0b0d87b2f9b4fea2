"""Exact search for the best path through a lattice, frame by frame.

A score is a log-likelihood ratio: the log-likelihood of a frame minus its log-likelihood under the
phone-loop background model (`background_scores`). So 0 means that the frame fits as well as in the
best sequence of phones. For this reason one price per filler frame suits loud, noisy and telephone
speech alike.

This is Viterbi over all states, without beams. 30 s of audio with 100 words take 3,000 steps over
1,500 states. The loops over frames run in `asr.align.hmm.compiled.search`, or here in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from asr.align.hmm import compiled, memory
from asr.align.hmm.acoustics import STATES, Phones, Scores

if TYPE_CHECKING:
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
    values = np.take(scores.values, scores.columns(phones.all_monophones), axis=1)
    stay, leave = phones.stay.ravel(), phones.leave.ravel()
    moved = np.zeros(values.shape, bool)
    ended = np.zeros(len(values), np.int32)
    loops = compiled.load("search")
    search = search_loop if loops is None else loops.search_loop
    search(values, stay, leave, np.float32(PHONE_PRICE), moved, ended)
    best_scores: np.ndarray = values[np.arange(len(values)), _states(moved, ended)]
    return best_scores


def search_loop(
    values: np.ndarray,
    stay: np.ndarray,
    leave: np.ndarray,
    price: np.float32,
    moved: np.ndarray,
    ended: np.ndarray,
) -> None:
    """Search the phone loop; fill for each frame which states were entered and which phone ended.

    Args:
        values: the score of each state in each frame.
        stay: log-probability of staying in each state.
        leave: log-probability of leaving it.
        price: of each new phone.
        moved: is filled: whether the best path into a state comes from another state.
        ended: is filled: the last state of the phone that ends best.
    """
    first = np.arange(0, len(stay), STATES)
    last = first + STATES - 1
    best = np.full(len(stay), _NEVER)
    enter = np.float32(0.0)
    for frame, score in enumerate(values):
        arrive = np.empty_like(best)
        arrive[1:] = best[:-1] + leave[:-1]
        arrive[first] = enter - price
        best = best + stay
        np.greater(arrive, best, out=moved[frame])
        best = np.maximum(arrive, best) + score
        ends = best[last] + leave[last]
        ended[frame] = last[ends.argmax()]
        enter = ends.max()


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
    graph = _graph(lattice, scores)
    trace = _empty_trace(graph, len(scores))
    loops = compiled.load("search")
    search = search_lattice if loops is None else loops.search_lattice
    search(graph, scores.values, background, trace)
    return _Path(lattice, graph, trace).steps(scores.values, background, whole=whole)


class Graph(NamedTuple):
    """A lattice and its senones as arrays.

    States with the same senones form a group. Arcs are sorted by their target node.

    Attributes:
        columns: of the senones of all groups in the matrix of scores, group after group.
        ends: the place in `columns` after the last column of each group. A group without columns is
            that of the fillers.
        filler_price: nats for each frame of a filler.
        group: of each state.
        stay: log-probability of staying in each state.
        step: log-probability of entering each state from the one before it.
        first: the first state of each arc.
        last: the last state of each arc.
        source: the node that each arc leaves.
        price: nats for entering each arc.
        leave: log-probability of leaving the last state of each arc.
        into: the first arc into each node, and the number of arcs.
        junctions: the nodes between tokens.
        skips: nats for skipping all tokens before each junction.
    """

    columns: np.ndarray
    ends: np.ndarray
    filler_price: np.float32
    group: np.ndarray
    stay: np.ndarray
    step: np.ndarray
    first: np.ndarray
    last: np.ndarray
    source: np.ndarray
    price: np.ndarray
    leave: np.ndarray
    into: np.ndarray
    junctions: np.ndarray
    skips: np.ndarray


class Trace(NamedTuple):
    """What the search keeps of each frame, to trace the best path back.

    Attributes:
        moved: whether the best path into a state comes from another state, shape
            (n_frames, n_states).
        chosen: for each node the arc on which the best path enters it, shape (n_frames, n_nodes).
        skipped: whether the best path into a junction skips the token before it, shape
            (n_frames + 1, n_junctions). The first row is before the first frame.
        at_node: the score of the best path into each node after the last frame.
    """

    moved: np.ndarray
    chosen: np.ndarray
    skipped: np.ndarray
    at_node: np.ndarray


def _graph(lattice: Lattice, scores: Scores) -> Graph:
    arcs = sorted(lattice.arcs, key=lambda arc: arc.target)
    groups = sorted(set(lattice.senones))
    number = {group: index for index, group in enumerate(groups)}
    used = [senone for group in groups for senone in group]
    return Graph(
        columns=scores.columns(np.array(used, np.int64)),
        ends=np.cumsum([len(group) for group in groups]),
        filler_price=np.float32(lattice.filler_price),
        group=np.array([number[group] for group in lattice.senones]),
        stay=np.array(lattice.stay, np.float32),
        step=np.array(lattice.step, np.float32),
        first=np.array([arc.first for arc in arcs]),
        last=np.array([arc.end - 1 for arc in arcs]),
        source=np.array([arc.source for arc in arcs]),
        price=np.array([arc.price for arc in arcs], np.float32),
        leave=np.array([arc.leave for arc in arcs], np.float32),
        # Every node has a pause, so an arc leads into each of them.
        into=np.searchsorted([arc.target for arc in arcs], np.arange(lattice.n_nodes + 1)),
        junctions=np.array(lattice.junctions),
        skips=np.concatenate(([0.0], np.cumsum(lattice.skips))),
    )


def _empty_trace(graph: Graph, n_frames: int) -> Trace:
    n_nodes = len(graph.into) - 1
    return Trace(
        moved=memory.zeros((n_frames, len(graph.stay)), bool),
        chosen=memory.zeros((n_frames, n_nodes), np.int32),
        skipped=np.empty((n_frames + 1, len(graph.junctions)), bool),
        at_node=np.full(n_nodes, _NEVER),
    )


def search_lattice(graph: Graph, values: np.ndarray, background: np.ndarray, trace: Trace) -> None:
    """Score the best path into every node at every frame.

    Args:
        graph: the lattice.
        values: the scores of all senones in each frame.
        background: `background_scores` of the same audio.
        trace: is filled.
    """
    at_node = trace.at_node
    at_node[graph.junctions[0]] = 0.0
    _skip_tokens(graph, at_node, trace.skipped[0])
    best = np.full(len(graph.stay), _NEVER)
    arrive = np.empty_like(best)
    for begin in range(0, len(values), BLOCK_FRAMES):
        block = slice(begin, begin + BLOCK_FRAMES)
        ratios = _block_ratios(graph, values[block], background[block])
        ends = np.empty((len(ratios), len(graph.last)), np.float32)
        for row, frame in enumerate(range(begin, begin + len(ratios))):
            np.add(best[:-1], graph.step[1:], out=arrive[1:])
            arrive[graph.first] = at_node[graph.source] - graph.price
            best += graph.stay
            np.greater(arrive, best, out=trace.moved[frame])
            np.maximum(arrive, best, out=best)
            best += ratios[row][graph.group]
            np.add(best[graph.last], graph.leave, out=ends[row])
            np.maximum.reduceat(ends[row], graph.into[:-1], out=at_node)
            _skip_tokens(graph, at_node, trace.skipped[frame + 1])
        trace.chosen[block] = _first_highest(ends, graph.into)


def _first_highest(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Find the first highest value of each stretch of each row."""
    highest = np.maximum.reduceat(values, bounds[:-1], axis=1)
    is_highest = values == np.repeat(highest, np.diff(bounds), axis=1)
    places = np.where(is_highest, np.arange(values.shape[1], dtype=np.int32), values.shape[1])
    first: np.ndarray = np.minimum.reduceat(places, bounds[:-1], axis=1)
    return first


def _skip_tokens(graph: Graph, at_node: np.ndarray, skipped: np.ndarray) -> None:
    """Let every junction be reached from earlier ones at the price of the tokens between."""
    total = at_node[graph.junctions] + graph.skips
    best = np.maximum.accumulate(total)
    np.greater(best, total, out=skipped)
    at_node[graph.junctions] = best - graph.skips


def _block_ratios(graph: Graph, values: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Compute the log-likelihood ratios of all groups of states, shape (n_frames, n_groups)."""
    starts = np.concatenate(([0], graph.ends[:-1]))
    sizes = graph.ends - starts
    best = np.full((len(values), len(sizes)), _NEVER)
    for place in range(int(sizes.max())):
        groups = np.flatnonzero(sizes > place)
        found = np.take(values, graph.columns[starts[groups] + place], axis=1)
        best[:, groups] = np.maximum(best[:, groups], found) if place else found
    best -= background[:, None]
    best[:, sizes == 0] = -graph.filler_price
    return best


def _ratios(
    graph: Graph,
    values: np.ndarray,
    background: np.ndarray,
    frames: np.ndarray,
    groups: np.ndarray,
) -> np.ndarray:
    """Compute the log-likelihood ratios of groups of states in frames; the two are broadcast."""
    starts = np.concatenate(([0], graph.ends[:-1]))
    sizes = graph.ends - starts
    best = np.full(np.broadcast_shapes(frames.shape, groups.shape), _NEVER)
    for place in range(int(sizes.max())):
        # A shorter group repeats its last column.
        at = starts + np.minimum(place, np.maximum(sizes, 1) - 1)
        columns = graph.columns[np.minimum(at, len(graph.columns) - 1)]
        np.maximum(best, values[frames, columns[groups]], out=best)
    ratios = best - background[frames]
    return np.where(sizes[groups] > 0, ratios, -graph.filler_price)


class _Path:
    """Traces the best path back."""

    def __init__(self, lattice: Lattice, graph: Graph, trace: Trace) -> None:
        self._arcs = sorted(lattice.arcs, key=lambda arc: arc.target)
        self._graph = graph
        self._trace = trace

    def steps(self, values: np.ndarray, background: np.ndarray, *, whole: bool) -> list[Step]:
        """List the steps of the path to the last junction if `whole`, else to the best one."""
        found, states = self._trace_back(whole=whole)
        frames = np.arange(len(states))
        scores = _ratios(self._graph, values, background, frames, self._graph.group[states])
        return [Step(arc, start, scores[start:end]) for arc, start, end in found]

    def _trace_back(self, *, whole: bool) -> tuple[list[tuple[Arc, int, int]], np.ndarray]:
        """Find the arcs of the path with their frames [start, end), and the state of each frame."""
        main, skipped = self._graph.junctions.tolist(), self._trace.skipped
        frame = len(self._trace.moved)
        states = np.zeros(frame, np.int64)
        steps: list[tuple[Arc, int, int]] = []
        at = len(main) - 1 if whole else int(self._trace.at_node[self._graph.junctions].argmax())
        node = main[at]
        while frame or at:
            if node == main[at] and at and skipped[frame, at]:
                at -= 1
                node = main[at]
                continue
            arc = self._arcs[self._trace.chosen[frame - 1, node]]
            start = self._entry(arc, frame, states)
            steps.append((arc, start, frame))
            frame, node = start, arc.source
            if at and node == main[at - 1]:
                at -= 1
        return steps[::-1], states

    def _entry(self, arc: Arc, frame: int, states: np.ndarray) -> int:
        """Return the frame in which the path enters an arc that it leaves after `frame` frames.

        The states of the frames between are written into `states`.
        """
        moved = self._trace.moved
        state = arc.end - 1
        while True:
            frame -= 1
            states[frame] = state
            if moved[frame, state]:
                if state == arc.first:
                    return frame
                state -= 1
