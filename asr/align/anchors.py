"""Which words of a known text were recognised where: the anchors of a long alignment.

The recogniser may be weak. Runs of several words in a row that text and recognition share, each
unique where it is looked for, are found first (as ``patience diff`` does with lines) and divide the
rest; what lies between two of them is aligned by dynamic programming. Words that match alone, far
from any other, prove nothing and are dropped.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asr.types import Word

MAX_CELLS = 4_000_000
"""Of a table of dynamic programming; a larger stretch without anchors stays without."""
MAX_DEPTH = 100
"""Of divisions inside each other; a natural text needs about ten."""
ISLAND_WORDS = 3
"""Matches that stand together before they count."""
ISLAND_GAP = 3
"""Words between two matches of an island, in the text or in the recognition, at the most."""

_RUNS = (4, 3, 2)
_GAP = -0.5
_OTHER = -0.6
_PARTS = re.compile(r"[-/\u2010-\u2014]+")

Pair = tuple[int, int]


class Anchor(NamedTuple):
    """A token of the text that was recognised.

    Attributes:
        token: its index.
        first: index of the first recognised word that it is.
        last: index of the last; "forty-two" may be two words.
    """

    token: int
    first: int
    last: int


def find_anchors(tokens: Sequence[str], heard: Sequence[Word]) -> list[Anchor]:
    """The tokens that were recognised, in order of the text and of time alike."""
    said, owners = _units(tokens)
    keys, sources = _units([word.text for word in heard])
    pairs = _islands(match(said, keys))
    spans: dict[int, list[int]] = {}
    for i, j in pairs:
        spans.setdefault(owners[i], []).append(sources[j])
    n_units = Counter(owners)
    anchors: list[Anchor] = []
    for token, found in spans.items():
        follows = not anchors or found[0] > anchors[-1].last
        if len(found) == n_units[token] and follows:
            anchors.append(Anchor(token, found[0], found[-1]))
    return anchors


def match(left: Sequence[str], right: Sequence[str]) -> list[Pair]:
    """Pairs of equal items, increasing on both sides, as many in a row as there are."""
    bounds = _split(left, right, (0, len(left)), (0, len(right)), _RUNS)
    pairs: list[Pair] = []
    for (i, j), (i_next, j_next) in pairwise([(-1, -1), *bounds, (len(left), len(right))]):
        pairs += [
            (i + 1 + a, j + 1 + b) for a, b in _align(left[i + 1 : i_next], right[j + 1 : j_next])
        ]
        if i_next < len(left):
            pairs.append((i_next, j_next))
    return pairs


def _units(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """Words as they are compared, without case, marks and hyphens, and the text of each."""
    keys, owners = [], []
    for index, text in enumerate(texts):
        plain = unicodedata.normalize("NFKD", text).casefold()
        for part in _PARTS.split(plain):
            key = "".join(sign for sign in part if sign.isalnum())
            if key:
                keys.append(key)
                owners.append(index)
    return keys, owners


def _split(
    left: Sequence[str], right: Sequence[str], a: Pair, b: Pair, runs: Sequence[int], depth: int = 0
) -> list[Pair]:
    """Anchors by runs of words unique in left[a] and right[b], the longest runs first."""
    if not runs or depth == MAX_DEPTH or (a[1] - a[0]) * (b[1] - b[0]) == 0:
        return []
    n, rest = runs[0], runs[1:]
    ours, theirs = _unique_runs(left, a, n), _unique_runs(right, b, n)
    found = _longest_rise(sorted((ours[run], theirs[run]) for run in ours.keys() & theirs.keys()))
    certain = sorted({(i + k, j + k) for i, j in found for k in range(n)})
    certain = _longest_rise(certain)
    pairs: list[Pair] = []
    for (i, j), (i_next, j_next) in pairwise([(a[0] - 1, b[0] - 1), *certain, (a[1], b[1])]):
        deeper = runs if certain else rest
        pairs += _split(left, right, (i + 1, i_next), (j + 1, j_next), deeper, depth + 1)
        if i_next < a[1]:
            pairs.append((i_next, j_next))
    return pairs


def _unique_runs(words: Sequence[str], span: Pair, n: int) -> dict[tuple[str, ...], int]:
    """Runs of n words that occur once between two places, and where."""
    places: dict[tuple[str, ...], int] = {}
    for start in range(span[0], span[1] - n + 1):
        run = tuple(words[start : start + n])
        places[run] = -1 if run in places else start
    return {run: start for run, start in places.items() if start >= 0}


def _longest_rise(pairs: Sequence[Pair]) -> list[Pair]:
    """The longest chain of pairs, sorted by their first, in which the second rises too."""
    tails: list[int] = []  # the least second of a chain of each length
    ends: list[int] = []  # its pair
    before: list[int] = []
    for index, (i, j) in enumerate(pairs):
        length = bisect_left(tails, j)
        previous = ends[length - 1] if length else -1
        while previous >= 0 and pairs[previous][0] >= i:
            previous = before[previous]
        before.append(previous)
        tails[length : length + 1] = [j]
        ends[length : length + 1] = [index]
    chain = []
    index = ends[-1] if ends else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def _align(left: Sequence[str], right: Sequence[str]) -> list[Pair]:
    """Equal items on the best path of an edit alignment; long words weigh more."""
    if not left or not right or len(left) * len(right) > MAX_CELLS:
        return []
    index = {key: number for number, key in enumerate(dict.fromkeys([*left, *right]))}
    theirs = np.array([index[key] for key in right])
    weights = np.array([1 + min(len(key), 8) / 4 for key in right])
    steps = _GAP * np.arange(len(right) + 1)
    table = np.empty((len(left) + 1, len(right) + 1), np.float32)
    table[0] = steps
    for i, key in enumerate(left):
        score = np.where(theirs == index[key], weights, _OTHER)
        row = np.concatenate(([table[i, 0] + _GAP], table[i, :-1] + score))
        row[1:] = np.maximum(row[1:], table[i, 1:] + _GAP)
        table[i + 1] = np.maximum.accumulate(row - steps) + steps
    return _trace(left, right, table, weights)


def _trace(
    left: Sequence[str], right: Sequence[str], table: np.ndarray, weights: np.ndarray
) -> list[Pair]:
    pairs = []
    i, j = len(left), len(right)
    while i and j:
        here = table[i, j]
        equal = left[i - 1] == right[j - 1]
        score = weights[j - 1] if equal else _OTHER
        if abs(here - table[i - 1, j - 1] - score) < 1e-3:
            i, j = i - 1, j - 1
            if equal:
                pairs.append((i, j))
        elif abs(here - table[i - 1, j] - _GAP) < 1e-3:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _islands(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that stand among others."""
    islands: list[list[Pair]] = [[]]
    for pair in pairs:
        if islands[-1]:
            i, j = islands[-1][-1]
            if pair[0] - i > ISLAND_GAP or pair[1] - j > ISLAND_GAP:
                islands.append([])
        islands[-1].append(pair)
    return [pair for island in islands if len(island) >= ISLAND_WORDS for pair in island]
