"""One recording from file to transcript.

    bytes -> decode -> 16 kHz mono -> speech regions -> chunks -> engine -> stitch -> segments

`transcribe_file` is that line as three tasks joined by queues: decoding runs ahead in its child
process; chunks go to the engine, a window of them at once, so that one long recording does not
fill the engine's own queue; hypotheses come back in any order and are stitched in the order of
the chunks. Segments are handed out as soon as they are certain. Channels that are kept apart share
all of this, each in a lane of its own from the speech regions on (`asr.pipeline.channels`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from asr import tracing
from asr.align import load_aligner
from asr.align.witness import witness
from asr.audio.recording import PRELOAD, Recording, channel_path, decode_recording, scan_recording
from asr.audio.vad import load_classifier
from asr.config import Options
from asr.engines import load_engine
from asr.errors import AsrError, InvalidOption
from asr.pipeline.channels import Lane, Merger
from asr.pipeline.recognition import Recogniser
from asr.pipeline.scheduler import NOBODY, Share
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, Segment, Transcript
from asr.workers.pool import ProcessPool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence

    from asr.align.base import Aligner
    from asr.audio.growing import GrowingFile
    from asr.audio.recording import Decoded
    from asr.engines.base import Engine
    from asr.pipeline.checkpoint import Checkpoint
    from asr.pipeline.recognition import Witness

logger = logging.getLogger(__name__)

T = TypeVar("T")

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
    return run_apart(work)


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own, which never has a loop running, and wait for it.

    Who waits may be interrupted, as by Ctrl-C: the work is cancelled then, and has ended when this
    returns.
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def tell() -> T:
        task = asyncio.ensure_future(work)
        begun.set_result((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(asyncio.run, tell()).result()
        except BaseException:
            if not begun.cancel():  # else it never begins
                loop, task = begun.result()
                with contextlib.suppress(RuntimeError):  # it has ended
                    loop.call_soon_threadsafe(task.cancel)
            raise


async def _transcribe_once(
    source: Path,
    options: Options,
    settings: Settings,
    on_event: Callable[[Event], None] | None,
) -> Transcript:
    async with make_transcriber(settings) as transcriber:
        return await collect(transcriber.transcribe_file(source, options), on_event)


def make_transcriber(
    settings: Settings, make_engine: Callable[[Settings], Engine] | None = None
) -> Transcriber:
    """The engine, the aligner and the witness that the settings ask for, not yet opened.

    Raises:
        EngineUnavailable: one of them cannot be used with these settings.
    """
    aligner = load_aligner(settings)
    engine = (make_engine or load_engine)(settings)
    # It adds up confidences, which only this aligner measures as shares of right words.
    can_witness = settings.aligner_name == "sphinx"
    # A recording that may begin finds a decoder: the system shares the processors better than a
    # queue would, in which a short recording waits behind long ones.
    n_decoders = settings.max_active_requests
    return Transcriber(engine, aligner, n_decoders, witness if can_witness else None)


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
        witness: compares the timed words with the audio.
    """

    def __init__(
        self,
        engine: Engine,
        aligner: Aligner | None = None,
        max_decoders: int = MAX_DECODERS,
        witness: Witness | None = None,
    ) -> None:
        self.engine = engine
        self.aligner = aligner
        self._recogniser = Recogniser(engine, aligner, witness)
        self._decoders = ProcessPool(PRELOAD, max_decoders)

    @property
    def n_waiting(self) -> int:
        """Chunks that wait for the engine."""
        return self._recogniser.n_waiting

    async def __aenter__(self) -> Self:
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
        source: Path | GrowingFile,
        options: Options,
        work_dir: Path | None = None,
        share: Share = NOBODY,
        checkpoint: Checkpoint | None = None,
    ) -> AsyncGenerator[Event]:
        """Transcribe one recording.

        Args:
            source: the file. Of one that grows, everything is done as far as it goes.
            options: what the request chose.
            work_dir: where the decoded audio lies meanwhile (115 MB per hour).
            share: whose it is; shares take turns at the engine.
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
            target = Path(folder) / "audio.pcm"
            reports = self.decode(source, target, options)
            run = _Run(self, target, reports, options, share)
            run.checkpoint = checkpoint
            async with contextlib.aclosing(run.events(warnings)) as events:
                async for event in events:
                    yield event

    async def transcribe_pcm(
        self, source: Path, options: Options, share: Share = NOBODY
    ) -> AsyncGenerator[Event]:
        """Transcribe 16 kHz mono PCM16 without a header; otherwise as `transcribe_file`."""
        warnings = self.engine.check(options.decode)
        reports = scan_recording(Recording(source), options.vad)
        run = _Run(self, source, reports, options, share)
        async with contextlib.aclosing(run.events(warnings)) as events:
            async for event in events:
                yield event

    async def recognise(
        self, chunk: Chunk, recording: Recording, options: Options, share: Share = NOBODY
    ) -> Hypothesis:
        """One chunk through the engine and the aligner; each recording is a job of its own."""
        with tracing.span("chunk", index=chunk.index, start=chunk.start, seconds=chunk.duration):
            return await self._recogniser.recognise(
                chunk, recording.read, options.decode, recording, share
            )

    def decode(
        self, source: Path | GrowingFile, target: Path, options: Options
    ) -> AsyncGenerator[Decoded]:
        """Decode one recording in a child process."""
        split = options.channels == "split"
        return decode_recording(
            self._decoders, source, target, options.vad, options.limits, split=split
        )


_Found = tuple[int, Chunk]
_Recognised = tuple[int, Chunk, "asyncio.Task[Hypothesis]"]


class _Run:
    """The state of one transcription."""

    def __init__(
        self,
        owner: Transcriber,
        target: Path,
        reports: AsyncGenerator[Decoded],
        options: Options,
        share: Share,
    ) -> None:
        self._owner = owner
        self._reports = reports
        self._share = share
        self.checkpoint: Checkpoint | None = None
        self._options = options
        self._target = target
        self._lanes: list[Lane] = []
        self._merger = Merger(0, named=False)
        self._window = asyncio.Semaphore(2 * owner.engine.slots)
        self._chunks: asyncio.Queue[_Found | None] = asyncio.Queue()
        self._results: asyncio.Queue[_Recognised | None] = asyncio.Queue()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._decoded_samples = 0
        self._total: float | None = None
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
            group.create_task(_traced("decode", self._find_chunks()))
            group.create_task(self._recognise_chunks(group))
            group.create_task(_traced("stitch", self._stitch_hypotheses()))

    async def _find_chunks(self) -> None:
        is_measured = self._options.vad.kind != "off"  # else everything passes for speech
        async with contextlib.aclosing(self._reports):
            async for report in self._reports:
                if not self._lanes:
                    self._open_lanes(report.n_channels)
                for chunk in self._lanes[report.channel].take(report):
                    known = chunk if is_measured else replace(chunk, speech_samples=None)
                    self._chunks.put_nowait((report.channel, known))
                self._release(report.channel, [])
                self._note(report)
        self._chunks.put_nowait(None)

    def _open_lanes(self, n_channels: int) -> None:
        paths = [channel_path(self._target, channel) for channel in range(n_channels)]
        self._lanes = [Lane(self._options.chunk, Recording(path)) for path in paths]
        self._merger = Merger(n_channels, named=self._options.channels == "split")

    def _note(self, report: Decoded) -> None:
        self._decoded_samples = report.n_samples
        self._warnings += report.warnings
        decoded = report.n_samples / SAMPLE_RATE
        promised = report.promised_seconds
        if report.finished:
            self._total = decoded
        elif promised is not None and promised <= self._options.limits.max_seconds:
            self._total = max(promised, decoded)
        if report.channel == report.n_channels - 1:
            self._events.put_nowait(self._progress())

    def _progress(self) -> Progress:
        transcribed = min(lane.transcribed for lane in self._lanes)
        return Progress(self._decoded_samples / SAMPLE_RATE, transcribed, self._total)

    async def _recognise_chunks(self, group: asyncio.TaskGroup) -> None:
        while (found := await self._chunks.get()) is not None:
            channel, chunk = found
            await self._window.acquire()
            task = group.create_task(self._recognise(channel, chunk))
            task.add_done_callback(lambda _: self._window.release())
            self._results.put_nowait((channel, chunk, task))
        self._results.put_nowait(None)

    async def _recognise(self, channel: int, chunk: Chunk) -> Hypothesis:
        """Through the engine, unless an earlier attempt has heard this chunk."""
        kept = self.checkpoint.get(channel, chunk) if self.checkpoint else None
        if kept is not None:
            return kept
        recording = self._lanes[channel].recording
        hypothesis = await self._owner.recognise(chunk, recording, self._options, self._share)
        if self.checkpoint:
            self.checkpoint.put(channel, chunk, hypothesis)
        return hypothesis

    async def _stitch_hypotheses(self) -> None:
        while (item := await self._results.get()) is not None:
            channel, chunk, task = item
            self._release(channel, self._lanes[channel].stitch(chunk, await task))
            self._events.put_nowait(self._progress())

    def _release(self, channel: int, segments: list[Segment]) -> None:
        """Hand out the segments of a channel, and those that waited for it."""
        lane = self._lanes[channel]
        segments = segments + lane.rest()
        for segment in self._merger.push(channel, segments, lane.settled):
            self._segments.append(segment)
            self._events.put_nowait(segment)

    def _transcript(self) -> Transcript:
        engine, aligner = self._owner.engine, self._owner.aligner
        language = self._options.decode.language
        speech = sum(lane.speech_samples for lane in self._lanes)
        dropped = self._decoded_samples * len(self._lanes) - speech
        return Transcript(
            segments=tuple(self._segments),
            language=language or engine.language,
            duration=self._decoded_samples / SAMPLE_RATE,
            speech_seconds=speech / SAMPLE_RATE,
            dropped_seconds=dropped / SAMPLE_RATE,
            engine=engine.name,
            aligner=aligner.name if aligner and _is_aligned(self._segments) else None,
            warnings=tuple(self._warnings),
        )


async def _traced(name: str, stage: Coroutine[Any, Any, None]) -> None:
    with tracing.span(name):
        await stage


def _is_aligned(segments: Iterable[Segment]) -> bool:
    """Whether the aligner timed any of the words; it leaves alone what the engine has timed."""
    return any(word.timing != "engine" for segment in segments for word in segment.words)


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
