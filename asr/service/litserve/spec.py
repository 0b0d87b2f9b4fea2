"""The HTTP side of LitServe's queue. The one place that touches LitServe's internals.

`LitSpec` is LitServe's extension point for other APIs than its own (its OpenAI chat spec is one).
It is not a documented, stable interface, hence the exact pin of litserve in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, ResponseBufferItem

from asr.errors import AudioError, WorkerDied
from asr.pipeline.run import Progress
from asr.service.litserve.worker import Cancel, EngineState, Failed, Measured
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from asr.service.litserve.worker import Ask, Command, Happening, Measure, Report, Transcribe

START_SECONDS = 30.0
"""A worker that died comes back within about 5 s, and takes up what waits in the queue."""
_TAKEN = object()


class _Answers(ResponseBufferItem):  # type: ignore[misc]  # litserve has no types
    """The answers to one command; that a worker took it counts as one.

    LitServe notes here which worker that was, before the worker asks for another command. So what
    dies with a worker is either known to have been taken or goes to the next worker.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "worker_id" and value is not None:
            self.response_queue.append((_TAKEN, LitAPIStatus.OK))
            self.event.set()


class TranscriptionSpec(LitSpec):  # type: ignore[misc]  # litserve has no types
    """Sends commands to the worker and hands out its reports.

    Args:
        silence: seconds without a report after which the worker counts as dead.
    """

    def __init__(self, silence: float) -> None:
        super().__init__()
        self.api_path = "/v1/audio/transcriptions"
        self._silence = silence
        self._cancelling: set[asyncio.Task[None]] = set()
        # One thread, so that a cancellation does not overtake what it is about.
        self._sender = ThreadPoolExecutor(1, "asr-commands")
        self.on_transcript: list[Callable[[str, float], None]] = []
        """Told the owner and the seconds of every recording, as far as it was transcribed."""

    def __getstate__(self) -> dict[str, Any]:
        """The worker has no use for what belongs to the API process."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"on_transcript": [], "_sender": None}

    @property
    def stream(self) -> bool:
        """Answers are streams of reports."""
        return True

    def as_async(self) -> TranscriptionSpec:
        """Asynchronous already."""
        return self

    async def submit(self, command: Command) -> AsyncGenerator[Report]:
        """Send a command and follow it.

        Raises:
            WorkerDied: nothing was heard for too long.
        """
        uid = str(uuid.uuid4())
        item = _Answers(event=asyncio.Event(), response_queue=deque())
        self.response_buffer[uid] = item
        envelope = (self.response_queue_id, uid, time.monotonic(), command)
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._sender, self.request_queue.put, envelope)
            stream = self.data_streamer(item.response_queue, item.event, send_status=True)
            async with contextlib.aclosing(stream):
                async for report in self._heard(stream):
                    yield report
        finally:
            self.response_buffer.pop(uid, None)

    async def _heard(
        self, stream: AsyncIterator[tuple[Report, LitAPIStatus]]
    ) -> AsyncGenerator[Report]:
        patience = START_SECONDS
        while True:
            try:
                async with asyncio.timeout(patience):
                    report, status = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise WorkerDied("the recogniser process died on this request") from None
            if status == LitAPIStatus.ERROR:
                raise WorkerDied("the recogniser process failed on this request")
            patience = self._silence
            if report is not _TAKEN:
                yield report

    async def transcribe(self, command: Transcribe) -> AsyncGenerator[Happening]:
        """Run a transcription; leaving early cancels it in the worker.

        Raises:
            AsrError: as `asr.pipeline.transcriber.Transcriber.transcribe_file` does.
            WorkerDied: the worker died.
        """
        finished = False
        account = _Account(command.owner, self.on_transcript)
        try:
            async with contextlib.aclosing(self.submit(command)) as reports:
                async for report in reports:
                    account.take(report)
                    finished = isinstance(report, Failed)
                    yield _happening(report)
            finished = True
        except WorkerDied:
            account.forget()
            raise
        finally:
            account.settle()
            if not finished:
                # A task of its own: whoever leaves early is often being cancelled, and then
                # nothing more can be awaited here.
                task = asyncio.create_task(self._cancel(command.id))
                self._cancelling.add(task)
                task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, job: str) -> None:
        with contextlib.suppress(WorkerDied):
            async with contextlib.aclosing(self.submit(Cancel(job))) as reports:
                async for _ in reports:
                    pass

    async def ask(self, command: Ask | Measure) -> EngineState | Measured | None:
        """The first report on a command, or None when none came."""
        with contextlib.suppress(WorkerDied):
            async with contextlib.aclosing(self.submit(command)) as reports:
                async for report in reports:
                    return report if isinstance(report, EngineState | Measured) else None
        return None


def _happening(report: Report) -> Happening:
    match report:
        case Failed(error=error):
            raise error
        case EngineState() | Measured():
            raise WorkerDied("the recogniser process gave another answer")
    return report


class _Account:
    """Seconds of a recording that its owner has had, told to the listeners once.

    Whoever ends it early, or puts noise behind it that ends it, has the segments up to there.
    """

    def __init__(self, owner: str, listeners: Iterable[Callable[[str, float], None]]) -> None:
        self._owner = owner
        self._listeners = listeners
        self._seconds = 0.0

    def take(self, report: Report) -> None:
        match report:
            case Progress(transcribed=seconds) | Segment(end=seconds):
                self._seconds = max(self._seconds, seconds)
            case Transcript(duration=seconds):
                self._seconds = seconds
                self.settle()
            case Failed(error=error) if not isinstance(error, AudioError):
                self.forget()

    def forget(self) -> None:
        """It was the service that failed."""
        self._seconds = 0.0

    def settle(self) -> None:
        seconds, self._seconds = self._seconds, 0.0
        if seconds:
            for listener in self._listeners:
                listener(self._owner, seconds)
