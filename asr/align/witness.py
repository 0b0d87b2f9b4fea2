"""Find evidence in the audio against a recognised text.

A language model with audio input can invent, repeat and omit words. The text alone does not show
such errors. The aligner's results show them: the confidence of each word, and speech that belongs
to no word. The witness adds up this evidence over neighbouring words, because single words are
often mumbled. Its messages are for people and quote no text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asr.types import Audio, Hypothesis, Word

MIN_DOUBT: Final = 4.0
"""A run of words is reported if the evidence against it is at least this many nats.

Measured by benchmarks/witness.py.
"""
MAX_CONFIDENCE: Final = 0.97
"""Higher confidences count as this one, so that one word cannot outweigh its neighbours."""
RATE_WORDS: Final = 8
MAX_WORDS_PER_SECOND: Final = 9.0
"""Nobody says `RATE_WORDS` words in a row faster than this."""


_PLACE: Final = re.compile(r"\bfrom (\d+\.\d) s to (\d+\.\d) s\b")


@dataclass(frozen=True, slots=True)
class Doubt:
    """A suspicious stretch of a chunk, in seconds from the start of the chunk.

    Attributes:
        kind: "unheard" (words that are not in the audio), "unwritten" (speech that belongs to no
            word) or "hurried" (words faster than anyone speaks).
        n_words: number of words; 0 for unwritten speech.
    """

    kind: str
    start: float
    end: float
    n_words: int = 0

    def message(self, offset: float) -> str:
        """Describe it with times of the recording; the chunk begins at `offset` seconds."""
        place = f"from {offset + self.start:.1f} s to {offset + self.end:.1f} s"
        if self.kind == "unwritten":
            return f"speech {place} belongs to no word"
        count = "1 word" if self.n_words == 1 else f"{self.n_words} words"
        if self.kind == "hurried":
            return f"{count} {place} are faster than anyone speaks"
        return f"{count} {place} cannot be heard in the audio"


def place_in(message: str) -> tuple[float, float] | None:
    """Start and end in seconds, to a tenth, of the stretch that a message of `Doubt` is about."""
    found = _PLACE.search(message)
    return None if found is None else (float(found[1]), float(found[2]))


def witness(audio: Audio, hypothesis: Hypothesis, offset: float = 0.0) -> tuple[str, ...]:  # noqa: ARG001
    """Describe the evidence against a hypothesis whose words an aligner has timed.

    Args:
        audio: of the chunk.
        hypothesis: with its words and their confidences.
        offset: start of the chunk in the recording, in seconds.

    Returns:
        One message for each doubt.
    """
    return tuple(doubt.message(offset) for doubt in doubts(hypothesis))


def doubts(hypothesis: Hypothesis) -> list[Doubt]:
    """Find all doubts, in order of their start."""
    words = [word for word in hypothesis.words if word.timing != "engine"]
    unwritten = (Doubt("unwritten", start, end) for start, end in hypothesis.unwritten)
    return sorted([*_unheard(words), *_hurried(words), *unwritten], key=lambda doubt: doubt.start)


def _unheard(words: Sequence[Word]) -> Iterator[Doubt]:
    """Find runs of words with too much evidence against them; the sum restarts when it is <= 0."""
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
    """Return the evidence against a word in nats; positive if it probably was not said."""
    if word.confidence is None:
        return 0.0
    probability = min(max(word.confidence, 0.01), MAX_CONFIDENCE)
    return math.log((1 - probability) / probability)


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
