"""Stitches the transcripts of turns, and converts their times to session time.

The worker transcribes each turn on its own. Where a speech region was cut into two turns, both
files contain the audio around the cut, and the two transcripts are stitched like the chunks of a
file. A turn does not wait for the next one: its transcript ends at the cut, and the transcript of
the next turn continues there.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from asr.pipeline.stitch import Stitcher
from asr.service.live.turns import MAX_OVERLAP_SAMPLES
from asr.service.live.word_match import match_prefix
from asr.types import SAMPLE_RATE, Chunk, Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.service.live.partial_text import PartialText
    from asr.service.live.turns import Turn
    from asr.types import Segment, Transcript


class Speech:
    """Stitches the transcripts of the turns of one speech region, in the order of the turns."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._stitcher = Stitcher(MAX_OVERLAP_SAMPLES / SAMPLE_RATE)
        self._n_turns = 0
        self._end_sample = 0  # of the last file

    def add(
        self, turn: Turn, transcript: Transcript, partial: PartialText | None = None
    ) -> Transcript:
        """The part of `transcript` that the previous turns do not contain, in session time.

        Without partial results, this part ends at the cut.

        Args:
            turn: the turn.
            transcript: of the turn's file.
            partial: the partial results of the turn. Words that were sent belong to this turn,
                even if they are after the cut.
        """
        start, end = turn.start_sample - turn.lead, turn.end_sample + turn.tail
        overlap = max(0, self._end_sample - start)
        if not overlap:  # this turn is the first one, or the turn before it failed
            self._begin()
        chunk = Chunk(self._n_turns, start, end, overlap)
        segments = self._stitcher.push(chunk, _hypothesis(chunk, transcript))
        segments += self._settle(turn, segments, partial) if turn.tail else self._stitcher.finish()
        self._n_turns, self._end_sample = self._n_turns + 1, end
        numbered = (replace(segment, id=n) for n, segment in enumerate(segments))
        return replace(transcript, segments=tuple(numbered))

    def _settle(
        self, turn: Turn, done: Sequence[Segment], partial: PartialText | None
    ) -> list[Segment]:
        """Release the words of a turn that was cut, after its finished segments `done`."""
        stitcher = self._stitcher
        n_before_cut = stitcher.n_until(turn.end)
        if partial is None or not partial.words:
            return stitcher.settle_words(n_before_cut)
        words = [word for segment in done for word in segment.words]
        n_done = len(words)
        words += stitcher.held
        n_sent = match_prefix(partial.words, [word.text for word in words]).n_used - n_done
        return stitcher.settle_words(
            max(0, n_sent if partial.is_exact else max(n_sent, n_before_cut))
        )


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
