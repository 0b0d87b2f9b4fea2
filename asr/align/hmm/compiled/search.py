"""The searches of `asr.align.hmm.viterbi`, compiled.

The arguments are the same, and the results are the same to the last bit.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import types

from asr.align.hmm.acoustics import STATES
from asr.align.hmm.compiled.compiler import compiled, inlined
from asr.align.hmm.viterbi import Graph, Trace

_NEVER: Final = np.float32(-1e30)
_FLOATS: Final = types.float32[::1]
_INTEGERS: Final = types.int64[::1]
_FLAGS: Final = types.boolean[:, ::1]
_GRAPH: Final = types.NamedTuple(
    (
        _INTEGERS, _INTEGERS, types.float32, _INTEGERS, _FLOATS, _FLOATS, _INTEGERS, _INTEGERS,
        _INTEGERS, _FLOATS, _FLOATS, _INTEGERS, _INTEGERS, types.float64[::1],
    ),
    Graph,
)  # fmt: skip
_TRACE: Final = types.NamedTuple((_FLAGS, types.int32[:, ::1], _FLAGS, _FLOATS), Trace)
_MATRIX: Final = types.float32[:, ::1]


@inlined
def _advance(best: Any, arrive: Any, stay: Any, scores: Any, moved: Any) -> None:
    """Let the path into each state stay or arrive, whichever is better, and add its score."""
    for state in range(len(best)):
        stayed = best[state] + stay[state]
        moved[state] = arrive[state] > stayed
        best[state] = max(arrive[state], stayed) + scores[state]


@inlined
def _fill_ratios(graph: Any, values: Any, background: Any, ratios: Any) -> None:
    start = 0
    for group in range(len(graph.ends)):
        end = graph.ends[group]
        highest = _NEVER
        for place in range(start, end):
            highest = max(highest, values[graph.columns[place]])
        ratios[group] = highest - background if end > start else -graph.filler_price
        start = end


@inlined
def _enter_nodes(graph: Any, best: Any, at_node: Any, chosen: Any) -> None:
    """Find the best arc into each node."""
    for node in range(len(at_node)):
        first = graph.into[node]
        highest = best[graph.last[first]] + graph.leave[first]
        for arc in range(first + 1, graph.into[node + 1]):
            score = best[graph.last[arc]] + graph.leave[arc]
            if score > highest:
                highest = score
                first = arc
        at_node[node] = highest
        chosen[node] = first


@inlined
def _skip_tokens(graph: Any, at_node: Any, skipped: Any) -> None:
    """Let paths skip tokens: from any earlier junction, at the price of the tokens between."""
    highest = -np.inf
    for place in range(len(graph.junctions)):
        node = graph.junctions[place]
        total = at_node[node] + graph.skips[place]
        skipped[place] = highest > total
        highest = max(highest, total)
        at_node[node] = highest - graph.skips[place]


@compiled(types.void(_MATRIX, _FLOATS, _FLOATS, types.float32, _FLAGS, types.int32[::1]))
def search_loop(values: Any, stay: Any, leave: Any, price: Any, moved: Any, ended: Any) -> None:
    """Search the phone loop; see `asr.align.hmm.viterbi.search_loop`."""
    n_states = len(stay)
    best, arrive = np.full(n_states, _NEVER, np.float32), np.empty(n_states, np.float32)
    enter = np.float32(0.0)
    for frame in range(len(values)):
        for state in range(1, n_states):
            arrive[state] = best[state - 1] + leave[state - 1]
        for state in range(0, n_states, STATES):
            arrive[state] = enter - price
        _advance(best, arrive, stay, values[frame], moved[frame])
        enter = best[STATES - 1] + leave[STATES - 1]
        ended[frame] = STATES - 1
        for state in range(2 * STATES - 1, n_states, STATES):
            score = best[state] + leave[state]
            if score > enter:
                enter = score
                ended[frame] = state


@compiled(types.void(_GRAPH, _MATRIX, _FLOATS, _TRACE))
def search_lattice(graph: Any, values: Any, background: Any, trace: Any) -> None:
    """Score the best path into every node; see `asr.align.hmm.viterbi.search_lattice`."""
    n_states = len(graph.stay)
    best, arrive = np.full(n_states, _NEVER, np.float32), np.empty(n_states, np.float32)
    ratios = np.empty(len(graph.ends), np.float32)
    scores = np.empty(n_states, np.float32)
    trace.at_node[graph.junctions[0]] = 0.0
    _skip_tokens(graph, trace.at_node, trace.skipped[0])
    for frame in range(len(values)):
        _fill_ratios(graph, values[frame], background[frame], ratios)
        for state in range(n_states):
            scores[state] = ratios[graph.group[state]]
        for state in range(1, n_states):
            arrive[state] = best[state - 1] + graph.step[state]
        for arc in range(len(graph.first)):
            arrive[graph.first[arc]] = trace.at_node[graph.source[arc]] - graph.price[arc]
        _advance(best, arrive, graph.stay, scores, trace.moved[frame])
        _enter_nodes(graph, best, trace.at_node, trace.chosen[frame])
        _skip_tokens(graph, trace.at_node, trace.skipped[frame + 1])
