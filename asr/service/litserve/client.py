"""The worker as the routes see it: transcriptions to follow, questions to ask.

Knows nothing of LitServe. What carries a command to the worker and its reports back is a `Submit`:
`TranscriptionSpec.submit` in the service.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING

from asr.errors import AudioError, WorkerDied
from asr.pipeline.run import Progress
from asr.service.litserve.messages import (
    Ask,
    Cancel,
    Command,
    EngineState,
    Failed,
    Measure,
    Measured,
    Report,
)
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from asr.service.litserve.messages import Happening, Transcribe

Submit = Callable[[Command], AsyncGenerator[Report]]
"""Sends a command and yields its reports; raises `WorkerDied`."""
Listener = Callable[[str, float], None]
"""Takes an owner and the seconds of audio that were transcribed for it."""


class WorkerClient:
    """Sends commands to the worker and hands out its reports.

    Args:
        submit: the way to the worker.
        listeners: told once per recording how far it was transcribed, and for which owner.
    """

    def __init__(self, submit: Submit, listeners: Sequence[Listener] = ()) -> None:
        self._submit = submit
        self._cancelling: set[asyncio.Task[None]] = set()
        self._listeners = listeners

    async def transcribe(self, command: Transcribe) -> AsyncGenerator[Happening]:
        """Run a transcription. Leaving early cancels it in the worker.

        Raises:
            AsrError: as `asr.pipeline.run.Transcriber.transcribe_file` does.
            WorkerDied: the worker died.
        """
        finished = False
        account = _Account(command.owner, self._listeners)
        try:
            async with contextlib.aclosing(self._submit(command)) as reports:
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
                # A task of its own: a caller that leaves early is often being cancelled, and then
                # nothing more can be awaited here.
                task = asyncio.create_task(self._cancel(command.id))
                self._cancelling.add(task)
                task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, job: str) -> None:
        with contextlib.suppress(WorkerDied):
            async with contextlib.aclosing(self._submit(Cancel(job))) as reports:
                async for _ in reports:
                    pass

    async def engine_state(self) -> EngineState | None:
        """Ask how the engine is, which also makes it load; None when no answer came."""
        answer = await self._ask(Ask())
        return answer if isinstance(answer, EngineState) else None

    async def measure(self) -> str | None:
        """Ask for the worker's numbers as Prometheus reads them; None when no answer came."""
        answer = await self._ask(Measure())
        return answer.text if isinstance(answer, Measured) else None

    async def _ask(self, command: Ask | Measure) -> Report | None:
        with contextlib.suppress(WorkerDied):
            async with contextlib.aclosing(self._submit(command)) as reports:
                async for report in reports:
                    return report
        return None


def _happening(report: Report) -> Happening:
    match report:
        case Failed(error=error):
            raise error
        case EngineState() | Measured():
            raise WorkerDied("the recogniser process gave another answer")
    return report


class _Account:
    """Seconds of one recording that count for its owner, reported to the listeners once.

    A client that leaves early, or that appends noise to make the recording fail, has received the
    segments up to that point, so they count.
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
        """Count nothing: the service failed, not the recording."""
        self._seconds = 0.0

    def settle(self) -> None:
        seconds, self._seconds = self._seconds, 0.0
        if seconds:
            for listener in self._listeners:
                listener(self._owner, seconds)
