"""Turn the hypotheses of chunks into segments with absolute times, in order.

This is the only place where times relative to a chunk become times of the recording. A segment is
returned as soon as later chunks cannot change it.

Chunks that were cut in silence simply follow each other. Where speech had to be cut, two chunks
overlap and both heard the words in the overlap; `asr.pipeline.overlap` keeps one copy of each.

The order of the engine's words is trusted, their times are not. If a word starts before the
previous word does, it gets the previous word's start. If a word ends after the next one starts, it
ends at that start.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from asr.pipeline.overlap import (
    HeardWord,
    concatenated,
    has_measured_times,
    merge_by_text,
    merge_by_time,
    slack,
    without_released,
)
from asr.text.phrasing import ends_sentence
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asr.types import Word


class Stitcher:
    """Turns the hypotheses of successive chunks into segments.

    Args:
        max_overlap: seconds that two chunks may share. Words so close to the end of a chunk wait
            for the next chunk. A longer wait delays segments and
            does not change them.
        min_pause: seconds without a word that end a segment.
        max_seconds: longest segment; a longer one is cut at its longest pause. Only a single word
            may exceed it.
    """

    def __init__(
        self, max_overlap: float = 1.0, min_pause: float = 0.7, max_seconds: float = 15.0
    ) -> None:
        self._max_overlap = round(max_overlap * SAMPLE_RATE)
        self._min_pause = min_pause
        self._max_seconds = max_seconds
        self._previous: Chunk | None = None
        self._released: list[HeardWord] = []  # in segments, but the next chunk may hear them too
        self._pending: list[HeardWord] = []
        self._is_open = False  # words of the previous chunk may overlap the next one
        self._warnings: list[tuple[float, tuple[str, ...]]] = []  # by the start of their chunk
        self._n_segments = 0
        self._end = 0.0  # of the last word released

    @property
    def earliest(self) -> float:
        """Seconds; no segment that is still held starts before this."""
        starts = [heard.word.start for heard in self._pending[:1]]
        starts += [max(start, self._end) for start, _ in self._warnings[:1]]
        return min(starts, default=math.inf)

    def push(self, chunk: Chunk, hypothesis: Hypothesis) -> list[Segment]:
        """Take the next chunk; return the segments that are now final.

        A segment has the ``avg_logprob`` of the chunk that heard its first word. The warnings of
        a chunk are on its first segment. A chunk with warnings but without words becomes a segment
        without text, so that the warnings are kept.

        Raises:
            ValueError: the chunk is out of order, its text has no words, or its overlap is too
                long or differs from what it shares with the previous chunk.
        """
        self._check(chunk, hypothesis)
        earliest = self._released[0].word.start if self._released else self._end
        heard = _place(chunk, hypothesis, earliest)
        segments = []
        if chunk.overlap and heard and self._is_open:
            heard = self._continue(heard, chunk)
        else:
            segments = self.finish()
        self._released, self._pending, self._is_open = [], heard, bool(heard)
        self._previous = chunk
        if hypothesis.warnings:
            self._warnings.append((chunk.start, hypothesis.warnings))
        earliest = (chunk.end_sample - self._max_overlap) / SAMPLE_RATE  # the next chunk's
        return segments + self._release(earliest - slack(self._pending, earliest))

    def settle(self, until: float) -> list[Segment]:
        """Release the words before `until` (seconds) without waiting for the next chunk.

        They are final: the next chunk continues after them, even if it heard other words there.
        """
        return self.settle_words(self.n_until(until))

    def n_until(self, seconds: float) -> int:
        """How many of the words that are held lie before `seconds`."""
        return bisect_left(self._pending, seconds, key=lambda heard: heard.word.midpoint)

    @property
    def held(self) -> list[Word]:
        """The words that wait for the next chunk."""
        return [heard.word for heard in self._pending]

    def settle_words(self, n_released: int) -> list[Segment]:
        """Release the first words that are held. Otherwise like `settle`."""
        released, rest = self._pending[:n_released], self._pending[n_released:]
        self._pending = released
        segments = self.finish()
        self._released, self._pending = released, rest
        return segments

    def finish(self) -> list[Segment]:
        """End the recording, or a stretch before silence; return the segments that were held."""
        segments = self._release(math.inf)
        if self._warnings and self._previous:
            start = max(self._end, self._warnings[0][0])
            segments.append(self._segment([], start, self._previous.end))
        return segments

    def _check(self, chunk: Chunk, hypothesis: Hypothesis) -> None:
        name = f"chunk {chunk.index}"
        if hypothesis.chunk_index != chunk.index:
            raise ValueError(f"{name} got the hypothesis of chunk {hypothesis.chunk_index}")
        if hypothesis.text.strip() and not hypothesis.words:
            raise ValueError(f"{name} has text but no words; an aligner must come first")
        last, shared = self._previous, 0
        if last is not None:
            if chunk.index <= last.index or chunk.start_sample < last.start_sample:
                raise ValueError(f"{name} came after chunk {last.index}")
            shared = max(0, last.end_sample - chunk.start_sample)
        if chunk.overlap != shared:
            raise ValueError(f"{name} shares {shared} samples, but its overlap is {chunk.overlap}")
        if shared > self._max_overlap:
            raise ValueError(f"{name} has overlap {shared}; {self._max_overlap} are allowed")

    def _continue(self, heard: list[HeardWord], chunk: Chunk) -> list[HeardWord]:
        """The words after the released ones, merged with those that the new chunk heard."""
        left = self._released + self._pending
        if has_measured_times(left, heard, chunk):
            words = without_released(self._released, merge_by_time(left, heard, chunk))
        else:
            ours, theirs = merge_by_text(left, heard, chunk, len(self._released))
            words = concatenated(ours, theirs, self._end)
        return _in_order(words, self._end)

    def _release(self, until: float) -> list[Segment]:
        """Make segments of the pending words that end by `until`; later words may still change."""
        n_certain = bisect_right(self._pending, until, key=lambda heard: heard.word.end)
        groups = _group(self._pending[:n_certain], self._min_pause, self._max_seconds)
        begun = [] if math.isinf(until) else groups.pop()
        self._pending = begun + self._pending[n_certain:]
        return [
            self._segment(group, group[0].word.start, group[-1].word.end)
            for group in groups
            if group
        ]

    def _segment(self, group: Sequence[HeardWord], start: float, end: float) -> Segment:
        words = tuple(heard.word for heard in group)
        due = [warnings for chunk_start, warnings in self._warnings if chunk_start <= end]
        del self._warnings[: len(due)]
        segment = Segment(
            id=self._n_segments,
            start=start,
            end=end,
            text=" ".join(word.text for word in words),
            words=words,
            avg_logprob=group[0].avg_logprob if group else None,
            warnings=tuple(chain.from_iterable(due)),
        )
        self._n_segments += 1
        self._end = end if words else self._end
        return segment


def stitch(chunks: Iterable[Chunk], hypotheses: Iterable[Hypothesis]) -> tuple[Segment, ...]:
    """The segments of a whole recording."""
    pairs = list(zip(chunks, hypotheses, strict=True))
    stitcher = Stitcher(max((chunk.overlap for chunk, _ in pairs), default=0) / SAMPLE_RATE)
    segments = [segment for pair in pairs for segment in stitcher.push(*pair)]
    return tuple(segments + stitcher.finish())


def _place(chunk: Chunk, hypothesis: Hypothesis, earliest: float) -> list[HeardWord]:
    """The words with absolute times, inside the chunk and not before `earliest` (seconds)."""

    def clamp(seconds: float) -> float:
        return min(max(chunk.start + seconds, chunk.start, earliest), chunk.end)

    return _in_order(
        HeardWord(
            replace(word, start=clamp(word.start), end=clamp(word.end)), hypothesis.avg_logprob
        )
        for word in hypothesis.words
    )


def _in_order(heard: Iterable[HeardWord], earliest: float = 0.0) -> list[HeardWord]:
    """Let no word start before the previous one starts, and none end after the next one starts."""
    ordered: list[HeardWord] = []
    for word, avg_logprob in heard:
        start = max(word.start, ordered[-1].word.start if ordered else earliest)
        placed = replace(word, start=start, end=max(word.end, start))
        if ordered and ordered[-1].word.end > start:
            ordered[-1] = ordered[-1]._replace(word=replace(ordered[-1].word, end=start))
        ordered.append(HeardWord(placed, avg_logprob))
    return ordered


def _group(
    heard: Iterable[HeardWord], min_pause: float, max_seconds: float
) -> list[list[HeardWord]]:
    """Words by segment. The last group may be empty, and later words may extend it."""
    groups: list[list[HeardWord]] = [[]]
    for item in heard:
        if groups[-1] and item.word.start - groups[-1][-1].word.end >= min_pause:
            groups.append([])
        while groups[-1] and item.word.end - groups[-1][0].word.start > max_seconds:
            group = groups.pop()
            cut = _longest_pause([*group, item])
            groups += [group[:cut], group[cut:]]
        groups[-1].append(item)
        if ends_sentence(item.word.text):
            groups.append([])
    return groups


def _longest_pause(group: Sequence[HeardWord]) -> int:
    """Index of the word after the longest pause; the last one on a tie."""
    pauses = [after.word.start - before.word.end for before, after in pairwise(group)]
    return max(range(len(pauses)), key=lambda i: (pauses[i], i)) + 1
