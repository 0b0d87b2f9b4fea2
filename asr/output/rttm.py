"""Who speaks when: turns, and the format RTTM for them.

A line of RTTM is ``SPEAKER file channel start duration <NA> <NA> name <NA> <NA>``. Tools that score
diarisation read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.types import Segment, Transcript

MAX_PAUSE: Final = 0.5
"""Seconds. Words of one speaker with a longer pause between them are two turns."""
UNKNOWN: Final = "A"
"""The speaker where speakers were not told apart."""
FILE: Final = "recording"
"""The name of the recording, which the transcript does not know."""


class Turn(NamedTuple):
    """A stretch in which one speaker speaks, [start, end) in seconds."""

    start: float
    end: float
    speaker: str
    channel: int | None = None


def turns_of(segments: Iterable[Segment]) -> list[Turn]:
    """The turns of the speakers of words, ordered by start."""
    turns: list[Turn] = []
    last: dict[int | None, int] = {}
    for segment in segments:
        for turn in _spoken(segment):
            place = last.get(turn.channel)
            if place is not None and _continues(turns[place], turn):
                turns[place] = turns[place]._replace(end=max(turn.end, turns[place].end))
            else:
                last[turn.channel] = len(turns)
                turns.append(turn)
    return sorted(turn for turn in turns if turn.end > turn.start)


def _spoken(segment: Segment) -> list[Turn]:
    """A turn for each word, or for a text without timed words."""
    speaker = segment.speaker or UNKNOWN
    if segment.words:
        words = segment.words
        return [Turn(it.start, it.end, it.speaker or speaker, segment.channel) for it in words]
    return [Turn(segment.start, segment.end, speaker, segment.channel)] if segment.text else []


def _continues(before: Turn, turn: Turn) -> bool:
    return before.speaker == turn.speaker and turn.start - before.end < MAX_PAUSE


def to_rttm(transcript: Transcript) -> str:
    """The turns as RTTM, with times in milliseconds. Channels count from 1."""
    return "".join(
        f"SPEAKER {FILE} {(turn.channel or 0) + 1} {turn.start:.3f} {turn.end - turn.start:.3f} "
        f"<NA> <NA> {'_'.join(turn.speaker.split()) or UNKNOWN} <NA> <NA>\n"
        for turn in turns_of(transcript.segments)
    )
