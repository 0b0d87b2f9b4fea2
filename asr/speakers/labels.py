"""From windows, embeddings and words to a voice, a name and a confidence for each word."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from asr.speakers.clustering import (
    BLOCK,
    by_appearance,
    centroids,
    cluster,
    least_inside,
    unit,
)
from asr.speakers.naming import name_voices, why_letters
from asr.speakers.scores import best_path, word_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.speakers.naming import Known
    from asr.speakers.thresholds import Thresholds
    from asr.speakers.windows import Span

MOST: Final = 10
"""More voices than this are suspicious where no number was asked for."""
ALONE: Final = 1.0
"""The confidence where there is only one voice."""
CERTAIN: Final = 0.87
"""Where one voice is expected, two clusters are two voices only if their ratio is below this part
of `Thresholds.relative`: 2 of 1,710 stretches of one reader have two voices then."""
NEAR: Final = 0.4
"""Seconds from the middle of a word within which the speaker must change if the word is marked as
overlapped."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of one channel of a recording.

    Attributes:
        windows: start and end of each window in seconds, shape (n, 2).
        embeddings: of each window, shape (n, size), any float type.
        words: start and end of each word, ordered by start.
    """

    windows: np.ndarray
    embeddings: np.ndarray
    words: Sequence[Span]

    def ordered(self) -> Heard:
        """With the windows in the order of their starts."""
        order = np.argsort(self.windows[:, 0], kind="stable")
        return replace(self, windows=self.windows[order], embeddings=self.embeddings[order])


@dataclass(frozen=True, slots=True)
class Labels:
    """The speakers of one channel.

    Attributes:
        names: of the voices, in order of first appearance.
        voices: the index of each word's name.
        confidences: of each word's voice, 0 to 1.
        overlapped: whether another voice may be active during the word.
        warnings: as text for people.
        is_loose: a voice may be several, so that fine windows are worth their cost.
    """

    names: tuple[str, ...]
    voices: tuple[int, ...]
    confidences: tuple[float, ...]
    overlapped: tuple[bool, ...]
    warnings: tuple[str, ...] = ()
    is_loose: bool = False


class Found(NamedTuple):
    """The voices of a channel.

    Attributes:
        centres: of the voices, unit vectors.
        inside: the least mean cosine inside a voice.
        warnings: as text for people.
    """

    centres: np.ndarray
    inside: float
    warnings: tuple[str, ...]


def label(
    heard: Heard,
    thresholds: Thresholds,
    fewest: int = 1,
    most: int | None = None,
    known: Sequence[Known] = (),
) -> Labels:
    """The speaker of each word.

    Args:
        heard: the channel.
        thresholds: of the model that made the embeddings.
        fewest: voices to find.
        most: voices; None for no limit, but a warning and `MOST` if there are more.
        known: voices with names.
    """
    n_words = len(heard.words)
    if not len(heard.windows):
        sure = thresholds.confidences[0] if n_words else ALONE
        alone = ("A",) if n_words else ()
        warnings = _too_few(len(alone), fewest)
        return Labels(alone, (0,) * n_words, (sure,) * n_words, (False,) * n_words, warnings)
    heard = heard.ordered()
    centres, inside, warnings = find_voices(heard, thresholds, fewest, most)
    cosines = cosines_of(heard.embeddings, centres)
    sums, means = word_scores(heard.words, heard.windows, cosines)
    path = best_path(sums, thresholds.change)
    spoken = np.unique(path)
    means = means[:, spoken]
    path = np.searchsorted(spoken, path)
    names = name_voices(by_order(path), centres[spoken], known, thresholds)
    warnings += why_letters(centres[spoken], known, names, thresholds)
    margins = _margins(means, path)
    return Labels(
        tuple(names[voice] for voice in by_order(path)),
        tuple(int(voice) for voice in by_appearance(path)) if n_words else (),
        _confidences(margins, len(spoken), thresholds),
        _overlaps(heard.words, path, margins, thresholds),
        warnings + _too_few(len(spoken), fewest),
        is_loose=inside < thresholds.loose,
    )


def _too_few(n_found: int, fewest: int) -> tuple[str, ...]:
    """A warning if words of fewer speakers were found than the request names."""
    if not 0 < n_found < fewest:
        return ()
    return (f"{fewest} speakers were asked for, and words of {n_found} were found",)


def by_order(path: np.ndarray) -> list[int]:
    """The voices in order of first appearance."""
    values, first = np.unique(path, return_index=True)
    return [int(voice) for voice in values[np.argsort(first)]]


def find_voices(heard: Heard, thresholds: Thresholds, fewest: int, most: int | None) -> Found:
    """The voices, and warnings."""
    lengths = np.diff(heard.windows, axis=1)[:, 0]
    is_reliable = lengths >= thresholds.reliable
    if is_reliable.sum() < max(thresholds.smallest, fewest):
        is_reliable[:] = True
    reliable = heard.embeddings[is_reliable]
    labels = cluster(reliable, thresholds, fewest, most)
    warnings: tuple[str, ...] = ()
    if most is None and labels.max() >= MOST:
        note = f"{labels.max() + 1} voices were found, and the nearest were joined to {MOST}"
        warnings = (f"{note}: send speakers with their number if there are more",)
        labels = cluster(reliable, thresholds, fewest, MOST)
    return Found(centroids(reliable, labels), least_inside(reliable, labels), warnings)


def cosines_of(embeddings: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The cosine of each embedding and each centre."""
    starts = range(0, len(embeddings), BLOCK)
    blocks = [unit(embeddings[it : it + BLOCK].astype(np.float32)) @ centres.T for it in starts]
    return np.concatenate(blocks)


def _margins(means: np.ndarray, path: np.ndarray) -> np.ndarray:
    """By how much the mean cosine of each word's voice exceeds that of the next voice."""
    rows = np.arange(len(path))
    own = means[rows, path]
    others = means.copy()
    others[rows, path] = -np.inf
    margins: np.ndarray = own - others.max(axis=1, initial=-np.inf)
    return margins


def _confidences(margins: np.ndarray, n_voices: int, thresholds: Thresholds) -> tuple[float, ...]:
    if n_voices < 2:
        return (ALONE,) * len(margins)
    sure = np.interp(margins, thresholds.margins, thresholds.confidences)
    return tuple(float(value) for value in sure)


def _overlaps(
    words: Sequence[Span], path: np.ndarray, margins: np.ndarray, thresholds: Thresholds
) -> tuple[bool, ...]:
    """Whether each word may be spoken over: no voice fits it well, and another one is near."""
    changes = np.flatnonzero(np.diff(path))
    times = np.array([words[int(change)][1] for change in changes])
    is_unclear = margins < thresholds.overlap
    return tuple(
        bool(unclear and len(times) and np.abs(times - (start + end) / 2).min() < NEAR)
        for (start, end), unclear in zip(words, is_unclear, strict=True)
    )


def count_voices(windows: np.ndarray, embeddings: np.ndarray, thresholds: Thresholds) -> int:
    """The voices in a recording that should have one. In doubt it is one."""
    strict = replace(thresholds, relative=CERTAIN * thresholds.relative)
    heard = Heard(windows, embeddings, ())
    return len(find_voices(heard, strict, 1, None).centres) if len(windows) else 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The voices of a recording that is still being read.

    Attributes:
        centres: of the voices, shape (n_voices, size).
        numbers: of the voices. A voice keeps its number from one snapshot to the next.
        of_windows: the number of each window's voice.
    """

    centres: np.ndarray
    numbers: tuple[int, ...]
    of_windows: tuple[int, ...]


def snapshot(
    heard: Heard,
    thresholds: Thresholds,
    fewest: int,
    most: int | None,
    earlier: Sequence[int],
) -> Snapshot:
    """The voices so far.

    Args:
        heard: the windows so far, in the order of earlier snapshots. Words are not needed.
        thresholds: of the model.
        fewest: voices to find.
        most: voices; None for `MOST`.
        earlier: the numbers of the first windows in the previous snapshot.
    """
    centres = find_voices(heard, thresholds, fewest, most or MOST).centres
    nearest = cosines_of(heard.embeddings, centres).argmax(axis=1)
    numbers = _kept_numbers(nearest, len(centres), np.array(earlier, np.int64))
    return Snapshot(centres, tuple(numbers), tuple(numbers[voice] for voice in nearest))


def _kept_numbers(nearest: np.ndarray, n_voices: int, earlier: np.ndarray) -> list[int]:
    """Number the voices: as the earlier voice that shares most windows, or with a new number."""
    n_earlier = int(earlier.max(initial=-1)) + 1
    shared = np.zeros((n_voices, n_earlier))
    np.add.at(shared, (nearest[: len(earlier)], earlier), 1)
    pairs = zip(*linear_sum_assignment(-shared), strict=True)
    kept = {int(voice): int(number) for voice, number in pairs if shared[voice, number]}
    fresh = iter(range(n_earlier, n_earlier + n_voices))
    order = [*by_order(nearest), *range(n_voices)]
    for voice in order:
        if voice not in kept:
            kept[voice] = next(fresh)
    return [kept[voice] for voice in range(n_voices)]
