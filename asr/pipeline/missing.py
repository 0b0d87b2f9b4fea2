"""Chunks that could not be recognised, and the gaps that they leave in a transcript.

Which errors leave a gap is decided by `reason_of`. Errors that are not about a chunk, such as an
engine that is unreachable or a full disk, never do: the same work may succeed later.

A gap contains only audio that no chunk was recognised from. Where two chunks overlap and one of
them was recognised, the audio that they share is not missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.errors import (
    AudioError,
    EngineTimeout,
    EngineUnavailable,
    InvalidOption,
    StoreUnavailable,
    TooMuchMissing,
    WorkerDied,
    WorkerLost,
    lacks_threads,
)
from asr.types import SAMPLE_RATE, Gap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.types import Chunk, GapReason

MOST: Final = 0.5
"""A larger share of missing audio makes a transcription fail."""

_NOT_THE_CHUNK: Final = (
    AudioError,
    InvalidOption,
    EngineUnavailable,
    StoreUnavailable,
    TooMuchMissing,
    WorkerLost,
    OSError,
    MemoryError,
    EOFError,
)


@dataclass(frozen=True, slots=True)
class Missing:
    """Takes the place of the hypothesis of a chunk that could not be recognised."""

    reason: GapReason


def reason_of(error: Exception) -> GapReason | None:
    """Why a chunk is missing, or None if the error is not about the chunk.

    The result is None for exactly those errors of a chunk that `asr.service.faults` does not blame
    on the chunk.
    """
    if isinstance(error, _NOT_THE_CHUNK) or _lacks_resources(error):
        return None
    return "engine_timeout" if isinstance(error, EngineTimeout) else "engine_failed"


def _lacks_resources(error: Exception) -> bool:
    if isinstance(error, WorkerDied):
        return error.errno is not None
    return lacks_threads(error)


class GapFinder:
    """Finds the gaps of one channel. It is told about each chunk, in order.

    Args:
        max_pause: seconds. Two missing chunks with a longer pause between them are two gaps.

    Attributes:
        n_missing: samples of all missing chunks; those that two chunks share count once.
    """

    def __init__(self, max_pause: float) -> None:
        self.n_missing = 0
        self._max_pause = round(max_pause * SAMPLE_RATE)
        self._open: tuple[int, int, GapReason] | None = None
        self._done: list[tuple[int, int, GapReason]] = []
        self._covered = 0  # samples before this are recognised or in a finished gap
        self._settled = 0  # no later chunk begins before this

    def hear(self, chunk: Chunk) -> None:
        """Take a chunk that was recognised."""
        if self._open is not None:
            start, end, reason = self._open
            self._open = start, min(end, chunk.start_sample), reason
        # A short chunk between two overlaps may let this one reach into a finished gap.
        self._done = [(start, min(end, chunk.start_sample), why) for start, end, why in self._done]
        self._end_open()
        self._covered = max(self._covered, chunk.end_sample)
        self._settled = chunk.start_sample

    def miss(self, chunk: Chunk, reason: GapReason) -> None:
        """Take a chunk that was not recognised."""
        self.n_missing += chunk.end_sample - chunk.start_sample - chunk.overlap
        self._settled = chunk.start_sample
        if self._open is not None:
            start, end, last = self._open
            if last == reason and chunk.start_sample - end <= self._max_pause:
                self._open = start, max(end, chunk.end_sample), reason
                return
        self._end_open()
        self._open = max(chunk.start_sample, self._covered), chunk.end_sample, reason

    def finish(self) -> None:
        """End the recording."""
        self._end_open()
        self._settled = self._covered

    def _end_open(self) -> None:
        if self._open is None:
            return
        (start, end, reason), self._open = self._open, None
        self._covered = max(self._covered, end)
        self._done.append((start, end, reason))

    def take(self) -> list[Gap]:
        """The gaps that later chunks cannot change, since the last call."""
        taken = [gap for gap in self._done if gap[1] <= self._settled]
        self._done = self._done[len(taken) :]
        return [
            Gap(start / SAMPLE_RATE, end / SAMPLE_RATE, reason)
            for start, end, reason in taken
            if start < end
        ]


def check_share(n_missing: int, n_speech: int, decoded: float, total: float) -> None:
    """Check that at most half of a recording is missing.

    Silence does not count: of the decoded audio, only speech can be missing. Nobody knows how much
    speech there is in audio that could not be decoded. It counts as if it had as much speech per
    second as the rest.

    Args:
        n_missing: samples of speech that were not recognised.
        n_speech: samples of speech, with the missing ones.
        decoded: seconds of audio that were decoded.
        total: seconds of audio, with those that could not be decoded.

    Raises:
        TooMuchMissing: more than half is missing.
    """
    undecoded = max(0.0, 1 - decoded / total) if total else 0.0
    unrecognised = n_missing / n_speech if n_speech else 0.0
    share = undecoded + (1 - undecoded) * unrecognised
    if share > MOST:
        message = f"{share:.0%} of the recording could not be transcribed"
        causes = []
        if unrecognised:
            causes.append(f"{n_missing / SAMPLE_RATE:.1f} s of speech were not recognised")
        if undecoded:
            causes.append(f"the last {total - decoded:.1f} s could not be decoded")
        raise TooMuchMissing(f"{message}: {', '.join(causes)}", is_damaged=undecoded > MOST)


def merged(gaps: Sequence[Gap]) -> tuple[Gap, ...]:
    """The gaps of all channels, ordered by start and then by channel."""
    return tuple(sorted(gaps, key=lambda gap: (gap.start, gap.channel or 0)))
