"""One recording from file to transcript.

    bytes -> decode -> 16 kHz mono -> speech regions -> chunks -> engine -> stitch -> segments

`transcribe_file` is that line as three tasks joined by queues: decoding runs ahead in its child
process; chunks go to the engine, a window of them at once, so that one long recording does not
fill the engine's own queue; hypotheses come back in any order and are stitched in the order of
the chunks. Segments are handed out as soon as they are certain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asr.chunking import Chunker
from asr.config import Options, Settings
from asr.engines import load_engine
from asr.errors import AsrError, InvalidOption
from asr.processes import ProcessPool
from asr.recognition import Recogniser
from asr.recording import PRELOAD, Recording, decode_recording
from asr.stitch import Stitcher
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, Segment, Transcript
from asr.vad import load_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from asr.align.base import Aligner
    from asr.checkpoint import Checkpoint
    from asr.engines.base import Engine
    from asr.recording import Decoded

logger = logging.getLogger(__name__)

MAX_DECODERS = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transcription has come, in seconds of audio.

    Attributes:
        decoded: decoded so far.
        transcribed: everything before this time is in the segments handed out.
        total: the length, or what the header says of it while decoding, or None.
    """

    decoded: float
    transcribed: float
    total: float | None


Event = Progress | Segment | Transcript


def transcribe(
    source: str | Path,
    *,
    options: Options | None = None,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Transcript:
    """Transcribe one recording and wait for it.

    Loads the engine for this one call; use `Transcriber` for many recordings. May be called from
    a thread that runs an event loop, such as a notebook's.

    Args:
        source: the file.
        options: what to do with it; the defaults suit most recordings.
        settings: which engine; read from the ``ASR_*`` variables when not given.
        on_event: called with each `Progress` and `Segment` as they come.

    Raises:
        AudioError: the recording cannot be used.
        EngineError: the engine failed or cannot be used.
        InvalidOption: the engine or the VAD cannot serve the options.
    """
    work = _transcribe_once(
        Path(source), options or Options(), settings or Settings.from_env(), on_event
    )
    with ThreadPoolExecutor(1) as thread:  # a thread of its own never has a loop running
        return thread.submit(asyncio.run, work).result()


async def _transcribe_once(
    source: Path,
    options: Options,
    settings: Settings,
    on_event: Callable[[Event], None] | None,
) -> Transcript:
    async with Transcriber(load_engine(settings)) as transcriber:
        return await collect(transcriber.transcribe_file(source, options), on_event)


async def collect(
    events: AsyncGenerator[Event], on_event: Callable[[Event], None] | None = None
) -> Transcript:
    """Follow a transcription to its end."""
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Transcript):
                return event
            if on_event is not None:
                on_event(event)
    raise RuntimeError("a transcription ended without a transcript")


class Transcriber:
    """An engine together with the processes that decode for it. Use as ``async with``.

    Args:
        engine: opened and closed with this object.
        aligner: times the words of an engine that gives none; opened and closed likewise.
        max_decoders: recordings decoded at once.
    """

    def __init__(
        self, engine: Engine, aligner: Aligner | None = None, max_decoders: int = MAX_DECODERS
    ) -> None:
        self.engine = engine
        self.aligner = aligner
        self._recogniser = Recogniser(engine, aligner)
        self._decoders = ProcessPool(PRELOAD, max_decoders)

    async def __aenter__(self) -> Transcriber:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Load the engine and start the processes.

        Raises:
            EngineUnavailable: the engine cannot be used now; may be tried again.
        """
        parts = [self._decoders.open(), self.engine.open()]
        await asyncio.gather(*parts, *([self.aligner.open()] if self.aligner else []))

    async def close(self) -> None:
        """End all processes."""
        parts = [self._decoders.close(), self.engine.close()]
        await asyncio.gather(*parts, *([self.aligner.close()] if self.aligner else []))

    async def transcribe_file(
        self,
        source: Path,
        options: Options,
        work_dir: Path | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> AsyncGenerator[Event]:
        """Transcribe one recording.

        Args:
            source: the file.
            options: what the request chose.
            work_dir: where the decoded audio lies meanwhile (115 MB per hour).
            checkpoint: gives the hypotheses of an earlier attempt and takes new ones.

        Yields:
            `Progress` and `Segment` as they come, and the `Transcript` at the end.

        Raises:
            AudioError: the recording cannot be used.
            EngineError: the engine failed on a chunk.
            InvalidOption: the engine or the VAD cannot serve the options.
        """
        warnings = self.engine.check(options.decode)
        if options.vad.kind == "silero":
            await asyncio.to_thread(load_classifier, options.vad)  # say so before any work
        with tempfile.TemporaryDirectory(prefix="asr-", dir=work_dir) as folder:
            run = _Run(self, source, Path(folder) / "audio.pcm", options, checkpoint)
            async with contextlib.aclosing(run.events(warnings)) as events:
                async for event in events:
                    yield event

    async def recognise(self, chunk: Chunk, recording: Recording, options: Options) -> Hypothesis:
        """One chunk through the engine and the aligner."""
        return await self._recogniser.recognise(chunk, recording.read, options.decode)

    def decode(self, source: Path, target: Path, options: Options) -> AsyncGenerator[Decoded]:
        """Decode one recording in a child process."""
        return decode_recording(self._decoders, source, target, options.vad, options.limits)


_Recognised = tuple[Chunk, "asyncio.Task[Hypothesis]"]


class _Run:
    """The state of one transcription."""

    def __init__(
        self,
        owner: Transcriber,
        source: Path,
        target: Path,
        options: Options,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._owner = owner
        self._checkpoint = checkpoint
        self._source = source
        self._options = options
        self._recording = Recording(target)
        self._window = asyncio.Semaphore(2 * owner.engine.slots)
        self._chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._results: asyncio.Queue[_Recognised | None] = asyncio.Queue()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._decoded_samples = 0
        self._total: float | None = None
        self._transcribed = 0.0
        self._speech_samples = 0
        self._warnings: list[str] = []
        self._segments: list[Segment] = []

    async def events(self, warnings: Sequence[str]) -> AsyncGenerator[Event]:
        """Run the stages and hand out what they produce."""
        self._warnings += warnings
        started = time.perf_counter()
        stages = asyncio.create_task(self._stages())
        stages.add_done_callback(lambda _: self._events.put_nowait(None))
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await stages
        except BaseExceptionGroup as group:
            raise _first(group) from group
        finally:
            stages.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await stages
        transcript = self._transcript()
        logger.info(
            "transcribed %.1f s of audio, %.1f s of speech, in %.2f s with %s",
            transcript.duration,
            transcript.speech_seconds,
            time.perf_counter() - started,
            transcript.engine,
        )
        yield transcript

    async def _stages(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._find_chunks())
            group.create_task(self._recognise_chunks(group))
            group.create_task(self._stitch_hypotheses())

    async def _find_chunks(self) -> None:
        chunker = Chunker(self._options.chunk, self._recording.read)
        reports = self._owner.decode(self._source, self._recording.path, self._options)
        async with contextlib.aclosing(reports):
            async for report in reports:
                self._put(chunker.push(report.closed, report.open_region))
                self._note(report)
        self._put(chunker.finish())
        self._chunks.put_nowait(None)

    def _put(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._speech_samples += chunk.end_sample - chunk.start_sample - chunk.overlap
            self._chunks.put_nowait(chunk)

    def _note(self, report: Decoded) -> None:
        self._decoded_samples = report.n_samples
        self._warnings += report.warnings
        decoded = report.n_samples / SAMPLE_RATE
        promised = report.promised_seconds
        if report.finished:
            self._total = decoded
        elif promised is not None and promised <= self._options.limits.max_seconds:
            self._total = max(promised, decoded)
        self._events.put_nowait(self._progress())

    def _progress(self) -> Progress:
        return Progress(self._decoded_samples / SAMPLE_RATE, self._transcribed, self._total)

    async def _recognise_chunks(self, group: asyncio.TaskGroup) -> None:
        while (chunk := await self._chunks.get()) is not None:
            await self._window.acquire()
            task = group.create_task(self._recognise(chunk))
            task.add_done_callback(lambda _: self._window.release())
            self._results.put_nowait((chunk, task))
        self._results.put_nowait(None)

    async def _recognise(self, chunk: Chunk) -> Hypothesis:
        """Through the engine, unless an earlier attempt has heard this chunk."""
        kept = self._checkpoint.get(chunk) if self._checkpoint else None
        if kept is not None:
            return kept
        hypothesis = await self._owner.recognise(chunk, self._recording, self._options)
        if self._checkpoint:
            self._checkpoint.put(chunk, hypothesis)
        return hypothesis

    async def _stitch_hypotheses(self) -> None:
        stitcher = Stitcher(max_overlap=self._options.chunk.overlap)
        while (item := await self._results.get()) is not None:
            chunk, task = item
            self._release(stitcher.push(chunk, await task))
            self._transcribed = chunk.end
            self._events.put_nowait(self._progress())
        self._release(stitcher.finish())
        self._transcribed = self._decoded_samples / SAMPLE_RATE
        self._events.put_nowait(self._progress())

    def _release(self, segments: list[Segment]) -> None:
        self._segments += segments
        for segment in segments:
            self._events.put_nowait(segment)

    def _transcript(self) -> Transcript:
        engine, aligner = self._owner.engine, self._owner.aligner
        language = self._options.decode.language
        dropped = self._decoded_samples - self._speech_samples
        return Transcript(
            segments=tuple(self._segments),
            language=language or engine.language,
            duration=self._decoded_samples / SAMPLE_RATE,
            speech_seconds=self._speech_samples / SAMPLE_RATE,
            dropped_seconds=dropped / SAMPLE_RATE,
            engine=engine.name,
            aligner=aligner.name if aligner else None,
            warnings=tuple(self._warnings),
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that explains the others: ours before any, and a user's mistake before ours."""
    flat = list(_flatten(group))
    for kind in (InvalidOption, AsrError, Exception):
        for error in flat:
            if isinstance(error, kind):
                return error
    return flat[0]


def _flatten(group: BaseExceptionGroup[BaseException]) -> Sequence[BaseException]:
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat += _flatten(error) if isinstance(error, BaseExceptionGroup) else [error]
    return flat
