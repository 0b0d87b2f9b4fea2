"""Turn the best path through a lattice into words with times: one word per token, in order."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from asr.align.interpolate import interpolate
from asr.text.spread import fill_missing
from asr.types import SAMPLE_RATE, Audio, Hypothesis, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asr.align.hmm.viterbi import Step


@dataclass(frozen=True, slots=True)
class FoundToken:
    """Where a token was found: frames [start, end).

    Attributes:
        scores: the log-likelihood ratio of each of its frames. Empty for a token whose
            pronunciation is unknown: any speech fits it, so its scores say nothing.
    """

    start: int
    end: int
    scores: np.ndarray


def found_tokens(steps: Iterable[Step], n_tokens: int) -> list[FoundToken | None]:
    """Find each token on the path; None for a token that the path skipped."""
    found: list[FoundToken | None] = [None] * n_tokens
    spoken = (step for step in steps if step.arc.token >= 0)
    for token, group in itertools.groupby(spoken, key=lambda step: step.arc.token):
        parts = list(group)
        is_known = all(part.arc.end - part.arc.first > 1 for part in parts)
        scores = np.concatenate([part.scores for part in parts]) if is_known else np.zeros(0)
        found[token] = FoundToken(parts[0].start, parts[-1].end, scores)
    return found


def fill(texts: Sequence[str], words: Sequence[Word | None], audio: Audio) -> list[Word]:
    """Spread words without a time over the loud part of the gap between their neighbours."""
    spread = functools.partial(_spread_over_sound, audio)
    return fill_missing(texts, words, 0.0, audio.duration, spread)


def _spread_over_sound(audio: Audio, texts: Sequence[str], start: float, end: float) -> list[Word]:
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    if last <= first:
        return [Word(text, start, start, None, "interpolated") for text in texts]
    gap = interpolate(Audio(audio.samples[first:last]), Hypothesis(0, " ".join(texts)))
    return [
        Word(word.text, min(start + word.start, end), min(start + word.end, end), None, word.timing)
        for word in gap.words
    ]
