"""Pack speech regions into chunks that an engine accepts.

1. Neighbouring regions share a chunk if they fit. So cuts lie in silence.
2. A region that is longer than a chunk is cut in its longest pause. The pause may be too short for
   the VAD.
3. A region without such a pause is cut at the quietest place near the limit. The two chunks then
   overlap, and `asr.pipeline.overlap` merges their words. This is the last resort: a recogniser
   invents words where a chunk begins or ends inside a word.

Positions are integer samples of the recording. The chunks do not depend on the number of regions
per push, nor on whether a region was pushed while it was still open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from asr.types import SAMPLE_RATE, Audio, Chunk, SpeechRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asr.config import ChunkOptions

HOP_SAMPLES: Final = SAMPLE_RATE // 100
SMOOTH_HOPS: Final = 10
"""Power is averaged over this many hops (0.1 s), because shorter dips are closures inside words."""
LOUD: Final = 0.9
"""Quantile: the power of loud speech is the power that 10% of the hops exceed."""
PAUSE_POWER: Final = 10 ** (-20 / 10)
"""In a pause, the power of each hop is lower than this fraction (-20 dB) of loud speech."""
MIN_PAUSE_HOPS: Final = 20
"""A pause lasts at least this many hops (0.2 s). Closures inside words are shorter."""


class Chunker:
    """Packs regions into chunks as the regions arrive.

    Args:
        options: the limits.
        read: returns the samples of [start_sample, end_sample); called only to cut speech.
    """

    def __init__(self, options: ChunkOptions, read: Callable[[int, int], Audio]) -> None:
        self._read = read
        self._max = round(options.max_seconds * SAMPLE_RATE)
        preferred = options.preferred_seconds or options.max_seconds
        self._preferred = min(self._max, round(preferred * SAMPLE_RATE))
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
            settled_sample: no later region starts before this sample. If it is more than `max_gap`
                after the chunk in progress, the chunk is complete.
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
        while (chunk := self._cut(region.end_sample)) is not None:
            chunks.append(chunk)
        return chunks

    def _remember(self, region: SpeechRegion) -> None:
        if self._regions and self._regions[-1].start_sample == region.start_sample:
            self._regions.pop()  # the same region, pushed while it was open
        self._regions.append(region)

    def _fits(self, region: SpeechRegion) -> bool:
        if self._start is None:
            return True
        is_near = region.start_sample - self._end <= self._max_gap
        return is_near and region.end_sample - self._start <= self._preferred

    def _emit(self) -> list[Chunk]:
        """End the chunk in progress at the end of its last region."""
        start, self._start = self._start, None
        if start is None or start == self._end:
            return []
        return [self._make(start, self._end)]

    def _cut(self, end: int) -> Chunk | None:
        """Cut the chunk in progress if it is too long; its speech lasts at least until `end`."""
        if self._start is None:
            return None
        for limit in (self._preferred, self._max):
            pause = self._find_pause(limit) if end - self._start > limit else None
            if pause is not None:
                return self._cut_at(pause, overlap=0)
        return self._cut_speech() if end - self._start > self._max else None

    def _find_pause(self, limit: int) -> int | None:
        """Search the last `search` seconds before `limit` samples for the longest pause."""
        start = self._start or 0
        earliest = start + max(1, limit - self._search)
        found = longest_pause(self._read(earliest, start + limit))
        return None if found is None else earliest + found

    def _cut_speech(self) -> Chunk:
        """Cut at the quietest place near the limit; the next chunk starts with the overlap."""
        latest = (self._start or 0) + self._max - self._overlap // 2
        earliest = latest - self._search + self._overlap
        return self._cut_at(
            earliest + quietest(self._read(earliest, latest)), overlap=self._overlap
        )

    def _cut_at(self, cut: int, *, overlap: int) -> Chunk:
        half = overlap // 2
        chunk = self._make(self._start or 0, cut + half)
        self._start, self._end, self._shared = cut - half, cut + half, overlap
        return chunk

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
    power = _power(audio)
    if len(power) <= SMOOTH_HOPS:
        return len(audio.samples) // 2
    return _quietest_hop(power) * HOP_SAMPLES


def longest_pause(audio: Audio) -> int | None:
    """The sample in the middle of the quietest 0.1 s of the longest pause, or None."""
    power = _power(audio)
    loud = np.quantile(power, LOUD) if len(power) else 0.0
    edges = np.flatnonzero(np.diff(power < PAUSE_POWER * loud, prepend=False, append=False))
    begins, ends = edges[::2], edges[1::2]
    longest = int((ends - begins).argmax()) if len(begins) else 0
    if not len(begins) or ends[longest] - begins[longest] < MIN_PAUSE_HOPS:
        return None
    pause = power[begins[longest] : ends[longest]]
    return (int(begins[longest]) + _quietest_hop(pause)) * HOP_SAMPLES


def _quietest_hop(power: np.ndarray) -> int:
    smooth = np.convolve(power, np.full(SMOOTH_HOPS, 1 / SMOOTH_HOPS), mode="valid")
    return int(smooth.argmin()) + SMOOTH_HOPS // 2


def _power(audio: Audio) -> np.ndarray:
    """The mean power of each hop."""
    n_hops = len(audio.samples) // HOP_SAMPLES
    hops = audio.samples[: n_hops * HOP_SAMPLES].reshape(n_hops, HOP_SAMPLES)
    power: np.ndarray = np.square(hops, dtype=np.float64).mean(axis=1)
    return power


def make_chunks(
    regions: Iterable[SpeechRegion], options: ChunkOptions, read: Callable[[int, int], Audio]
) -> list[Chunk]:
    """The chunks of a whole recording."""
    chunker = Chunker(options, read)
    return chunker.push(regions) + chunker.finish()
