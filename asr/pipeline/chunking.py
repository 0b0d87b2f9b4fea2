"""Pack speech regions into chunks that an engine accepts.

1. Neighbouring regions share a chunk if they fit. So cuts lie in silence.
2. A region that is longer than a chunk is cut in its longest pause. The pause may be too short for
   the VAD.
3. A region without such a pause is cut at the quietest place near the limit. The two chunks then
   overlap, and `asr.pipeline.overlap` merges their words. This is the last resort: a recogniser
   invents words where a chunk begins or ends inside a word.
4. A chunk with little speech is joined to the nearer neighbour, across any pause, if both fit into
   the longest chunk. A recogniser makes many errors in a second of speech without context.

Positions are integer samples of the recording. The chunks do not depend on the number of regions
per push, nor on whether a region was pushed while it was still open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch that becomes a chunk. `shared` samples of it lie in the previous chunk too."""

    start: int
    end: int
    shared: int = 0


class Chunker:
    """Packs regions into chunks as the regions arrive.

    The last complete chunk is held while a short one may follow that is joined to it.

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
        least = min(options.min_seconds, options.max_seconds / 10, options.search / 2)
        self._min = round(least * SAMPLE_RATE)
        self._index = 0
        self._held: _Span | None = None
        self._current: _Span | None = None  # its end is that of its last closed region
        self._is_stretched = False  # the chunk in progress may exceed the preferred length
        self._regions: list[SpeechRegion] = []  # that may lie in these two

    @property
    def start_sample(self) -> int | None:
        """Start of the first chunk that is not returned yet, or None if there is none."""
        first = self._held or self._current
        return None if first is None else first.start

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
            settled_sample: no later region starts before this sample. If it is far enough after the
                chunk in progress, the chunk is complete.
        """
        chunks = []
        for region in closed:
            chunks += self._take(region, is_open=False)
            if self._current is not None:
                self._current = replace(self._current, end=region.end_sample)
        if open_region is not None:
            chunks += self._take(open_region, is_open=True)
        else:
            chunks += self._settle(settled_sample)
        return chunks

    def finish(self) -> list[Chunk]:
        """End the recording; return the last chunks, if any."""
        return self._end_current() + self._release()

    def _take(self, region: SpeechRegion, *, is_open: bool) -> list[Chunk]:
        """Add `region` to the chunk in progress, and cut the chunk where it is too long.

        The region may still be open: make only the cuts that later audio cannot change.
        """
        chunks = []
        self._remember(region)
        current = self._current
        if current is not None and current.start < region.start_sample:
            if is_open and self._is_undecided(current, region):
                return []
            if not self._continues(current, region):
                chunks += self._end_current()
        if self._current is None:
            self._current = _Span(region.start_sample, region.start_sample)
        while (cut := self._cut(region.end_sample, is_open=is_open)) is not None:
            chunks += cut
        return chunks + self._release_unreachable(region.end_sample)

    def _remember(self, region: SpeechRegion) -> None:
        if self._regions and self._regions[-1].start_sample == region.start_sample:
            self._regions.pop()  # the same region, pushed while it was open
        self._regions.append(region)

    def _continues(self, current: _Span, region: SpeechRegion) -> bool:
        """Whether the chunk in progress goes on with a new region."""
        gap = region.start_sample - current.end
        if not self._is_short(current, current.end):
            is_near = gap <= self._max_gap
            return is_near and region.end_sample - current.start <= self._preferred
        if gap > self._max_gap and self._is_nearer_to_held(current, gap):
            return False
        self._is_stretched = not self._leaves_room(current, region, self._preferred)
        fits = region.end_sample - current.start <= self._max
        return fits or self._leaves_room(current, region, self._max)

    def _is_undecided(self, current: _Span, region: SpeechRegion) -> bool:
        """Whether a short chunk goes on with an open region only if that ends early enough."""
        gap = region.start_sample - current.end
        if not self._is_short(current, current.end):
            return False
        if gap > self._max_gap and self._is_nearer_to_held(current, gap):
            return False
        is_certain = self._leaves_room(current, region, self._max)
        return not is_certain and region.end_sample - current.start <= self._max

    def _leaves_room(self, current: _Span, region: SpeechRegion, limit: int) -> bool:
        """Whether the place for a cut before `limit` is well inside the region."""
        room = limit - self._search - 2 * self._min
        return region.start_sample - current.start <= room

    def _is_nearer_to_held(self, current: _Span, gap: int) -> bool:
        """Whether a short chunk belongs to the one before, with a pause of `gap` after it."""
        held = self._held
        is_near = held is not None and current.start - held.end <= gap
        return is_near and self._reaches_held(current.end)

    def _reaches_held(self, end: int) -> bool:
        return self._held is not None and end - self._held.start <= self._max

    def _is_short(self, span: _Span, end: int) -> bool:
        return self._speech(span.start, end) < self._min

    def _settle(self, settled: int) -> list[Chunk]:
        """End the chunk in progress if no later region can continue it."""
        current = self._current
        if current is None:
            return self._release_unreachable(settled)
        gap = settled - current.end
        is_over = gap > self._max_gap
        if self._is_short(current, current.end):
            is_far = settled - current.start >= self._max
            is_over = is_over and (is_far or self._is_nearer_to_held(current, gap))
        chunks = self._end_current() if is_over else []
        return chunks + self._release_unreachable(settled if is_over else current.end)

    def _end_current(self) -> list[Chunk]:
        """End the chunk in progress at the end of its last region.

        If it is short, it is joined to the one before, if they fit into a chunk. Otherwise it is
        held, and the one before is complete.
        """
        current, self._current, self._is_stretched = self._current, None, False
        if current is None or current.start == current.end:
            return []
        if self._is_short(current, current.end) and self._reaches_held(current.end):
            self._held = replace(self._held or current, end=current.end)
            return []
        return self._hold(current)

    def _hold(self, span: _Span) -> list[Chunk]:
        """Hold a complete chunk; return the one that was held."""
        chunks = self._release()
        self._held = span
        return chunks

    def _release(self) -> list[Chunk]:
        held, self._held = self._held, None
        return [] if held is None else [self._make(held)]

    def _release_unreachable(self, end: int) -> list[Chunk]:
        """Return the held chunk if no short one can be joined to it; speech is known to `end`."""
        held, current = self._held, self._current
        is_long = current is not None and not self._is_short(current, end)
        is_far = held is not None and end - held.start > self._max
        return self._release() if is_long or is_far else []

    def _cut(self, end: int, *, is_open: bool) -> list[Chunk] | None:
        """Cut the chunk in progress if it is too long; its speech lasts at least until `end`.

        Near the longest chunk a cut waits until the speech after it cannot be short.
        """
        current = self._current
        if current is None:
            return None
        n_samples = end - current.start
        limit = self._preferred
        if n_samples > limit and limit < self._max and not self._is_stretched:
            pause = self._find_pause(current.start, current.start + limit)
            if pause is not None:
                return self._cut_at(current, pause, overlap=0)
        if n_samples <= self._max + (self._min if is_open else 0):
            return None
        latest = min(current.start + self._max, end - self._min)
        pause = self._find_pause(current.start, latest)
        if pause is not None:
            return self._cut_at(current, pause, overlap=0)
        return self._cut_speech(current, latest)

    def _find_pause(self, start: int, latest: int) -> int | None:
        """Search the last `search` seconds before `latest` for the longest pause."""
        earliest = max(start + 1, latest - self._search)
        found = longest_pause(self._read(earliest, latest))
        return None if found is None else earliest + found

    def _cut_speech(self, current: _Span, latest: int) -> list[Chunk]:
        """Cut at the quietest place near the limit; the next chunk starts with the overlap."""
        half = self._overlap // 2
        latest = min(latest, current.start + self._max - half)
        earliest = max(latest - self._search + self._overlap, current.start + half + 1)
        cut = earliest + quietest(self._read(earliest, latest))
        return self._cut_at(current, cut, overlap=self._overlap)

    def _cut_at(self, current: _Span, cut: int, *, overlap: int) -> list[Chunk]:
        half = overlap // 2
        self._current, self._is_stretched = _Span(cut - half, cut + half, overlap), False
        return self._hold(_Span(current.start, cut + half, current.shared))

    def _make(self, span: _Span) -> Chunk:
        speech = self._speech(span.start, span.end)
        chunk = Chunk(self._index, span.start, span.end, span.shared, speech)
        self._index += 1
        self._regions = [region for region in self._regions if region.end_sample > span.start]
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
