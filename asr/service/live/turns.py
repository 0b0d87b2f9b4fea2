"""Cuts 16 kHz samples into turns, each in its own file.

With server VAD a turn is a speech region. A region that grows longer than the engine accepts is cut
at its quietest place and continues as the next turn. So a speaker without pauses is transcribed
while speaking, and at most one turn is in memory. Both files extend beyond the cut, so that each
word is complete in at least one of them. Without VAD a turn is the audio between two commits, and
its samples are written to disk as they arrive.

The turns do not depend on how the samples are split into pushes.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from asr.audio.vad import ONSET_SECONDS, SpeechDetector
from asr.config import ChunkOptions, VadOptions
from asr.pcm import to_bytes, to_float32
from asr.pipeline.chunking import quietest
from asr.types import SAMPLE_RATE, Audio, SpeechRegion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    from asr.audio.quiet import FrameClassifier

MAX_SAMPLES: Final = round(ChunkOptions().max_seconds * SAMPLE_RATE)
SEARCH_SAMPLES: Final = round(ChunkOptions().search * SAMPLE_RATE)
MARGIN_SAMPLES: Final = round(ChunkOptions().overlap * SAMPLE_RATE) // 2
"""The file of a turn extends this far beyond a cut."""
MAX_OVERLAP_SAMPLES: Final = SEARCH_SAMPLES
"""Upper limit for the audio that the files of two turns share. With partial results, the first file
extends beyond the cut to `MAX_SAMPLES`, and the second file starts a margin before the cut."""
BLOCK_SAMPLES: Final = SAMPLE_RATE
"""A longer push is split into blocks, so that memory does not grow with the size of messages."""
PAUSE_SECONDS: Final = 1.0
"""A pause of this length ends a speech region in a turn that the client commits."""
MIN_COMMIT_SAMPLES: Final = SAMPLE_RATE // 10
"""100 ms: OpenAI refuses to commit less."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """A turn starts at this sample of the session."""

    item_id: str
    sample: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The turn ends at this sample of the session."""

    item_id: str
    sample: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A finished turn: [start_sample, end_sample) of the session, in a file of 16 kHz mono PCM16.

    Attributes:
        path: the file.
        lead: number of samples in the file before `start_sample`; 0 unless speech was cut there.
        tail: number of samples in the file after `end_sample`; 0 unless speech was cut there.
    """

    item_id: str
    start_sample: int
    end_sample: int
    path: Path
    lead: int = 0
    tail: int = 0

    @property
    def start(self) -> float:
        """Seconds from the start of the session."""
        return self.start_sample / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Seconds from the start of the session."""
        return self.end_sample / SAMPLE_RATE

    @property
    def origin(self) -> float:
        """Start of the file, in seconds from the start of the session."""
        return (self.start_sample - self.lead) / SAMPLE_RATE

    @property
    def is_whole(self) -> bool:
        """False if the turn is one part of a speech region that was cut."""
        return not self.lead and not self.tail


InputEvent = SpeechStarted | SpeechStopped | Turn


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """The unfinished turn, for partial results. Samples count from the start of the session.

    Attributes:
        item_id: id of the item that the turn will become.
        ended: the regions of the turn that have ended, in order. The list grows.
        current: the region that has not ended, up to its last voiced frame; None during a pause.
    """

    item_id: str
    ended: Sequence[SpeechRegion]
    current: SpeechRegion | None


class Turns(Protocol):
    """Cuts samples into turns."""

    @property
    def open_turn(self) -> OpenTurn | None:
        """The unfinished turn, if there is one with speech."""
        ...

    def push(self, pcm: np.ndarray) -> list[InputEvent]:
        """Add int16 samples of shape (n,); returns the events that they cause."""
        ...

    def commit(self) -> list[InputEvent]:
        """End the current turn. The result is empty if there is no turn."""
        ...

    def clear(self) -> None:
        """Discard the unfinished turn."""
        ...


def new_item_id() -> str:
    """A random id in OpenAI's format."""
    return f"item_{secrets.token_hex(12)}"


class SpokenTurns:
    """Turns that the VAD finds.

    Args:
        options: of the VAD.
        folder: for the files of turns.
        origin: the position of the first pushed sample in the session, in samples.
        classifier: replaces the one that `options` select; for tests.
        has_partials: whether the session has partial results. Sent words belong to a turn even if
            they are after its cut. So its file then contains all audio up to the longest turn.
    """

    def __init__(
        self,
        options: VadOptions,
        folder: Path,
        origin: int = 0,
        classifier: FrameClassifier | None = None,
        *,
        has_partials: bool = False,
    ) -> None:
        self._has_partials = has_partials
        self._options = options
        self._folder = folder
        self._classifier = classifier
        # Some voiced frames open a region. It can start this many samples before the last of them.
        onset = max(ONSET_SECONDS, 2 * options.min_speech)
        self._onset = round((onset + options.padding + 0.1) * SAMPLE_RATE)
        self._restart(origin)

    def _restart(self, origin: int) -> None:
        self._detector = SpeechDetector(self._options, self._classifier)
        self._origin = origin  # sample of the session at which the detector started
        self._held = np.zeros(0, np.int16)
        self._held_from = 0  # `_held_from` and `_first` are samples since the detector's start
        self._first = 0  # first sample of the current turn's file
        self._lead = 0
        self._item_id: str | None = None

    @property
    def open_turn(self) -> OpenTurn | None:
        """The unfinished turn, if there is one."""
        region = self._detector.open_region
        if self._item_id is None or region is None:
            return None
        start = self._origin + max(region.start_sample, self._first)
        current = SpeechRegion(start, max(start, self._origin + region.end_sample))
        return OpenTurn(self._item_id, (), current)

    def push(self, pcm: np.ndarray) -> list[InputEvent]:
        """Add samples; returns the events that they cause."""
        events: list[InputEvent] = []
        for begin in range(0, len(pcm), BLOCK_SAMPLES):
            events += self._push_block(pcm[begin : begin + BLOCK_SAMPLES])
        return events

    def _push_block(self, pcm: np.ndarray) -> list[InputEvent]:
        self._held = np.concatenate((self._held, pcm))
        events: list[InputEvent] = []
        for region in self._detector.push(pcm):
            events += self._grow(region) + self._end(region.end_sample)
        if (begun := self._detector.open_region) is not None:
            events += self._grow(begun)
        self._trim()
        return events

    def commit(self) -> list[InputEvent]:
        """End the current turn, if there is one."""
        events: list[InputEvent] = []
        for region in self._detector.finish():
            events += self._grow(region) + self._end(region.end_sample)
        self.clear()
        return events

    def clear(self) -> None:
        """Discard the current turn and restart the VAD."""
        self._restart(self._origin + self._detector.n_samples)

    def _grow(self, region: SpeechRegion) -> list[InputEvent]:
        """Extend the current turn to the end of `region`, or begin a turn at its start.

        `region` may still grow. A turn that is too long for the engine is cut at a quiet place.
        """
        events: list[InputEvent] = []
        if self._item_id is None:
            events += self._begin(region.start_sample)
        while region.end_sample - self._first > MAX_SAMPLES:
            latest = self._first + MAX_SAMPLES - MARGIN_SAMPLES
            earliest = latest - SEARCH_SAMPLES + 2 * MARGIN_SAMPLES
            cut = earliest + quietest(_audio(self._samples(earliest, latest)))
            reach = self._first + MAX_SAMPLES - cut
            tail = reach if self._has_partials else MARGIN_SAMPLES
            events += self._end(cut, tail) + self._begin(cut, MARGIN_SAMPLES)
        return events

    def _begin(self, sample: int, lead: int = 0) -> list[InputEvent]:
        self._item_id, self._first, self._lead = new_item_id(), sample - lead, lead
        return [SpeechStarted(self._item_id, self._origin + sample)]

    def _end(self, sample: int, tail: int = 0) -> list[InputEvent]:
        item_id, self._item_id = self._item_id or new_item_id(), None
        path = self._folder / f"{item_id}.pcm"
        path.write_bytes(to_bytes(self._samples(self._first, sample + tail)))
        start, end = self._origin + self._first + self._lead, self._origin + sample
        turn = Turn(item_id, start, end, path, self._lead, tail)
        return [SpeechStopped(item_id, end), turn]

    def _samples(self, start: int, end: int) -> np.ndarray:
        return self._held[start - self._held_from : end - self._held_from]

    def _trim(self) -> None:
        """Drop the samples that no turn can need."""
        n_samples = self._detector.n_samples
        needed = self._first if self._item_id is not None else max(0, n_samples - self._onset)
        if needed - self._held_from > BLOCK_SAMPLES:  # each trim copies all samples that stay
            self._held = self._held[needed - self._held_from :].copy()
            self._held_from = needed


class CommittedTurns:
    """Turns that the client commits.

    Args:
        folder: for the files of turns.
        origin: the position of the first pushed sample in the session, in samples.
        vad: finds the speech for partial results; None without partial results.
    """

    def __init__(self, folder: Path, origin: int = 0, vad: VadOptions | None = None) -> None:
        self._folder = folder
        self._vad = vad and replace(vad, min_silence=PAUSE_SECONDS)
        self._file: BinaryIO | None = None
        self._ended: list[SpeechRegion] = []
        self._start = self._end = origin
        self._item_id = new_item_id()
        self._detector = self._new_detector()

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._item_id}.pcm"

    def push(self, pcm: np.ndarray) -> list[InputEvent]:
        """Write samples to disk. Turns end only at a commit, so the result is empty."""
        if self._file is None:
            self._file = self._path.open("wb")
        self._file.write(to_bytes(pcm))
        self._end += len(pcm)
        if self._detector is not None:
            self._ended += map(self._in_session, self._detector.push(pcm))
        return []

    @property
    def open_turn(self) -> OpenTurn | None:
        """The unfinished turn, if there is speech in it."""
        region = None if self._detector is None else self._detector.open_region
        if region is None and not self._ended:
            return None
        return OpenTurn(self._item_id, self._ended, region and self._in_session(region))

    def _in_session(self, region: SpeechRegion) -> SpeechRegion:
        return SpeechRegion(self._start + region.start_sample, self._start + region.end_sample)

    def commit(self) -> list[InputEvent]:
        """End the turn, unless it is shorter than 100 ms."""
        if self._end - self._start < MIN_COMMIT_SAMPLES or self._file is None:
            return []
        self._file.close()
        turn = Turn(self._item_id, self._start, self._end, self._path)
        self._next()
        return [turn]

    def clear(self) -> None:
        """Delete the audio that was not committed."""
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self._next()

    def _next(self) -> None:
        self._file, self._item_id, self._start = None, new_item_id(), self._end
        self._detector, self._ended = self._new_detector(), []

    def _new_detector(self) -> SpeechDetector | None:
        return None if self._vad is None else SpeechDetector(self._vad)


def _audio(pcm: np.ndarray) -> Audio:
    return Audio(to_float32(pcm))
