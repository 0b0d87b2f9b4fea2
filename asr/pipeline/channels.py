"""Transcribe the channels of a recording separately and merge their segments by time.

A `ChannelPipeline` cuts one channel into chunks and stitches their hypotheses. `Merger` orders the
segments of all channels by their starts. It holds a segment until no channel can still produce an
earlier one. Each channel knows that bound (`ChannelPipeline.settled`) from its unfinished chunks
and from how far its VAD has read, so the order is exact.

A recording that is mixed down has one channel, and its segments never wait.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from asr.pipeline.chunking import Chunker
from asr.pipeline.missing import GapFinder, Missing
from asr.pipeline.stitch import Stitcher
from asr.types import SAMPLE_RATE, Chunk, Gap, Hypothesis, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asr.audio.recording import Decoded, Recording
    from asr.config import ChunkOptions

Named = TypeVar("Named", Segment, Gap)


def speaker_of(channel: int) -> str:
    """The name that stands for the speaker of a channel."""
    return f"channel {channel}"


class ChannelPipeline:
    """One channel from speech regions to segments.

    Attributes:
        recording: the samples of the channel.
        speech_samples: samples in chunks so far; those that two chunks share count once.
        transcribed: seconds; all audio before it is transcribed. It never decreases.
    """

    def __init__(self, options: ChunkOptions, recording: Recording) -> None:
        self.recording = recording
        self.speech_samples = 0
        self.transcribed = 0.0
        self._chunker = Chunker(options, recording.read)
        self._stitcher = Stitcher(max_overlap=options.overlap)
        self._gaps = GapFinder(options.max_gap)
        self._waiting: deque[Chunk] = deque()
        self._listened = 0.0
        self._finished = False

    def take(self, report: Decoded) -> list[Chunk]:
        """Take a report of the decoder; return the chunks that later audio cannot change."""
        chunks = self._chunker.push(report.closed, report.open_region, report.settled_sample)
        if report.finished:
            chunks += self._chunker.finish()
        self._waiting += chunks
        self._listened = report.settled_sample / SAMPLE_RATE
        self._finished = report.finished
        for chunk in chunks:
            self.speech_samples += chunk.end_sample - chunk.start_sample - chunk.overlap
        return chunks

    def stitch(self, chunk: Chunk, hypothesis: Hypothesis | Missing) -> list[Segment]:
        """Take the hypothesis of the next chunk; return the segments that are final."""
        if isinstance(hypothesis, Missing):
            self._gaps.miss(chunk, hypothesis.reason)
            hypothesis = Hypothesis(chunk.index, "")
        else:
            self._gaps.hear(chunk)
        segments = self._stitcher.push(chunk, hypothesis)
        self._waiting.popleft()
        self.transcribed = max(self.transcribed, chunk.end)
        return segments

    def take_gaps(self) -> list[Gap]:
        """The gaps that have become final since the last call."""
        if self._finished and not self._waiting:
            self._gaps.finish()
        return self._gaps.take()

    @property
    def n_missing(self) -> int:
        """Samples of the chunks that were not recognised, counted like `speech_samples`."""
        return self._gaps.n_missing

    def rest(self) -> list[Segment]:
        """The segments that the stitcher holds; none while a chunk waits or is being built."""
        if self._waiting or self._chunker.start_sample is not None:
            return []
        self.transcribed = max(self.transcribed, self._listened)
        return self._stitcher.finish()

    @property
    def settled(self) -> float:
        """Seconds; no later segment starts before this. Infinite at the end."""
        begun = self._chunker.start_sample
        starts = [self._stitcher.earliest]
        starts += [chunk.start for chunk in self._waiting][:1]
        starts += [] if begun is None else [begun / SAMPLE_RATE]
        starts += [] if self._finished else [self._listened]
        return min(starts)


class Merger:
    """Orders the segments of several channels by start; the lower channel goes first on a tie.

    Args:
        n_channels: how many channels there are.
        named: set the channel and the speaker of each segment.
        labels: the speaker of each channel; by default ``channel 0`` and so on.

    Attributes:
        labels: the speaker of each channel.
    """

    def __init__(self, n_channels: int, *, named: bool, labels: Sequence[str] = ()) -> None:
        self._named = named
        self.labels = labels or [speaker_of(channel) for channel in range(n_channels)]
        self._settled = [0.0] * n_channels
        self._held: list[tuple[float, int, int, Segment]] = []
        self._n_segments = 0

    def push(self, channel: int, segments: Iterable[Segment], settled: float) -> list[Segment]:
        """Add segments of a channel; return the segments that come next, with new ids.

        A segment of any channel is returned once no other channel can still produce an earlier one.

        Args:
            channel: its number.
            segments: in the order of their starts.
            settled: seconds; no later segment of this channel starts before this.
        """
        self._settled[channel] = settled
        for segment in segments:
            heapq.heappush(self._held, (segment.start, channel, segment.id, segment))
        released = []
        while self._held and self._is_certain(*self._held[0][:2]):
            _, owner, _, segment = heapq.heappop(self._held)
            released.append(self._number(segment, owner))
        return released

    def _is_certain(self, start: float, channel: int) -> bool:
        others = ((time, other) for other, time in enumerate(self._settled) if other != channel)
        return all((time, other) > (start, channel) for time, other in others)

    def _number(self, segment: Segment, channel: int) -> Segment:
        number, self._n_segments = self._n_segments, self._n_segments + 1
        return replace(self.named(segment, channel), id=number)

    def named(self, item: Named, channel: int) -> Named:
        """Set the channel and the speaker, if the channels are kept apart."""
        if not self._named:
            return item
        return replace(item, channel=channel, speaker=self.labels[channel])
