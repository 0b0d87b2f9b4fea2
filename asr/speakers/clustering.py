"""Group the embeddings of windows into voices, in bounded memory.

1. Average linkage joins windows above the cosine `Thresholds.pure`, in blocks of `BLOCK` windows,
   and then the clusters of all blocks. Each cluster is one voice, but a voice may have several.
2. Two clusters are joined while the mean cosine *between* them is more than `Thresholds.relative`
   of the mean cosine *inside* them. A telephone or a room raises the cosines of all voices alike,
   so a fixed number would fail, and this ratio does not.
   The cosine inside counts for at most that inside the largest cluster: a loop or a steady sound is
   more like itself than any voice.
3. Clusters with fewer than `Thresholds.least_windows` windows have no cosines inside that could be
   trusted. They go to the nearest voice. Repetitions of a window count once, so that a recording
   that is played in a loop has no more voices than the recording.

A cluster is kept as the sum of its unit vectors and their number. The mean cosine between two
clusters is the product of their sums divided by both numbers, so it is exact. Memory grows with
BLOCK² and MAX_CLUSTERS², not with the square of the length of the recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.speakers.thresholds import Thresholds

BLOCK: Final = 600
"""Windows that are clustered at once: 7.5 minutes of speech."""
MAX_CLUSTERS: Final = 1000
"""Clusters that are compared with each other. The smallest ones beyond go to the nearest voice."""
FEW: Final = 3
"""Embeddings. The mean cosine inside a smaller group says nothing."""
REPEATED: Final = 0.85
"""Cosine from which on two windows are the same sound, played again. Windows of one voice with
other words stay below 0.81."""
NEIGHBOURS: Final = 2
"""Windows so near to each other overlap. They are alike, but not repeated."""
STRICTEST: Final = 0.95
"""Cosine. Where a number of speakers is asked for, the first step gets stricter up to this."""
_NEVER: Final = -9.0
"""Below every cosine: marks pairs that cannot be joined."""


@dataclass(slots=True)
class _Clusters:
    """Clusters of embeddings.

    Attributes:
        sums: of the unit vectors of each cluster, shape (n_clusters, size).
        counts: of the vectors, as floats.
        labels: the cluster of each embedding.
    """

    sums: np.ndarray
    counts: np.ndarray
    labels: np.ndarray

    def joined(self, owners: np.ndarray) -> _Clusters:
        """Join the clusters with the same owner. Owners are 0, 1, 2, ..."""
        n_owners = int(owners.max()) + 1
        sums = np.zeros((n_owners, self.sums.shape[1]))
        np.add.at(sums, owners, self.sums)
        counts = np.bincount(owners, self.counts, n_owners)
        return _Clusters(sums, counts, owners[self.labels])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; a zero vector stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: np.ndarray = vectors / np.maximum(lengths, 1e-9)
    return scaled


def cluster(
    embeddings: np.ndarray, thresholds: Thresholds, fewest: int = 1, most: int | None = None
) -> np.ndarray:
    """The voice of each embedding: 0, 1, 2, ... in order of first appearance.

    Args:
        embeddings: shape (n, size), at least one.
        thresholds: of the model.
        fewest: voices to find, if there are as many embeddings.
        most: voices; None for no limit.
    """
    pure = thresholds.pure
    found = _pure_clusters(embeddings, pure)
    while len(found.counts) < min(fewest, len(embeddings)) and pure < STRICTEST:
        pure = min(pure + 0.1, STRICTEST)
        found = _pure_clusters(embeddings, pure)
    sizes = _sizes(found, embeddings, thresholds.least_windows(len(embeddings)))
    return by_appearance(_join_by_ratio(found, sizes, thresholds, fewest, most).labels)


def by_appearance(labels: np.ndarray) -> np.ndarray:
    """The labels renumbered in order of first appearance."""
    values, first = np.unique(labels, return_index=True)
    order = np.empty(int(values.max()) + 1, np.int64)
    order[values[np.argsort(first)]] = np.arange(len(values))
    renumbered: np.ndarray = order[labels]
    return renumbered


def centroids(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean direction of each label's embeddings, as unit vectors."""
    return unit(_sums(embeddings, labels))


def least_inside(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """The least mean cosine inside a label with at least `FEW` embeddings; 1.0 without one."""
    counts = np.bincount(labels)
    large = counts >= FEW
    squares = (_sums(embeddings, labels)[large] ** 2).sum(axis=1)
    inside = (squares - counts[large]) / (counts[large] * (counts[large] - 1))
    return float(inside.min(initial=1.0))


def _sums(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The sum of the unit vectors of each label."""
    sums = np.zeros((int(labels.max()) + 1, embeddings.shape[1]))
    for start in range(0, len(labels), BLOCK):
        block = slice(start, start + BLOCK)
        np.add.at(sums, labels[block], unit(embeddings[block].astype(np.float32)))
    return sums


def _pure_clusters(embeddings: np.ndarray, pure: float) -> _Clusters:
    """The first step: clusters that hold one voice each."""
    blocks = list(_blocks(embeddings, pure))
    offsets = np.cumsum([0, *(len(block.counts) for block in blocks)])
    whole = _Clusters(
        np.concatenate([block.sums for block in blocks]),
        np.concatenate([block.counts for block in blocks]),
        np.concatenate([it.labels + start for it, start in zip(blocks, offsets, strict=False)]),
    )
    return whole if len(blocks) == 1 else _join_in_groups(whole, pure)


def _blocks(embeddings: np.ndarray, pure: float) -> Iterator[_Clusters]:
    n_blocks = max(1, round(len(embeddings) / BLOCK))
    for block in np.array_split(embeddings, n_blocks):
        vectors = unit(block.astype(np.float32))
        labels = _average_linkage(vectors, pure)
        sums = np.zeros((labels.max() + 1, vectors.shape[1]))
        np.add.at(sums, labels, vectors)
        yield _Clusters(sums, np.bincount(labels).astype(float), labels)


def _average_linkage(vectors: np.ndarray, pure: float) -> np.ndarray:
    if len(vectors) == 1:
        return np.zeros(1, np.int64)
    upper = np.triu_indices(len(vectors), 1)
    distances = np.clip(1 - (vectors @ vectors.T)[upper], 0, 2)
    labels: np.ndarray = fcluster(linkage(distances, "average"), 1 - pure, "distance")
    return labels.astype(np.int64) - 1


def _join_in_groups(found: _Clusters, pure: float) -> _Clusters:
    """Join the clusters of neighbouring blocks until all fit into one comparison.

    If the windows are so different that they do not, only the largest clusters are compared.
    """
    while len(found.counts) > MAX_CLUSTERS:
        n_before = len(found.counts)
        found = found.joined(_owners_in_groups(found, pure))
        if len(found.counts) > 0.9 * n_before:
            break
    kept = _largest(found.counts, MAX_CLUSTERS)
    owners = np.arange(len(found.counts))
    owners[kept] = kept[_average_joins(found.sums[kept], found.counts[kept], pure)]
    return found.joined(np.unique(owners, return_inverse=True)[1])


def _owners_in_groups(found: _Clusters, pure: float) -> np.ndarray:
    owners = np.empty(len(found.counts), np.int64)
    n_owners = 0
    for start in range(0, len(owners), MAX_CLUSTERS):
        group = slice(start, start + MAX_CLUSTERS)
        joins = _average_joins(found.sums[group], found.counts[group], pure)
        owners[group] = n_owners + np.unique(joins, return_inverse=True)[1]
        n_owners = int(owners[group].max()) + 1
    return owners


def _largest(counts: np.ndarray, most: int) -> np.ndarray:
    """The indices of the largest clusters, ascending."""
    return np.sort(np.argsort(-counts, kind="stable")[:most])


def _average_joins(sums: np.ndarray, counts: np.ndarray, pure: float) -> np.ndarray:
    """Average linkage of clusters: the index of the cluster that each one is joined to."""
    gram, counts = sums @ sums.T, counts.copy()
    means = _means(gram, counts)
    owners = np.arange(len(counts))
    nearest = means.argmax(axis=1)
    nearest_mean = means[owners, nearest]
    while nearest_mean.max(initial=_NEVER) >= pure:
        left = int(nearest_mean.argmax())
        right = int(nearest[left])
        owners[owners == right] = left
        _merge(gram, counts, left, right)
        row = gram[left] / np.maximum(counts[left] * counts, 1e-9)
        row[counts == 0] = row[left] = _NEVER
        means[left], means[:, left] = row, row
        means[right], means[:, right] = _NEVER, _NEVER
        nearest_mean[right] = _NEVER
        stale = np.flatnonzero(((nearest == left) | (nearest == right)) & (counts > 0))
        stale = np.append(stale, left)
        nearest[stale] = means[stale].argmax(axis=1)
        nearest_mean[stale] = means[stale, nearest[stale]]
        nearer = row > nearest_mean
        nearest[nearer], nearest_mean[nearer] = left, row[nearer]
    return owners


def _merge(gram: np.ndarray, counts: np.ndarray, left: int, right: int) -> None:
    """Add the cluster `right` to `left`; its number becomes 0."""
    gram[left] += gram[right]
    gram[:, left] += gram[:, right]
    counts[left] += counts[right]
    counts[right] = 0


def _means(gram: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean cosine between each two clusters; `_NEVER` on the diagonal."""
    means: np.ndarray = gram / np.maximum(np.outer(counts, counts), 1e-9)
    np.fill_diagonal(means, _NEVER)
    return means


def _sizes(found: _Clusters, embeddings: np.ndarray, enough: int) -> np.ndarray:
    """The windows of each cluster without repetitions, counted up to `enough`."""
    sizes = found.counts.copy()
    for number in np.flatnonzero(sizes >= enough):
        members = np.flatnonzero(found.labels == number)[:BLOCK]
        vectors = unit(embeddings[members].astype(np.float32))
        fresh, n_fresh = np.ones(len(members), bool), 0
        while n_fresh < enough and fresh.any():
            first = int(fresh.argmax())
            is_near = np.abs(members - members[first]) <= NEIGHBOURS
            fresh &= is_near | (vectors @ vectors[first] < REPEATED)
            fresh[first] = False
            n_fresh += 1
        sizes[number] = n_fresh
    return sizes


def _join_by_ratio(
    found: _Clusters, sizes: np.ndarray, thresholds: Thresholds, fewest: int, most: int | None
) -> _Clusters:
    """The second and third step."""
    large = np.flatnonzero(sizes >= thresholds.least_windows(len(found.labels)))
    if len(large) < fewest:
        large = _largest(found.counts, fewest)
    large = large[_largest(found.counts[large], MAX_CLUSTERS)]
    joins = _ratio_joins(found.sums[large], found.counts[large], thresholds.relative, fewest, most)
    voices = np.unique(joins, return_inverse=True)[1]
    sums = np.zeros((int(voices.max()) + 1, found.sums.shape[1]))
    np.add.at(sums, voices, found.sums[large])
    owners = (found.sums @ unit(sums).T).argmax(axis=1)
    owners[large] = voices
    return found.joined(owners)


def _ratio_joins(
    sums: np.ndarray, counts: np.ndarray, relative: float, fewest: int, most: int | None
) -> np.ndarray:
    """Join the pair with the largest ratio, until no ratio exceeds `relative`.

    If there are more than `most` voices then, small odd ones (laughter, music) are joined before
    two large ones.
    """
    gram, counts = sums @ sums.T, counts.copy()
    owners = np.arange(len(counts))
    live = np.ones(len(counts), bool)
    while live.sum() > fewest:
        ratios = _ratios(gram, counts, live)
        best = ratios.max()
        if best < relative and (most is None or live.sum() <= most):
            break
        if best < relative:
            ratios = -(1 - ratios) * _pair_weights(counts)
            ratios[~np.outer(live, live)] = -np.inf
            np.fill_diagonal(ratios, -np.inf)
        left, right = np.unravel_index(ratios.argmax(), ratios.shape)
        owners[owners == right] = left
        _merge(gram, counts, int(left), int(right))
        live[right] = False
    return owners


def _ratios(gram: np.ndarray, counts: np.ndarray, live: np.ndarray) -> np.ndarray:
    """The mean cosine between clusters, divided by the geometric mean of that inside them."""
    pairs = np.maximum(counts * (counts - 1), 1.0)
    inside = np.where(counts > 1, (np.diag(gram) - counts) / pairs, 1.0)
    inside = np.minimum(inside, inside[np.where(live, counts, 0).argmax()])
    root = np.sqrt(np.maximum(inside, 1e-3))
    ratios: np.ndarray = _means(gram, counts) / np.outer(root, root)
    ratios[~live] = _NEVER
    ratios[:, ~live] = _NEVER
    np.fill_diagonal(ratios, _NEVER)
    return ratios


def _pair_weights(counts: np.ndarray) -> np.ndarray:
    """By how many windows a join moves the centroids: small clusters weigh little."""
    weights: np.ndarray = np.outer(counts, counts) / np.maximum(
        counts[:, None] + counts[None, :], 1e-9
    )
    return weights
