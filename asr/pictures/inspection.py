"""A transcription that shows what it came from: speech regions, chunks, and the audio itself."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asr.align.witness import witness
from asr.audio.recording import Recording
from asr.config import check
from asr.errors import WorkerDied
from asr.pipeline.scheduler import NOBODY, Share
from asr.pipeline.transcriber import Transcriber
from asr.types import SAMPLE_RATE, Audio, Chunk, SpeechRegion, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from asr.align.base import Aligner
    from asr.audio.growing import GrowingFile
    from asr.audio.recording import Decoded
    from asr.config import Options
    from asr.engines.base import Engine
    from asr.pipeline.run import Event
    from asr.types import Hypothesis


@dataclass(frozen=True, slots=True)
class Inspection:
    """A stretch of a recording, and what was made of the whole of it.

    Attributes:
        audio: of the stretch, in memory.
        start: seconds at which it begins.
        regions: of speech, in the whole recording.
        chunks: that the engine heard.
        transcript: of the whole recording.
    """

    audio: Audio
    start: float
    regions: tuple[SpeechRegion, ...]
    chunks: tuple[Chunk, ...]
    transcript: Transcript

    @property
    def end(self) -> float:
        """Seconds at which the stretch ends."""
        return self.start + self.audio.duration


class Inspector(Transcriber):
    """A transcriber, of one recording at a time, that notes what passes through it.

    Attributes:
        recording: the decoded audio, on disk until the transcription ends.
        n_samples: decoded so far.
    """

    def __init__(self, engine: Engine, aligner: Aligner | None = None) -> None:
        super().__init__(engine, aligner, witness=witness if aligner else None)
        self.recording: Recording | None = None
        self.n_samples = 0
        self._regions: list[SpeechRegion] = []
        self._chunks: list[Chunk] = []

    async def inspect(
        self,
        source: Path,
        options: Options,
        stretch: tuple[float, float],
        on_event: Callable[[Event], None],
    ) -> Inspection:
        """Transcribe a recording and keep a stretch of its audio.

        Args:
            source: the file.
            options: what to do with it; channels must be mixed.
            stretch: seconds of its start and end; the recording may end before.
            on_event: called with everything that comes before the transcript.

        Raises:
            InvalidOption: the recording ends before the stretch begins.
        """
        start, end = (round(seconds * SAMPLE_RATE) for seconds in stretch)
        async with contextlib.aclosing(self.transcribe_file(source, options)) as events:
            async for event in events:
                if isinstance(event, Transcript) and self.recording:
                    message = f"the recording ends at {event.duration:.1f} s"
                    check(start < self.n_samples, "start", message)
                    end = min(end, self.n_samples)
                    audio = await asyncio.to_thread(self.recording.read, start, end)
                    facts = tuple(self._regions), tuple(self._chunks)
                    return Inspection(audio, start / SAMPLE_RATE, *facts, event)
                on_event(event)
        raise WorkerDied("a transcription ended without a transcript")

    async def decode(
        self, source: Path | GrowingFile, target: Path, options: Options
    ) -> AsyncGenerator[Decoded]:
        """Decode, and note the speech."""
        self.recording = Recording(target)
        self._regions, self._chunks = [], []
        async with contextlib.aclosing(super().decode(source, target, options)) as reports:
            async for report in reports:
                self._regions += report.closed
                self.n_samples = report.n_samples
                yield report

    async def recognise(
        self, chunk: Chunk, recording: Recording, options: Options, share: Share = NOBODY
    ) -> Hypothesis:
        """Recognise, and note the chunk."""
        self._chunks.append(chunk)
        return await super().recognise(chunk, recording, options, share)
