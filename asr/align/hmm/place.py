"""From the path through a lattice to words with times; words in, words out, in order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from asr.align.interpolate import interpolate
from asr.types import SAMPLE_RATE, Audio, Hypothesis, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asr.align.hmm.viterbi import Step


@dataclass(frozen=True, slots=True)
class Found:
    """Where a token was found: frames [start, end).

    Attributes:
        scores: the log-likelihood ratio of each of its frames; none for a token whose sounds are
            not known, which any speech fits.
    """

    start: int
    end: int
    scores: np.ndarray


def found_tokens(steps: Iterable[Step], n_tokens: int) -> list[Found | None]:
    """Each token's place on the path; None if the path passed it over."""
    found: list[Found | None] = [None] * n_tokens
    spoken = (step for step in steps if step.arc.token >= 0)
    for token, group in itertools.groupby(spoken, key=lambda step: step.arc.token):
        parts = list(group)
        is_known = all(part.arc.end - part.arc.first > 1 for part in parts)
        scores = np.concatenate([part.scores for part in parts]) if is_known else np.zeros(0)
        found[token] = Found(parts[0].start, parts[-1].end, scores)
    return found


def fill(texts: Sequence[str], words: Sequence[Word | None], audio: Audio) -> tuple[Word, ...]:
    """Give words without a time the sound between their neighbours, in proportion to letters."""
    filled: list[Word] = []
    for is_missing, run in itertools.groupby(range(len(texts)), lambda place: words[place] is None):
        places = list(run)
        if not is_missing:
            filled += [word for place in places if (word := words[place]) is not None]
            continue
        start = filled[-1].end if filled else 0.0
        behind = words[places[-1] + 1] if places[-1] + 1 < len(texts) else None
        end = max(start, behind.start if behind else audio.duration)
        filled += _spread(texts[places[0] : places[-1] + 1], start, end, audio)
    return tuple(filled)


def _spread(texts: Sequence[str], start: float, end: float, audio: Audio) -> list[Word]:
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    if last <= first:
        return [Word(text, start, start, None, "interpolated") for text in texts]
    gap = interpolate(Audio(audio.samples[first:last]), Hypothesis(0, " ".join(texts)))
    return [
        Word(word.text, min(start + word.start, end), min(start + word.end, end), None, word.timing)
        for word in gap.words
    ]
