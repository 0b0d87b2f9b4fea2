"""The worker as routes and jobs see it.

This module does not know LitServe. It takes a `Submit`, a function that sends a command to the
worker and yields the reports. The service passes `TranscriptionSpec.submit`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from asr.errors import AudioError, WorkerDied
from asr.pipeline.run import Progress
from asr.service.litserve.messages import (
    AlignedWords,
    Cancel,
    ChunkDone,
    Command,
    Control,
    EngineState,
    Failed,
    GetEngineState,
    GetMetrics,
    InterimText,
    Metrics,
    Report,
    Started,
    VoiceFound,
)
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from asr.config import KnownVoice
    from asr.service.litserve.messages import (
        AlignWords,
        EmbedVoice,
        RecogniseInterim,
        Transcribe,
        WorkerEvent,
    )
    from asr.types import Word

A = TypeVar("A", InterimText, AlignedWords, VoiceFound)

Submit = Callable[[Command], AsyncGenerator[Report]]
"""Sends a command and yields its reports. Raises `WorkerDied`."""
Listener = Callable[[str, float], None]
"""Called with an owner and the seconds of audio transcribed for it."""


class WorkerClient:
    """Sends commands to the worker and hands out its reports.

    Args:
        submit: sends a command to the worker and yields its reports.
        listeners: called once per recording with its owner and the seconds transcribed.

    Attributes:
        n_succeeded: new chunks, segments and transcripts that the worker has reported.
        worker: the number of the worker process: how many died before it.
    """

    def __init__(self, submit: Submit, listeners: Sequence[Listener] = ()) -> None:
        self._submit = submit
        self._cancelling: set[asyncio.Task[None]] = set()
        self._listeners = listeners
        self.n_succeeded = 0
        self.worker = 0

    async def transcribe(self, command: Transcribe) -> AsyncGenerator[WorkerEvent]:
        """Run a transcription. Closing the generator early cancels the work in the worker.

        Raises:
            AsrError: see `asr.pipeline.transcriber.Transcriber.transcribe_file`.
            WorkerLost: the worker died.
        """
        finished = False
        account = _Account(command.owner, self._listeners)
        try:
            async with contextlib.aclosing(self._submit(command)) as reports:
                async for report in reports:
                    account.take(report)
                    finished = isinstance(report, Failed)
                    if isinstance(report, Started):
                        self.worker = report.worker
                        continue
                    self.n_succeeded += _is_success(report, is_replay=command.kept is not None)
                    yield _event_of(report)
            finished = True
        except WorkerDied:
            account.forget()
            raise
        finally:
            account.settle()
            if not finished:
                self._start_cancel(command.id)

    async def recognise_interim(self, command: RecogniseInterim) -> str | None:
        """The text of unfinished speech, or None if a guard objects to it.

        It counts towards no limit. Cancelling the call cancels the work in the worker.

        Raises:
            AsrError: the engine failed.
            WorkerDied: the worker died.
        """
        return (await self._answer(command, InterimText)).text

    async def align_words(self, command: AlignWords) -> tuple[Word, ...]:
        """The times of known words. Cancelling the call cancels the work in the worker.

        Raises:
            AsrError: the aligner failed.
            WorkerDied: the worker died.
        """
        return (await self._answer(command, AlignedWords)).words

    async def embed_voice(self, command: EmbedVoice) -> KnownVoice:
        """Make a known voice. Cancelling the call cancels the work in the worker.

        Raises:
            AsrError: the recording cannot be used, or there is no speaker model.
            WorkerDied: the worker died.
        """
        return (await self._answer(command, VoiceFound)).voice

    async def _answer(
        self, command: RecogniseInterim | AlignWords | EmbedVoice, kind: type[A]
    ) -> A:
        """The report of a kind, which ends the work of a command.

        Raises:
            AsrError: the work failed.
            WorkerDied: the worker died.
        """
        finished = False
        try:
            async with contextlib.aclosing(self._submit(command)) as reports:
                async for report in reports:
                    finished = isinstance(report, kind | Failed)
                    if isinstance(report, kind):
                        return report
                    _event_of(report)
            finished = True
        finally:
            if not finished:
                self._start_cancel(command.id)
        raise WorkerDied("the recogniser process cancelled its work")

    def _start_cancel(self, job: str) -> None:
        # In a separate task: the caller is often being cancelled, and an await here would be
        # cancelled too.
        task = asyncio.create_task(self._cancel(job))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, job: str) -> None:
        await self._ask(Cancel(job))

    async def cancel_all(self) -> None:
        """End the work that an earlier API process asked for before it died."""
        await self._ask(Cancel(None))

    async def control(self) -> bool:
        """Whether the engine recognises noise, which takes a moment."""
        answer = await self._ask(Control())
        return isinstance(answer, EngineState) and answer.ready

    async def engine_state(self) -> EngineState | None:
        """Start to load the engine, and return whether it is loaded. None if the worker died."""
        answer = await self._ask(GetEngineState())
        return answer if isinstance(answer, EngineState) else None

    async def measure(self) -> str | None:
        """The worker's metrics in Prometheus' text format. None if the worker died."""
        answer = await self._ask(GetMetrics())
        return answer.text if isinstance(answer, Metrics) else None

    async def _ask(self, command: Command) -> Report | None:
        """The last report to a command, or None if there is none."""
        answer = None
        with contextlib.suppress(WorkerDied):
            async with contextlib.aclosing(self._submit(command)) as reports:
                async for report in reports:
                    answer = report
        return answer


def _is_success(report: Report, *, is_replay: bool) -> bool:
    """Whether a report shows that the engine works. Segments of kept chunks do not show it."""
    return isinstance(report, ChunkDone | Transcript) or (
        isinstance(report, Segment) and not is_replay
    )


def _event_of(report: Report) -> WorkerEvent:
    match report:
        case Failed(error=error):
            raise error
        case EngineState() | Metrics() | Started() | InterimText() | AlignedWords() | VoiceFound():
            raise WorkerDied("the recogniser process sent an unexpected report")
    return report


class _Account:
    """Counts the seconds of one recording for its owner and reports them to the listeners once.

    If the client leaves early, the seconds transcribed so far count. They also count if the
    recording fails because of its audio: a client could append noise to make it fail. If the
    service fails, no seconds count.
    """

    def __init__(self, owner: str, listeners: Sequence[Listener]) -> None:
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
        """Count nothing, because the service failed and not the recording."""
        self._seconds = 0.0

    def settle(self) -> None:
        seconds, self._seconds = self._seconds, 0.0
        if seconds:
            for listener in self._listeners:
                listener(self._owner, seconds)
