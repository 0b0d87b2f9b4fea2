"""Find anchors: words of a known text that a recogniser, perhaps a weak one, heard.

First we look for runs of several words that text and recognition share and that are unique in both.
These runs divide both into smaller stretches, which are searched in the same way. ``patience diff``
does this with lines. Stretches without such runs are aligned by dynamic programming. Isolated
matches prove nothing: groups of fewer than `ISLAND_WORDS` neighbouring matches are dropped.
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
"""Largest table of dynamic programming; a stretch that needs a larger one gets no anchors."""
MAX_DEPTH = 100
"""Deepest recursion of divisions; a natural text needs about ten."""
ISLAND_WORDS = 3
"""An island is a group of matches close together. It counts if it has at least this many."""
ISLAND_GAP = 3
"""Largest distance between consecutive matches of an island, in words of text or recognition."""

_RUNS = (4, 3, 2)
"""Lengths of the unique runs, in the order of the search."""
_GAP = -0.5
"""Score of a word that only one side has."""
_MISMATCH = -0.6
"""Score of two different words."""
_PARTS = re.compile(r"[-/\u2010-\u2014]+")

Pair = tuple[int, int]


class Anchor(NamedTuple):
    """A token of the text that was recognised.

    Attributes:
        token: index of the token in the text.
        first: index of the first recognised word that matches it.
        last: index of the last one: "forty-two" may have been recognised as two words.
    """

    token: int
    first: int
    last: int


def find_anchors(tokens: Sequence[str], heard: Sequence[Word]) -> list[Anchor]:
    """Find the tokens that were recognised; their order is the same in the text and in time."""
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
    """Match equal items of two sequences; return pairs of indexes, ascending on both sides."""
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
    """Normalise texts to words without case, accents, punctuation and hyphens.

    Returns:
        The normalised words, and for each the index of its text.
    """
    keys, owners = [], []
    for index, text in enumerate(texts):
        plain = unicodedata.normalize("NFKD", text).casefold()
        for part in _PARTS.split(plain):
            key = "".join(character for character in part if character.isalnum())
            if key:
                keys.append(key)
                owners.append(index)
    return keys, owners


def _split(
    left: Sequence[str], right: Sequence[str], a: Pair, b: Pair, runs: Sequence[int], depth: int = 0
) -> list[Pair]:
    """Pair runs of words that are unique in left[a] and in right[b], the longest runs first."""
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
    """Find the runs of n words that occur exactly once in a span, and their positions."""
    places: dict[tuple[str, ...], int] = {}
    for start in range(span[0], span[1] - n + 1):
        run = tuple(words[start : start + n])
        places[run] = -1 if run in places else start
    return {run: start for run, start in places.items() if start >= 0}


def _longest_rise(pairs: Sequence[Pair]) -> list[Pair]:
    """Find the longest chain of pairs whose indexes rise on both sides; `pairs` must be sorted."""
    tails: list[int] = []  # for each length of a chain, the smallest second index it can end with
    ends: list[int] = []  # the pair with which that chain ends
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
    """Pair equal words on the best path of an edit alignment; long words score higher."""
    if not left or not right or len(left) * len(right) > MAX_CELLS:
        return []
    index = {key: number for number, key in enumerate(dict.fromkeys([*left, *right]))}
    theirs = np.array([index[key] for key in right])
    weights = np.array([1 + min(len(key), 8) / 4 for key in right])
    steps = _GAP * np.arange(len(right) + 1)
    table = np.empty((len(left) + 1, len(right) + 1), np.float32)
    table[0] = steps
    for i, key in enumerate(left):
        score = np.where(theirs == index[key], weights, _MISMATCH)
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
        score = weights[j - 1] if equal else _MISMATCH
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
    """Drop pairs that have too few other pairs near them."""
    islands: list[list[Pair]] = [[]]
    for pair in pairs:
        if islands[-1]:
            i, j = islands[-1][-1]
            if pair[0] - i > ISLAND_GAP or pair[1] - j > ISLAND_GAP:
                islands.append([])
        islands[-1].append(pair)
    return [pair for island in islands if len(island) >= ISLAND_WORDS for pair in island]
