"""The channels of a recording, each on its own way from speech regions to segments.

A `Lane` cuts one channel into chunks and stitches what was heard in them. `Merger` puts the
segments of all lanes in the order of their starts, and hands one out as soon as no lane can come up
with an earlier one: each lane says how far it has certainly come (`Lane.settled`), from what it
still has in work and from how far the VAD has listened. So the order is exact.

A recording that is mixed is one lane, which waits for nobody.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from asr.pipeline.chunking import Chunker
from asr.pipeline.stitch import Stitcher
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.audio.recording import Decoded, Recording
    from asr.config import ChunkOptions


def speaker_of(channel: int) -> str:
    """The name of whoever speaks in a channel."""
    return f"channel {channel}"


class Lane:
    """One channel.

    Attributes:
        recording: its samples.
        speech_samples: handed to the engine so far, shared ones once.
        transcribed: seconds before which everything was heard; it only grows.
    """

    def __init__(self, options: ChunkOptions, recording: Recording) -> None:
        self.recording = recording
        self.speech_samples = 0
        self.transcribed = 0.0
        self._chunker = Chunker(options, recording.read)
        self._stitcher = Stitcher(max_overlap=options.overlap)
        self._waiting: deque[Chunk] = deque()
        self._listened = 0.0
        self._finished = False

    def take(self, report: Decoded) -> list[Chunk]:
        """Take what the decoder found; return the chunks that are certain."""
        chunks = self._chunker.push(report.closed, report.open_region, report.settled_sample)
        if report.finished:
            chunks += self._chunker.finish()
        self._waiting += chunks
        self._listened = report.settled_sample / SAMPLE_RATE
        self._finished = report.finished
        for chunk in chunks:
            self.speech_samples += chunk.end_sample - chunk.start_sample - chunk.overlap
        return chunks

    def stitch(self, chunk: Chunk, hypothesis: Hypothesis) -> list[Segment]:
        """Take what was heard in the next chunk; return the segments that are certain."""
        segments = self._stitcher.push(chunk, hypothesis)
        self._waiting.popleft()
        self.transcribed = max(self.transcribed, chunk.end)
        return segments

    def rest(self) -> list[Segment]:
        """Segments that were held back for a next chunk, if that can only follow a silence."""
        if self._waiting or self._chunker.start_sample is not None:
            return []
        self.transcribed = max(self.transcribed, self._listened)
        return self._stitcher.finish()

    @property
    def settled(self) -> float:
        """Seconds; no segment that is still to come starts before. Infinite at the end."""
        begun = self._chunker.start_sample
        starts = [self._stitcher.earliest]
        starts += [chunk.start for chunk in self._waiting][:1]
        starts += [] if begun is None else [begun / SAMPLE_RATE]
        starts += [] if self._finished else [self._listened]
        return min(starts)


class Merger:
    """Segments of several lanes in the order of their starts, lower channels first where equal.

    Args:
        n_lanes: how many there are.
        named: give each segment its channel and speaker.
    """

    def __init__(self, n_lanes: int, *, named: bool) -> None:
        self._named = named
        self._settled = [0.0] * n_lanes
        self._held: list[tuple[float, int, int, Segment]] = []
        self._n_segments = 0

    def push(self, lane: int, segments: Iterable[Segment], settled: float) -> list[Segment]:
        """Take the next segments of a lane; return, numbered anew, those whose turn is certain.

        Args:
            lane: which.
            segments: in the order of their starts.
            settled: no later segment of this lane will start before this time.
        """
        self._settled[lane] = settled
        for segment in segments:
            heapq.heappush(self._held, (segment.start, lane, segment.id, segment))
        released = []
        while self._held and self._is_certain(*self._held[0][:2]):
            _, owner, _, segment = heapq.heappop(self._held)
            released.append(self._number(segment, owner))
        return released

    def _is_certain(self, start: float, lane: int) -> bool:
        others = ((time, other) for other, time in enumerate(self._settled) if other != lane)
        return all((time, other) > (start, lane) for time, other in others)

    def _number(self, segment: Segment, lane: int) -> Segment:
        number, self._n_segments = self._n_segments, self._n_segments + 1
        if not self._named:
            return replace(segment, id=number)
        return replace(segment, id=number, channel=lane, speaker=speaker_of(lane))
