"""16 kHz samples -> turns, each in a file of its own.

With server VAD a turn is a speech region, and one that grows past what an engine hears at once is
cut in its quietest place and goes on as the next: a speaker without pauses is transcribed while
speaking, and no more than one turn is ever in memory. The files of both reach past the cut, so that
no word is half in either. Without VAD a turn is what lies between two commits; its samples go to
disk as they come.

The turns do not depend on how the samples are split into pushes. Knows nothing of sockets.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from asr.audio.vad import ONSET_SECONDS, SpeechDetector
from asr.config import ChunkOptions, VadOptions
from asr.pcm import to_bytes, to_float32
from asr.pipeline.chunking import quietest
from asr.types import SAMPLE_RATE, Audio, SpeechRegion

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from asr.audio.vad import FrameClassifier

MAX_SAMPLES: Final = round(ChunkOptions().max_seconds * SAMPLE_RATE)
SEARCH_SAMPLES: Final = round(ChunkOptions().search * SAMPLE_RATE)
REACH_SAMPLES: Final = round(ChunkOptions().overlap * SAMPLE_RATE) // 2
"""The file of a turn holds as much of its neighbour behind a cut."""
BLOCK_SAMPLES: Final = SAMPLE_RATE
"""A longer push is taken apart, so that memory does not follow the size of messages."""

MIN_COMMIT_SAMPLES: Final = SAMPLE_RATE // 10
"""OpenAI refuses to commit less than 100 ms, and so do we."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak at this sample of the session."""

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
        lead: samples in it from before the turn, where speech was cut at its start; else 0.
        tail: samples in it from behind the turn, where speech was cut at its end; else 0.
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
        """Where the file begins, in seconds from the start of the session."""
        return (self.start_sample - self.lead) / SAMPLE_RATE

    @property
    def is_whole(self) -> bool:
        """Whether it is no part of a longer speech."""
        return not self.lead and not self.tail


InputEvent = SpeechStarted | SpeechStopped | Turn


class Turns(Protocol):
    """Collects samples until they make a turn."""

    def push(self, pcm: np.ndarray) -> list[InputEvent]:
        """Take int16 samples of shape (n,)."""
        ...

    def commit(self) -> list[InputEvent]:
        """End the turn here; nothing comes back when there is none."""
        ...

    def clear(self) -> None:
        """Forget what has not become a turn."""
        ...


def new_item_id() -> str:
    """An id in the manner of OpenAI's."""
    return f"item_{secrets.token_hex(12)}"


class SpokenTurns:
    """Turns as the VAD hears them.

    Args:
        options: of the VAD.
        folder: for the files.
        origin: sample of the session at which the first push begins.
        classifier: for tests.
    """

    def __init__(
        self,
        options: VadOptions,
        folder: Path,
        origin: int = 0,
        classifier: FrameClassifier | None = None,
    ) -> None:
        self._options = options
        self._folder = folder
        self._classifier = classifier
        # As far as a region can reach back from the frame that opened it.
        onset = max(ONSET_SECONDS, 2 * options.min_speech)
        self._onset = round((onset + options.padding + 0.1) * SAMPLE_RATE)
        self._restart(origin)

    def _restart(self, origin: int) -> None:
        self._detector = SpeechDetector(self._options, self._classifier)
        self._origin = origin  # of the detector's samples
        self._held = np.zeros(0, np.int16)
        self._held_from = 0  # this and what follows count as the detector does
        self._first = 0  # of the file of the turn that is being spoken
        self._lead = 0
        self._item_id: str | None = None

    def push(self, pcm: np.ndarray) -> list[InputEvent]:
        """Take samples; return what began and ended in them."""
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
        self._forget()
        return events

    def commit(self) -> list[InputEvent]:
        """End the turn that is being spoken, if any."""
        events: list[InputEvent] = []
        for region in self._detector.finish():
            events += self._grow(region) + self._end(region.end_sample)
        self.clear()
        return events

    def clear(self) -> None:
        """Forget the turn that is being spoken, and listen anew."""
        self._restart(self._origin + self._detector.n_samples)

    def _grow(self, region: SpeechRegion) -> list[InputEvent]:
        """Follow a region that may still be open, and cut it where it has become too long."""
        events: list[InputEvent] = []
        if self._item_id is None:
            events += self._begin(region.start_sample)
        while region.end_sample - self._first > MAX_SAMPLES:
            latest = self._first + MAX_SAMPLES - REACH_SAMPLES
            earliest = latest - SEARCH_SAMPLES + 2 * REACH_SAMPLES
            cut = earliest + quietest(_audio(self._samples(earliest, latest)))
            events += self._end(cut, REACH_SAMPLES) + self._begin(cut, REACH_SAMPLES)
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

    def _forget(self) -> None:
        """Drop the samples that no turn can need any more."""
        n_samples = self._detector.n_samples
        needed = self._first if self._item_id is not None else max(0, n_samples - self._onset)
        if needed - self._held_from > BLOCK_SAMPLES:  # seldom, since it copies the rest
            self._held = self._held[needed - self._held_from :].copy()
            self._held_from = needed


class CommittedTurns:
    """Turns as the client commits them.

    Args:
        folder: for the files.
        origin: sample of the session at which the first push begins.
    """

    def __init__(self, folder: Path, origin: int = 0) -> None:
        self._folder = folder
        self._start = self._end = origin
        self._item_id = new_item_id()
        self._file: BinaryIO | None = None

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._item_id}.pcm"

    def push(self, pcm: np.ndarray) -> list[InputEvent]:
        """Write the samples to disk; nothing ends by itself."""
        if self._file is None:
            self._file = self._path.open("wb")
        self._file.write(to_bytes(pcm))
        self._end += len(pcm)
        return []

    def commit(self) -> list[InputEvent]:
        """End the turn, unless it is too short to hold a word."""
        if self._end - self._start < MIN_COMMIT_SAMPLES or self._file is None:
            return []
        self._file.close()
        turn = Turn(self._item_id, self._start, self._end, self._path)
        self._next()
        return [turn]

    def clear(self) -> None:
        """Delete what was not committed."""
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self._next()

    def _next(self) -> None:
        self._file, self._item_id, self._start = None, new_item_id(), self._end


def _audio(pcm: np.ndarray) -> Audio:
    return Audio(to_float32(pcm))
