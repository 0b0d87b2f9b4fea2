"""Speech regions -> chunks that an engine can take at once.

Neighbouring regions share a chunk while the chunk stays below the limit and the pause between them
is short, so cuts lie in silence. Speech longer than the limit is cut at the quietest place near the
limit. The two chunks then overlap, and `asr.pipeline.overlap` merges their words.

Positions are integer samples of the recording. The chunks do not depend on how many regions each
push brings, nor on whether a region was pushed while still open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asr.types import SAMPLE_RATE, Audio, Chunk, SpeechRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asr.config import ChunkOptions

HOP_SAMPLES = SAMPLE_RATE // 100
SMOOTH_HOPS = 10
"""Loudness is averaged over this many hops, because shorter dips are closures inside words."""


class Chunker:
    """Packs regions into chunks as the regions arrive.

    Args:
        options: the limits.
        read: returns the samples of [start_sample, end_sample); called only to cut speech.
    """

    def __init__(self, options: ChunkOptions, read: Callable[[int, int], Audio]) -> None:
        self._read = read
        self._max = round(options.max_seconds * SAMPLE_RATE)
        self._max_gap = round(options.max_gap * SAMPLE_RATE)
        self._overlap = round(options.overlap * SAMPLE_RATE) // 2 * 2
        self._search = round(options.search * SAMPLE_RATE)
        self._index = 0
        self._start: int | None = None  # of the chunk in progress
        self._end = 0
        self._shared = 0  # samples that the chunk in progress shares with the previous one
        self._regions: list[SpeechRegion] = []  # that may lie in the chunk in progress

    @property
    def start_sample(self) -> int | None:
        """Start of the chunk in progress, or None if there is none."""
        return self._start

    def push(
        self,
        closed: Iterable[SpeechRegion],
        open_region: SpeechRegion | None = None,
        settled_sample: int = 0,
    ) -> list[Chunk]:
        """Take new regions; return the chunks that later audio cannot change.

        Args:
            closed: regions that ended since the last push.
            open_region: the region that has not ended, as far as it is known.
            settled_sample: no later region starts before this sample. If that is far enough after
                the chunk in progress, the chunk is complete.
        """
        chunks = []
        for region in closed:
            chunks += self._take(region)
            self._end = region.end_sample
        if open_region is not None:
            chunks += self._take(open_region)
        elif settled_sample - self._end > self._max_gap:
            chunks += self._emit()
        return chunks

    def finish(self) -> list[Chunk]:
        """End the recording; return the last chunk, if any."""
        return self._emit()

    def _take(self, region: SpeechRegion) -> list[Chunk]:
        """Add `region` to the chunk in progress, and cut the chunk where it is too long.

        The region may still be open: make only the cuts that later audio cannot change.
        """
        chunks = []
        self._remember(region)
        is_new = self._start is None or self._start < region.start_sample
        if is_new:
            if not self._fits(region):
                chunks += self._emit()
            if self._start is None:
                self._start = self._end = region.start_sample
        while self._start is not None and region.end_sample - self._start > self._max:
            chunks += self._cut()
        return chunks

    def _remember(self, region: SpeechRegion) -> None:
        if self._regions and self._regions[-1].start_sample == region.start_sample:
            self._regions.pop()  # the same region, pushed while it was open
        self._regions.append(region)

    def _fits(self, region: SpeechRegion) -> bool:
        if self._start is None:
            return True
        near = region.start_sample - self._end <= self._max_gap
        return near and region.end_sample - self._start <= self._max

    def _emit(self) -> list[Chunk]:
        """End the chunk in progress at the end of its last region."""
        start, self._start = self._start, None
        if start is None or start == self._end:
            return []
        return [self._make(start, self._end)]

    def _cut(self) -> list[Chunk]:
        """Cut the chunk in progress inside speech; the next one starts with the overlap."""
        start = self._start or 0
        half = self._overlap // 2
        latest = start + self._max - half
        earliest = latest - self._search + self._overlap
        cut = earliest + quietest(self._read(earliest, latest))
        chunk = self._make(start, cut + half)
        self._start, self._end, self._shared = cut - half, cut + half, self._overlap
        return [chunk]

    def _make(self, start: int, end: int) -> Chunk:
        chunk = Chunk(self._index, start, end, self._shared, self._speech(start, end))
        self._index += 1
        self._shared = 0
        self._regions = [region for region in self._regions if region.end_sample > start]
        return chunk

    def _speech(self, start: int, end: int) -> int:
        """How many samples of [start, end) lie in a region."""
        spans = ((max(r.start_sample, start), min(r.end_sample, end)) for r in self._regions)
        return sum(max(0, last - first) for first, last in spans)


def quietest(audio: Audio) -> int:
    """The sample in the middle of the quietest 0.1 s; the first one on a tie.

    ``librosa.feature.rms`` gives the same loudness (a test compares them), but its import costs
    4 s and 200 MB.
    """
    n_hops = len(audio.samples) // HOP_SAMPLES
    if n_hops <= SMOOTH_HOPS:
        return len(audio.samples) // 2
    hops = audio.samples[: n_hops * HOP_SAMPLES].reshape(n_hops, HOP_SAMPLES)
    power = np.square(hops, dtype=np.float64).mean(axis=1)
    smooth = np.convolve(power, np.full(SMOOTH_HOPS, 1 / SMOOTH_HOPS), mode="valid")
    return (int(smooth.argmin()) * 2 + SMOOTH_HOPS) * HOP_SAMPLES // 2


def make_chunks(
    regions: Iterable[SpeechRegion], options: ChunkOptions, read: Callable[[int, int], Audio]
) -> list[Chunk]:
    """The chunks of a whole recording."""
    chunker = Chunker(options, read)
    return chunker.push(regions) + chunker.finish()
