"""What turns say, at the times of the session.

The worker hears each turn by itself. Where one speech became several, two of them heard what lies
about the cut, and it is stitched like the chunks of a file. A turn does not wait for the next one:
it says what lies before the cut, and the next goes on behind that.
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
    """The turns that cuts made of one speech, in their order."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._stitcher = Stitcher(ChunkOptions().overlap)
        self._n_turns = 0
        self._end_sample = 0  # of the last file

    def add(self, turn: Turn, heard: Transcript) -> Transcript:
        """What the turn has to say behind the turns before it."""
        start, end = turn.start_sample - turn.lead, turn.end_sample + turn.tail
        overlap = max(0, self._end_sample - start)
        if not overlap:  # the first, or the turn before it failed
            self._begin()
        chunk = Chunk(self._n_turns, start, end, overlap)
        segments = self._stitcher.push(chunk, _hypothesis(chunk, heard))
        segments += self._stitcher.settle(turn.end) if turn.tail else self._stitcher.finish()
        self._n_turns, self._end_sample = self._n_turns + 1, end
        numbered = (replace(segment, id=n) for n, segment in enumerate(segments))
        return replace(heard, segments=tuple(numbered))


def _hypothesis(chunk: Chunk, heard: Transcript) -> Hypothesis:
    return Hypothesis(
        chunk.index,
        heard.text,
        heard.words,
        next((segment.avg_logprob for segment in heard.segments), None),
        tuple(chain.from_iterable(segment.warnings for segment in heard.segments)),
    )


def placed(segment: Segment, turn: Turn) -> Segment:
    """A segment as the worker heard it in the file of the turn, at its time in the session."""

    def later(seconds: float) -> float:
        return seconds + turn.origin

    words = (replace(word, start=later(word.start), end=later(word.end)) for word in segment.words)
    return replace(segment, start=later(segment.start), end=later(segment.end), words=tuple(words))
