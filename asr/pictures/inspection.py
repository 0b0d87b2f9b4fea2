"""A transcription that keeps its intermediate results: speech regions, chunks and audio."""

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
    """The audio of a stretch, and the results for the whole recording.

    Attributes:
        audio: of the stretch.
        start: of the stretch, in seconds.
        regions: all speech regions.
        chunks: all chunks that the engine got.
        transcript: of the whole recording.
    """

    audio: Audio
    start: float
    regions: tuple[SpeechRegion, ...]
    chunks: tuple[Chunk, ...]
    transcript: Transcript

    @property
    def end(self) -> float:
        """End of the stretch in seconds."""
        return self.start + self.audio.duration


class Inspector(Transcriber):
    """A transcriber of one recording at a time that records its intermediate results.

    Attributes:
        recording: the decoded audio; on disk until the transcription ends.
        n_samples: number of samples decoded so far.
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
            options: how to transcribe it; channels must be mixed.
            stretch: its start and end in seconds; the recording may end before the end.
            on_event: called with each event before the transcript.

        Raises:
            InvalidOption: the recording ends before the stretch starts.
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
        """Decode, and record the speech regions."""
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
        """Recognise, and record the chunk."""
        self._chunks.append(chunk)
        return await super().recognise(chunk, recording, options, share)
