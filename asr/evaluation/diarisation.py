"""Errors of who speaks when: the diarisation error rate (DER), speakers of words, their number.

The DER is that of NIST's tools and of pyannote.metrics: hypothesised speakers are mapped to those
of the reference, one to one, so that they agree for the longest time. Then, in each moment,

- *miss* counts the speakers of the reference that no hypothesised one stands for,
- *false alarm* counts the hypothesised speakers beyond those of the reference,
- *confusion* counts the speakers of the reference for whom the wrong one was named,

and the DER is their sum divided by the time of all speakers of the reference. A collar leaves out
the time around each boundary of the reference.

Times are exact: the recording is cut at all boundaries, so there is no grid of frames.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from asr.evaluation.scores import Pooled, ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from asr.output.rttm import Turn
    from asr.types import Word


@dataclass(frozen=True)
class DiarisationScore(Pooled):
    """Seconds of errors. Scores of several files can be added.

    Attributes:
        total: of all speakers of the reference; seconds with two speakers count twice.
    """

    total: float = 0.0
    miss: float = 0.0
    false_alarm: float = 0.0
    confusion: float = 0.0

    @property
    def der(self) -> float | None:
        """Errors divided by the total; None without speech in the reference."""
        return ratio(self.miss + self.false_alarm + self.confusion, self.total)


@dataclass(frozen=True)
class SpeakerScore(Pooled):
    """Words by whether their speaker is right, and the numbers of speakers.

    Attributes:
        alone: words with one speaker in the reference. In a pause that is the nearest speaker.
        alone_wrong: those to which the hypothesis gives another speaker.
        overlapped: words during which several speak.
        overlapped_wrong: those whose speaker is none of the several.
        files: recordings with a reference.
        count_right: those with the right number of speakers.
        count_error: sum of the absolute errors of the number of speakers.
    """

    alone: int = 0
    alone_wrong: int = 0
    overlapped: int = 0
    overlapped_wrong: int = 0
    files: int = 0
    count_right: int = 0
    count_error: int = 0

    @property
    def accuracy(self) -> float | None:
        """Part of all words whose speaker is right."""
        n_words = self.alone + self.overlapped
        return ratio(n_words - self.alone_wrong - self.overlapped_wrong, n_words)


def score_turns(
    reference: Sequence[Turn],
    hypothesis: Sequence[Turn],
    *,
    collar: float = 0.0,
    overlap: bool = True,
) -> DiarisationScore:
    """The DER's parts for one recording.

    Args:
        reference: who speaks when.
        hypothesis: who speaks when according to the transcript.
        collar: seconds on both sides of each boundary of the reference that are not scored.
        overlap: score the time in which several speakers of the reference speak.
    """
    pieces = [
        (seconds, said, found)
        for seconds, said, found in _pieces(reference, hypothesis, collar)
        if overlap or len(said) < 2
    ]
    names = map_speakers((seconds, said, found) for seconds, said, found in pieces)
    total = miss = false_alarm = confusion = 0.0
    for seconds, said, found in pieces:
        right = sum(names.get(name) in said for name in found)
        total += seconds * len(said)
        miss += seconds * max(0, len(said) - len(found))
        false_alarm += seconds * max(0, len(found) - len(said))
        confusion += seconds * (min(len(said), len(found)) - right)
    return DiarisationScore(total, miss, false_alarm, confusion)


def score_speakers(
    reference: Sequence[Turn], hypothesis: Sequence[Turn], words: Iterable[Word]
) -> SpeakerScore:
    """The speakers of words in one recording.

    Args:
        reference: who speaks when.
        hypothesis: who speaks when according to the transcript.
        words: of the transcript, with speakers. A word without one counts as wrong.
    """
    names = map_speakers(_pieces(reference, hypothesis, 0.0))
    counts: dict[tuple[bool, bool], int] = defaultdict(int)
    for word in words:
        active = _speaking(reference, word.start, word.end)
        is_wrong = names.get(word.speaker or "") not in active
        counts[len(active) > 1, is_wrong] += 1
    n_found = len({turn.speaker for turn in hypothesis})
    error = abs(n_found - len({turn.speaker for turn in reference}))
    return SpeakerScore(
        alone=counts[False, False] + counts[False, True],
        alone_wrong=counts[False, True],
        overlapped=counts[True, False] + counts[True, True],
        overlapped_wrong=counts[True, True],
        files=1,
        count_right=int(error == 0),
        count_error=error,
    )


def _speaking(reference: Sequence[Turn], start: float, end: float) -> frozenset[str]:
    """Who speaks for more than half of a word; if nobody does, whoever speaks nearest to it."""
    shared: dict[str, float] = defaultdict(float)
    for turn in reference:
        shared[turn.speaker] += max(0.0, min(end, turn.end) - max(start, turn.start))
    active = frozenset(name for name, seconds in shared.items() if seconds > (end - start) / 2)
    if active or not reference:
        return active
    nearest = min(reference, key=lambda turn: max(turn.start - end, start - turn.end))
    return frozenset([nearest.speaker])


_Piece = tuple[float, frozenset[str], frozenset[str]]
"""Seconds, and who speaks in them according to reference and hypothesis."""


def _pieces(
    reference: Sequence[Turn], hypothesis: Sequence[Turn], collar: float
) -> Iterator[_Piece]:
    """The recording, cut where anything begins or ends, without the collars."""
    edges = [(turn.start, turn.end) for turn in reference]
    collars = [(time - collar, time + collar) for edge in edges for time in edge if collar]
    changes: dict[float, list[tuple[int, str, int]]] = defaultdict(list)
    spans = [(0, turn.speaker, turn.start, turn.end) for turn in reference]
    spans += [(1, turn.speaker, turn.start, turn.end) for turn in hypothesis]
    spans += [(2, "", start, end) for start, end in collars]
    for kind, name, start, end in spans:
        changes[start].append((kind, name, 1))
        changes[end].append((kind, name, -1))
    active: list[dict[str, int]] = [defaultdict(int), defaultdict(int), defaultdict(int)]
    for time, following in pairwise(sorted(changes)):
        for kind, name, step in changes[time]:
            active[kind][name] += step
        said, found, left_out = (
            frozenset(name for name, number in kind.items() if number) for kind in active
        )
        if not left_out and (said or found):
            yield following - time, said, found


def map_speakers(pieces: Iterable[_Piece]) -> Mapping[str, str]:
    """The speaker of the reference for each hypothesised one, one to one."""
    from scipy.optimize import linear_sum_assignment  # of the extra; only this needs it

    shared: dict[tuple[str, str], float] = defaultdict(float)
    for seconds, said, found in pieces:
        for name in found:
            for person in said:
                shared[name, person] += seconds
    names = sorted({name for name, _ in shared})
    people = sorted({person for _, person in shared})
    matrix = np.array([[shared.get((name, it), 0.0) for it in people] for name in names])
    if not names:
        return {}
    rows, columns = linear_sum_assignment(-matrix)
    return {
        names[row]: people[column]
        for row, column in zip(rows, columns, strict=True)
        if matrix[row, column] > 0
    }
