"""The LitServe worker: runs recordings through the pipeline and yields what happens.

Only paths and options cross LitServe's queue, never audio. LitServe has no cancellation and does
not tell a client whose worker died; both are made here: a `Cancel` command ends the work of an
earlier one, and a `Heartbeat` follows every second in which nothing else happens, so that silence
means death.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import litserve

from asr import tracing
from asr.audio.growing import GrowingFile
from asr.errors import AsrError
from asr.pipeline.checkpoint import Records
from asr.pipeline.known_text import align_file
from asr.pipeline.run import Event, Progress
from asr.pipeline.scheduler import Share
from asr.pipeline.transcriber import Transcriber, make_transcriber
from asr.service.observability.logs import adopt_loggers, configure_logging, request_id
from asr.service.observability.metrics import WorkerMetrics, metered
from asr.service.observability.telemetry import set_up as set_up_telemetry
from asr.types import SAMPLE_RATE, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from pathlib import Path

    from litserve.specs.base import LitSpec

    from asr.config import Options
    from asr.engines.base import Engine
    from asr.pipeline.checkpoint import Checkpoint
    from asr.settings import Settings
    from asr.types import Chunk

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
PROGRESS_SECONDS = 0.2
"""From one `Progress` to the next: each that crosses holds up the event loop, and sixteen hours at
once would have thousands a second."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe `source`, which may still be growing, or align the text in a file to it.

    Attributes:
        work_dir: where decoded audio may lie.
        text: the file with the text to align.
        kept: a file with the records of finished chunks; new ones are then reported too.
        is_pcm: the source is 16 kHz mono PCM16 without a header, and is not decoded.
        owner: name of the key that it is done for.
        weight: of that key, when keys share the engine.
        request_id: for the log.
        trace: the span that it is a part of.
    """

    id: str
    source: Path | GrowingFile
    work_dir: Path
    options: Options
    text: Path | None = None
    is_pcm: bool = False
    owner: str = ""
    weight: float = 1.0
    request_id: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    kept: Path | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the work of the `Transcribe` command with this id."""

    id: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask how the engine is; makes it load."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Ask for the numbers of the worker."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The worker lives and has nothing new to say."""


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """A chunk was recognised; the segments that come of it follow.

    Attributes:
        channel: in which it lies.
        index: of the chunk.
        seconds: of it that no chunk before it has.
        record: as `asr.pipeline.checkpoint` writes it.
    """

    channel: int
    index: int
    seconds: float
    record: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The command ended with an error."""

    error: Exception


@dataclass(frozen=True, slots=True)
class EngineState:
    """How the engine is: loaded, or why not."""

    name: str
    model: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The numbers of the worker, as Prometheus reads them."""

    text: str


Command = Transcribe | Cancel | Ask | Measure
Happening = Event | ChunkDone | Heartbeat
Report = Happening | Failed | EngineState | Measured


class TranscriptionAPI(litserve.LitAPI):  # type: ignore[misc]  # litserve has no types
    """One worker with one event loop; the engine batches over everything in flight."""

    def __init__(
        self, settings: Settings, spec: LitSpec, make_engine: Callable[[Settings], Engine]
    ) -> None:
        super().__init__(spec=spec, enable_async=True)
        self._main_process = os.getpid()
        self._settings = settings
        self._make_engine = make_engine
        self._transcriber: Transcriber | None = None
        self._opening: asyncio.Task[None] | None = None
        self._running: dict[str, asyncio.Task[None]] = {}

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's signature
        """Prepare the process; the engine loads in the event loop, which starts later."""
        configure_logging(self._settings.log_level, self._settings.log_format)
        adopt_loggers(self._settings.log_format)
        set_up_telemetry()
        self._metrics = WorkerMetrics()
        # Ctrl-C reaches the whole process group. The main process ends this one when requests in
        # flight are answered, and the kernel ends it when the main process was killed.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self._main_process:  # it ended before the kernel knew of our wish
            sys.exit("the main process is gone")

    async def decode_request(self, request: Command) -> Command:
        """Commands cross the queue as they are."""
        return request

    async def encode_response(self, output: AsyncIterator[Report]) -> AsyncGenerator[Report]:
        """Reports cross the queue as they are."""
        async for report in output:
            yield report

    async def predict(self, command: Command) -> AsyncGenerator[Report]:
        """Carry out one command."""
        match command:
            case Transcribe():
                async with contextlib.aclosing(self._transcribe(command)) as reports:
                    async for report in reports:
                        yield report
            case Cancel(id=job):
                if job in self._running:
                    self._running[job].cancel()
            case Ask():
                yield await self._engine_state()
            case Measure():
                yield Measured(self._metrics.text())

    async def _transcribe(self, command: Transcribe) -> AsyncGenerator[Report]:
        reports: asyncio.Queue[Report | None] = asyncio.Queue()
        task = asyncio.create_task(self._work(command, reports))
        self._running[command.id] = task
        task.add_done_callback(lambda _: reports.put_nowait(None))
        try:
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
                events = await _events(transcriber, command, reports)
                async with contextlib.aclosing(events):
                    async for event in events:
                        if isinstance(event, Transcript):
                            self._metrics.succeeded(event, time.perf_counter() - started)
                        reports.put_nowait(event)
        except AsrError as error:
            self._metrics.failed(error)
            reports.put_nowait(Failed(error))
        except Exception as error:
            if not command.work_dir.exists():
                return  # the client left, its files are gone, and the cancellation is on its way
            self._metrics.failed(error)
            logger.exception("request %s failed", command.request_id or command.id)
            reports.put_nowait(Failed(RuntimeError(repr(error))))

    def _make_metered(self, settings: Settings) -> Engine:
        return metered(self._make_engine(settings), self._metrics)

    async def _opened(self) -> Transcriber:
        """The transcriber with its engine loaded; several callers share one attempt.

        Raises:
            EngineUnavailable: the engine did not load; the next call tries again.
        """
        if self._transcriber is None:
            self._transcriber = transcriber = make_transcriber(self._settings, self._make_metered)
            self._metrics.waiting.set_function(lambda: transcriber.n_waiting)
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._transcriber.open())
        await asyncio.shield(self._opening)
        return self._transcriber

    async def _engine_state(self) -> EngineState:
        name = self._settings.engine_name
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                transcriber = await self._opened()
        except TimeoutError:
            return EngineState(name, name, ready=False, reason="the engine is loading")
        except AsrError as error:
            return EngineState(name, name, ready=False, reason=str(error))
        return EngineState(transcriber.engine.name, transcriber.engine.model, ready=True)


async def paced(reports: asyncio.Queue[Report | None]) -> AsyncGenerator[Report]:
    """What crosses to the API of the reports up to None: all, but of the progress only the newest.

    When nothing comes, a progress that was held back crosses, else a heartbeat. The last progress
    crosses before the transcript.
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
    transcriber: Transcriber, command: Transcribe, reports: asyncio.Queue[Report | None]
) -> AsyncGenerator[Event]:
    source, folder, options = command.source, command.work_dir, command.options
    share = Share(command.owner, command.weight)
    if isinstance(source, GrowingFile):
        return transcriber.transcribe_file(source, options, folder, share)
    if command.is_pcm:
        return transcriber.transcribe_pcm(source, options, share)
    if command.text is None:
        kept = await _checkpoint(transcriber, command, reports)
        return transcriber.transcribe_file(source, options, folder, share, kept)
    text = await asyncio.to_thread(command.text.read_text, encoding="utf-8")
    return align_file(transcriber, source, text, options, folder)


async def _checkpoint(
    transcriber: Transcriber, command: Transcribe, reports: asyncio.Queue[Report | None]
) -> Checkpoint | None:
    path = command.kept
    if path is None:
        return None
    aligner = transcriber.aligner.name if transcriber.aligner else "no aligner"

    def keep(channel: int, chunk: Chunk, record: str) -> None:
        seconds = (chunk.end_sample - chunk.start_sample - chunk.overlap) / SAMPLE_RATE
        reports.put_nowait(ChunkDone(channel, chunk.index, seconds, record))

    def read() -> Records:
        with path.open(encoding="ascii") as lines:
            return Records(lines, f"{transcriber.engine.name}, {aligner}", keep)

    return await asyncio.to_thread(read)
