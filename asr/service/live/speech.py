"""Stitches the transcripts of turns, and moves them to the times of the session.

The worker transcribes each turn on its own. Where a speech region was cut into two turns, both
files contain the audio around the cut, and the two transcripts are stitched like the chunks of a
file. A turn does not wait for the next one: its transcript ends at the cut, and the transcript of
the next turn continues there.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from asr.config import ChunkOptions
from asr.pipeline.stitch import Stitcher
from asr.types import Chunk, Hypothesis

if TYPE_CHECKING:
    from asr.service.live.turns import Turn
    from asr.types import Segment, Transcript


class Speech:
    """Stitches the transcripts of the turns of one speech region, in the order of the turns."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._stitcher = Stitcher(ChunkOptions().overlap)
        self._n_turns = 0
        self._end_sample = 0  # of the last file

    def add(self, turn: Turn, transcript: Transcript) -> Transcript:
        """The part of `transcript` that the previous turns do not contain, in session time."""
        start, end = turn.start_sample - turn.lead, turn.end_sample + turn.tail
        overlap = max(0, self._end_sample - start)
        if not overlap:  # this turn is the first one, or the turn before it failed
            self._begin()
        chunk = Chunk(self._n_turns, start, end, overlap)
        segments = self._stitcher.push(chunk, _hypothesis(chunk, transcript))
        segments += self._stitcher.settle(turn.end) if turn.tail else self._stitcher.finish()
        self._n_turns, self._end_sample = self._n_turns + 1, end
        numbered = (replace(segment, id=n) for n, segment in enumerate(segments))
        return replace(transcript, segments=tuple(numbered))


def _hypothesis(chunk: Chunk, transcript: Transcript) -> Hypothesis:
    return Hypothesis(
        chunk.index,
        transcript.text,
        transcript.words,
        next((segment.avg_logprob for segment in transcript.segments), None),
        tuple(chain.from_iterable(segment.warnings for segment in transcript.segments)),
    )


def in_session_time(segment: Segment, turn: Turn) -> Segment:
    """Move a segment from the times of the turn's file to those of the session."""

    def later(seconds: float) -> float:
        return seconds + turn.origin

    words = (replace(word, start=later(word.start), end=later(word.end)) for word in segment.words)
    return replace(segment, start=later(segment.start), end=later(segment.end), words=tuple(words))
