"""What the audio says against a text that claims to be heard in it.

A language model that hears can invent, repeat and leave out, and its text alone does not show it.
The aligner's evidence does: how likely each word is to have been said where it was found, and where
speech is in no word. The witness adds that up over neighbouring words, since single words do get
mumbled. What it says is for people, and contains none of the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asr.types import Audio, Hypothesis, Word

MIN_DOUBT: Final = 4.0
"""Nats of evidence against a run of words from which on it is told (benchmarks/witness.py)."""
SUREST: Final = 0.97
"""A word cannot speak for its neighbours more than this."""
RATE_WORDS: Final = 8
MAX_WORDS_PER_SECOND: Final = 9.0
"""Nobody says so many words in a row so fast."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is wrong with a stretch of a chunk, in seconds from its start.

    Attributes:
        kind: "unheard" words, "unwritten" speech, or words that are "hurried".
        n_words: how many words; 0 for speech that is in none.
    """

    kind: str
    start: float
    end: float
    n_words: int = 0

    def says(self, offset: float) -> str:
        """In words, with times of the recording, in which the chunk begins at `offset`."""
        place = f"from {offset + self.start:.1f} s to {offset + self.end:.1f} s"
        if self.kind == "unwritten":
            return f"speech {place} is in no word"
        count = "1 word" if self.n_words == 1 else f"{self.n_words} words"
        if self.kind == "hurried":
            return f"{count} {place} are faster than anyone speaks"
        return f"{count} {place} cannot be heard in the audio"


def witness(audio: Audio, hypothesis: Hypothesis, offset: float = 0.0) -> tuple[str, ...]:  # noqa: ARG001
    """What speaks against a hypothesis whose words an aligner has timed.

    Args:
        audio: what it was aligned with.
        hypothesis: with words and their confidences.
        offset: seconds in the recording at which the chunk begins.
    """
    return tuple(doubt.says(offset) for doubt in doubts(hypothesis))


def doubts(hypothesis: Hypothesis) -> list[Doubt]:
    """All doubts, by time."""
    words = [word for word in hypothesis.words if word.timing != "engine"]
    unwritten = (Doubt("unwritten", start, end) for start, end in hypothesis.unwritten)
    return sorted([*_unheard(words), *_hurried(words), *unwritten], key=lambda doubt: doubt.start)


def _unheard(words: Sequence[Word]) -> Iterator[Doubt]:
    """Runs of words that together are too unlikely to have been said."""
    total = peak = 0.0
    first = last = 0
    for place, word in enumerate(words):
        total += evidence(word)
        if total <= 0:
            if peak >= MIN_DOUBT:
                yield _of(words[first : last + 1], "unheard")
            total = peak = 0.0
            first = place + 1
        elif total > peak:
            peak, last = total, place
    if peak >= MIN_DOUBT:
        yield _of(words[first : last + 1], "unheard")


def evidence(word: Word) -> float:
    """Nats against a word: above 0 if it is likelier not to have been said."""
    if word.confidence is None:
        return 0.0
    likely = min(max(word.confidence, 0.01), SUREST)
    return math.log((1 - likely) / likely)


def _hurried(words: Sequence[Word]) -> Iterator[Doubt]:
    end_of_last = -1.0
    for place in range(len(words) - RATE_WORDS + 1):
        run = words[place : place + RATE_WORDS]
        is_fast = run[-1].end - run[0].start < RATE_WORDS / MAX_WORDS_PER_SECOND
        is_aligned = all(word.timing == "aligned" for word in run)
        if is_fast and is_aligned and run[0].start >= end_of_last:
            end_of_last = run[-1].end
            yield _of(run, "hurried")


def _of(words: Sequence[Word], kind: str) -> Doubt:
    return Doubt(kind, words[0].start, max(word.end for word in words), len(words))
