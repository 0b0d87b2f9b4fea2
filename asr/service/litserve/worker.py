"""The worker: runs recordings through the pipeline and reports what happens.

LitServe cannot cancel a request, and does not tell a client that its worker died. So a `Cancel`
command ends the work of an earlier command, and the worker sends a `Heartbeat` in every second
without another report. A client that hears nothing for longer knows that the worker is dead.

This module does not know LitServe. `asr.service.litserve.api` runs it in a process of its own, and
tests run it in theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asr import tracing
from asr.align.interpolate import Interpolator
from asr.audio.growing import GrowingFile
from asr.audio.recording import Recording
from asr.config import DecodeOptions
from asr.engines.base import Engine
from asr.errors import AsrError
from asr.pipeline.checkpoint import Records
from asr.pipeline.known_text import align_file
from asr.pipeline.run import Progress
from asr.pipeline.scheduler import Share
from asr.pipeline.speakers import SpeakerMemory
from asr.pipeline.transcriber import Transcriber, make_transcriber
from asr.service.faults import errno_of, place_of
from asr.service.litserve.messages import (
    HEARTBEAT_SECONDS,
    AlignedWords,
    AlignWords,
    Cancel,
    ChunkDone,
    ChunkFailed,
    Command,
    Control,
    EmbedVoice,
    EngineState,
    Failed,
    GetEngineState,
    GetMetrics,
    Heartbeat,
    InterimText,
    Metrics,
    RecogniseInterim,
    Report,
    Started,
    Transcribe,
    VoiceFound,
)
from asr.service.observability.logs import request_id
from asr.service.observability.metrics import WorkerMetrics, metered, metered_interim
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from asr.pipeline.checkpoint import Checkpoint
    from asr.pipeline.run import Event

CONTROL_SECONDS: Final = 10
"""Length of the noise that shows whether the engine works."""

logger = logging.getLogger(__name__)

EngineMaker = Callable[[Settings], Engine]
"""Makes the engine. It runs in the worker process, so it must be importable there."""

MAX_MEMORIES: Final = 64
"""Live sessions whose voices are kept. Of one that was silent for long, they are forgotten."""
PROGRESS_SECONDS = 0.2
"""The least time between two `Progress` reports of one recording. Every report costs time in the
event loop, and sixteen recordings of an hour at once would send thousands a second."""


class Worker:
    """Carries out commands with one engine, which batches the chunks of all recordings in flight.

    Args:
        settings: the settings of the service.
        make_engine: called when the first command needs the engine.
        number: how many workers died before this one.
    """

    def __init__(self, settings: Settings, make_engine: EngineMaker, number: int = 0) -> None:
        self._settings = settings
        self._number = number
        self._make_engine = make_engine
        self._metrics = WorkerMetrics()
        self._transcriber: Transcriber | None = None
        self._interim_engine: Engine | None = None
        self._opening: asyncio.Task[None] | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._memories: dict[str, SpeakerMemory] = {}

    async def close(self) -> None:
        """Free the engine and end its helper processes."""
        if self._transcriber is not None:
            await self._transcriber.close()

    async def carry_out(self, command: Command) -> AsyncGenerator[Report]:
        """Carry out one command and yield its reports. An error is a report too."""
        match command:
            case Transcribe() | RecogniseInterim() | AlignWords() | EmbedVoice():
                made = self._run(command)
            case Control():
                made = self._control()
            case _:
                made = self._answer(command)
        async with contextlib.aclosing(made) as reports:
            async for report in reports:
                yield report

    async def _answer(
        self, command: Cancel | GetEngineState | GetMetrics
    ) -> AsyncGenerator[Report]:
        match command:
            case Cancel(id=job):
                self._cancel(job)
            case GetEngineState():
                yield await self._engine_state()
            case GetMetrics():
                yield Metrics(self._metrics.text())

    def _cancel(self, job: str | None) -> None:
        for running, task in self._running.items():
            if job in (running, None):
                task.cancel()

    async def _run(
        self, command: Transcribe | RecogniseInterim | AlignWords | EmbedVoice
    ) -> AsyncGenerator[Report]:
        """Do the work of a command in a task that a `Cancel` can end."""
        reports: asyncio.Queue[Report | None] = asyncio.Queue()
        match command:
            case Transcribe():
                work = self._work(command, reports)
            case RecogniseInterim():
                work = self._answered(partial(self._recognise, command), reports)
            case AlignWords():
                work = self._answered(partial(self._align, command), reports)
            case EmbedVoice():
                work = self._answered(partial(self._embed, command), reports)
        task = asyncio.create_task(work)
        self._running[command.id] = task
        task.add_done_callback(lambda _: reports.put_nowait(None))
        try:
            if isinstance(command, Transcribe):
                yield Started(self._number)
            async with contextlib.aclosing(paced(reports)) as crossing:
                async for report in crossing:
                    yield report
        finally:
            task.cancel()
            del self._running[command.id]

    async def _work(self, command: Transcribe, reports: asyncio.Queue[Report | None]) -> None:
        request_id.set(command.request_id)
        try:
            transcriber = await self._opened()
            started = time.perf_counter()
            with tracing.within(command.trace):
                memory = self._memory_of(command)
                events = await _events(transcriber, command, reports, memory)
                async with contextlib.aclosing(events):
                    async for event in events:
                        if isinstance(event, Transcript):
                            self._metrics.succeeded(event, time.perf_counter() - started)
                        reports.put_nowait(event)
        except AsrError as error:
            self._metrics.failed(error)
            reports.put_nowait(Failed(error))
        except Exception as error:
            if not _has_lost_files(error, command):
                self._metrics.failed(error)
                # The system's errors need no traceback, and may come often.
                trace = errno_of(error) is None
                name = command.request_id or command.id
                logger.exception("request %s failed", name, exc_info=trace)
            reports.put_nowait(Failed(_portable(error)))

    def _memory_of(self, command: Transcribe) -> SpeakerMemory | None:
        """The voices of the live session, if its speakers are told apart."""
        if not command.session or command.options.speakers is None:
            return None
        memory = self._memories.pop(command.session, None) or SpeakerMemory()
        self._memories[command.session] = memory  # the last one used is the last one
        if len(self._memories) > MAX_MEMORIES:
            del self._memories[next(iter(self._memories))]
        return memory

    async def _answered(
        self, work: Callable[[], Awaitable[Report]], reports: asyncio.Queue[Report | None]
    ) -> None:
        """Report the answer of a short command, or its error.

        An error is not logged, and it does not count as a failed recording.
        """
        try:
            reports.put_nowait(await work())
        except AsrError as error:
            reports.put_nowait(Failed(error))
        except Exception as error:  # noqa: BLE001  # for example, the client left with its files
            reports.put_nowait(Failed(_portable(error)))

    async def _recognise(self, command: RecogniseInterim) -> InterimText:
        """Carry out an interim request. The final transcript does not depend on it."""
        with self._metrics.interim_outcome() as outcome:
            transcriber = await self._opened()
            share = Share(command.owner, command.weight)
            recording, interim = Recording(command.source), self._interim_engine
            text = await transcriber.recognise_interim(
                recording, command.decode, command.job, share, interim
            )
            outcome.name = "doubtful" if text is None else "answered"
        return InterimText(text)

    async def _align(self, command: AlignWords) -> AlignedWords:
        """Carry out `AlignWords`. After a failure the words get estimated times."""
        aligner = (await self._opened()).aligner or Interpolator()
        recording = Recording(command.source)
        n_samples = await asyncio.to_thread(recording.count)
        audio = await asyncio.to_thread(recording.read, 0, n_samples)
        found = await aligner.align(audio, Hypothesis(0, " ".join(command.texts)))
        return AlignedWords(found.words)

    async def _embed(self, command: EmbedVoice) -> VoiceFound:
        """Carry out an `EmbedVoice`."""
        transcriber = await self._opened()
        voice = await transcriber.embed_voice(
            command.source, command.name, command.work_dir, command.length
        )
        return VoiceFound(voice)

    def _make_metered(self, settings: Settings) -> Engine:
        engine = self._make_engine(settings)
        self._interim_engine = metered_interim(engine, self._metrics)
        return metered(engine, self._metrics)

    async def _opened(self) -> Transcriber:
        """The transcriber with its engine loaded. Concurrent callers share one attempt to load it.

        Raises:
            EngineUnavailable: the engine did not load. The next call tries again.
        """
        if self._transcriber is None:
            self._transcriber = transcriber = make_transcriber(self._settings, self._make_metered)
            self._metrics.waiting.set_function(lambda: transcriber.n_waiting)
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._transcriber.open())
        await asyncio.shield(self._opening)
        return self._transcriber

    async def _control(self) -> AsyncGenerator[Report]:
        """Recognise noise. Heartbeats tell that the worker is alive meanwhile."""
        task = asyncio.create_task(self._hear_noise())
        try:
            while not (await asyncio.wait([task], timeout=HEARTBEAT_SECONDS))[0]:
                yield Heartbeat()
            yield await task
        finally:
            task.cancel()

    async def _hear_noise(self) -> EngineState:
        name = self._settings.engine_name
        samples = np.random.default_rng(0).normal(0, 0.01, CONTROL_SECONDS * SAMPLE_RATE)
        audio = Audio(samples.astype(np.float32))
        try:
            transcriber = await self._opened()
            await transcriber.engine.transcribe(
                Chunk(0, 0, len(audio.samples)), audio, DecodeOptions()
            )
        except Exception as error:  # noqa: BLE001  # any failure is the answer
            return EngineState(name, name, ready=False, reason=str(error))
        return EngineState(transcriber.engine.name, transcriber.engine.model, ready=True)

    async def _engine_state(self) -> EngineState:
        name = self._settings.engine_name
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                transcriber = await self._opened()
        except TimeoutError:
            return EngineState(name, name, ready=False, reason="the engine is loading")
        except (AsrError, OSError, MemoryError) as error:
            return EngineState(name, name, ready=False, reason=str(error))
        engine = transcriber.engine
        obstacle = getattr(engine, "obstacle", "")
        able = getattr(engine, "capabilities", None)  # an engine of somebody else may have none
        return EngineState(engine.name, engine.model, not obstacle, obstacle, able)


def _has_lost_files(error: Exception, command: Transcribe) -> bool:
    """Whether the files of a request are gone: usually the client left, and its `Cancel` comes."""
    source = command.source
    path = source.path if isinstance(source, GrowingFile) else source
    return isinstance(error, FileNotFoundError) and not (
        command.work_dir.exists() and path.exists()
    )


def _portable(error: Exception) -> Exception:
    """Return an error that can cross the queue and keeps what `asr.service.faults` looks at."""
    if (number := errno_of(error)) is not None:
        return OSError(number, os.strerror(number))
    failed = RuntimeError(repr(error))
    vars(failed)["channel"], vars(failed)["chunk_index"] = place_of(error) or (None, None)
    return failed


async def paced(reports: asyncio.Queue[Report | None]) -> AsyncGenerator[Report]:
    """Yield reports until None, at most one `Progress` per `PROGRESS_SECONDS`.

    A `Progress` that comes too early is held back, and a newer one replaces it. The `Progress`
    held back is sent when no other report comes for `PROGRESS_SECONDS`, or just before the
    transcript. If none is held back and no report comes for `HEARTBEAT_SECONDS`, a `Heartbeat` is
    sent.
    """
    held: Progress | None = None
    due = 0.0
    while True:
        try:
            async with asyncio.timeout(PROGRESS_SECONDS if held else HEARTBEAT_SECONDS):
                report = await reports.get()
        except TimeoutError:
            report, due = held or Heartbeat(), 0.0
        match report:
            case None:
                return
            case Progress() if time.monotonic() < due:
                held = report
            case Progress():
                held, due = None, time.monotonic() + PROGRESS_SECONDS
                yield report
            case Transcript() if held:
                yield held
                held = None
                yield report
            case _:
                yield report


async def _events(
    transcriber: Transcriber,
    command: Transcribe,
    reports: asyncio.Queue[Report | None],
    memory: SpeakerMemory | None,
) -> AsyncGenerator[Event]:
    source, folder, options = command.source, command.work_dir, command.options
    share = Share(command.owner, command.weight)
    if isinstance(source, GrowingFile):
        return transcriber.transcribe_file(source, options, folder, share)
    if command.is_pcm:
        return transcriber.transcribe_pcm(source, options, share, memory)
    if command.text is None:
        kept = await _checkpoint(transcriber, command, reports)
        return transcriber.transcribe_file(source, options, folder, share, kept)
    text = (await asyncio.to_thread(command.text.read_bytes)).decode()
    return align_file(transcriber, source, text, options, folder, keep_lines=command.keep_lines)


async def _checkpoint(
    transcriber: Transcriber, command: Transcribe, reports: asyncio.Queue[Report | None]
) -> Checkpoint | None:
    path = command.kept
    if path is None:
        return None
    aligner = transcriber.aligner.name if transcriber.aligner else "no aligner"
    asked = getattr(transcriber.engine, "question_id", "")
    key = f"{transcriber.engine.name}, {aligner}" + (f", asked {asked}" if asked else "")
    if command.options.speakers is not None:
        voices = await asyncio.to_thread(transcriber.diariser.other_model)
        key += f", voices of {voices}" if voices else ""

    def report(channel: int, chunk: Chunk, record: str) -> ChunkDone:
        seconds = (chunk.end_sample - chunk.start_sample - chunk.overlap) / SAMPLE_RATE
        return ChunkDone(channel, chunk.index, seconds, record)

    def keep(*found: Any) -> None:
        reports.put_nowait(report(*found))

    def fail(*found: Any) -> None:
        reports.put_nowait(ChunkFailed(report(*found)))

    def read() -> Records:
        with path.open(encoding="ascii") as lines:
            return Records(lines, key, keep, fail)

    return await asyncio.to_thread(read)
