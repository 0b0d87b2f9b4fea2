"""List the errors that a recording has but its single clips do not, and their likely causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jiwer

from asr.evaluation import normalise
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asr.types import Chunk, Hypothesis, Transcript
    from benchmarks.joined import Joined

NEAR = 0.5
"""Cuts and joins within this many seconds of an error are listed with it."""


@dataclass(frozen=True, slots=True)
class Error:
    """A run of wrong words.

    Attributes:
        first: index of the first reference word.
        said: the reference words; empty for an insertion.
        heard: the hypothesis words; empty for a deletion.
        heard_first: index of the first hypothesis word; for a deletion, of the next one.
    """

    first: int
    said: tuple[str, ...]
    heard: tuple[str, ...]
    heard_first: int


def errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[Error]:
    """The errors of the WER alignment. Adjacent errors are one error."""
    aligned = jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]
    begun: tuple[int, int] | None = None
    for part in [*aligned, None]:
        if part is not None and part.type != "equal":
            begun = begun or (part.ref_start_idx, part.hyp_start_idx)
        elif begun:
            i, j = begun
            i_end = part.ref_start_idx if part else len(reference)
            j_end = part.hyp_start_idx if part else len(hypothesis)
            yield Error(i, tuple(reference[i:i_end]), tuple(hypothesis[j:j_end]), j)
            begun = None


def describe(
    recording: Joined,
    transcript: Transcript,
    chunks: Mapping[int, tuple[Chunk, Hypothesis]],
    singles: Mapping[str, str],
) -> Iterator[str]:
    """A line for each error that the single clip does not have."""
    known = {
        placed.clip.name: {
            (error.first, error.said, error.heard)
            for error in errors(normalise(placed.clip.text), normalise(singles[placed.clip.name]))
        }
        for placed in recording.placed
    }
    # (clip, index of the word in its clip) for each reference word
    places = [
        (placed.clip.name, index)
        for placed in recording.placed
        for index in range(len(normalise(placed.clip.text)))
    ]
    tokens = [(token, word) for word in transcript.words for token in normalise(word.text)]
    for error in errors(normalise(recording.text), [token for token, _ in tokens]):
        name, index = places[min(error.first, len(places) - 1)]
        if (index, error.said, error.heard) in known[name]:
            continue
        before = tokens[error.heard_first - 1][1].end if error.heard_first else 0.0
        after = error.heard_first + len(error.heard)
        until = tokens[after][1].start if after < len(tokens) else transcript.duration
        where = ", ".join(_causes(before, until, recording, chunks)) or "inside a chunk"
        said, heard = " ".join(error.said) or "-", " ".join(error.heard) or "-"
        yield f"{before:8.2f}-{until:.2f} s  {name}[{index}]  {said!r} -> {heard!r}  ({where})"


def _causes(
    start: float,
    end: float,
    recording: Joined,
    chunks: Mapping[int, tuple[Chunk, Hypothesis]],
) -> Iterator[str]:
    """The joins, the ends of chunks and the second attempts at [start, end) seconds."""

    def is_near(seconds: float) -> bool:
        return start - NEAR <= seconds <= end + NEAR

    if any(is_near(placed.start / SAMPLE_RATE) for placed in recording.placed[1:]):
        yield "join"
    for index in sorted(chunks):
        chunk, heard = chunks[index]
        if chunk.overlap and (is_near(chunk.start) or is_near(chunk.start + 1)):
            yield f"overlap at {chunk.start:.2f}"
        elif is_near(chunk.start):
            yield f"chunk starts at {chunk.start:.2f}"
        elif is_near(chunk.end):
            yield f"chunk ends at {chunk.end:.2f}"
        if heard.warnings and chunk.start < end and start < chunk.end:
            yield f"warnings: {'; '.join(heard.warnings)}"
