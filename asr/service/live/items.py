"""The turns of a session on their way to transcripts, side by side.

Each is an item of the conversation. While too many are in work `add` waits, so that a client faster
than the engine fills no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from asr.errors import WorkerDied
from asr.service.files import finished_in_thread
from asr.service.http.problems import problem_of
from asr.service.live import server_events
from asr.service.live.speech import Speech, placed
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asr.config import VadOptions
    from asr.service.live.base import Backend
    from asr.service.live.client_events import SessionConfig
    from asr.service.live.turns import Turn

logger = logging.getLogger(__name__)

MAX_PENDING: Final = 8
"""Turns of a session that are in work before it is read no further."""
RETRY_SECONDS: Final = 1.0
"""After the death of the worker, whose successor is then about to start."""


class Items:
    """The items of one session.

    Args:
        backend: the service.
        send: gives the client an event.
    """

    def __init__(self, backend: Backend, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._backend = backend
        self._send = send
        self._previous: str | None = None
        self._places = asyncio.Semaphore(MAX_PENDING)
        self._pending: set[asyncio.Task[None]] = set()
        self._speech = Speech()
        self._last: asyncio.Task[None] | None = None

    async def add(self, turn: Turn, config: SessionConfig) -> None:
        """Make the turn an item, and have it transcribed as the session is set now."""
        for body in server_events.committed(turn, self._previous):
            await self._send(body)
        self._previous = turn.item_id
        await self._places.acquire()
        if not turn.lead:
            self._speech, self._last = Speech(), None
        task = asyncio.create_task(self._transcribe(turn, config, self._speech, self._last))
        self._last = task
        self._pending.add(task)
        task.add_done_callback(self._done)

    async def finish(self) -> None:
        """Wait for the last transcript."""
        if self._pending:
            await asyncio.wait(self._pending)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._pending.discard(task)
        self._places.release()

    async def _transcribe(
        self,
        turn: Turn,
        config: SessionConfig,
        speech: Speech,
        before: asyncio.Task[None] | None,
    ) -> None:
        """Transcribe a turn, which goes on where the one that `before` transcribes was cut."""
        try:
            transcript = await self._hear(turn, config)
            if not turn.is_whole:
                await _end_of(before)
                transcript = speech.add(turn, transcript)
                for segment in transcript.segments:
                    await self._tell(turn, segment)
            await asyncio.to_thread(self._backend.keep, turn, transcript)
            await self._send(server_events.completed(turn, transcript))
        except Exception as error:  # noqa: BLE001  # told to the client, and the session goes on
            problem = problem_of(error)
            logger.warning("%s was not transcribed: %s", turn.item_id, problem.message)
            await self._send(server_events.failed(turn, problem))
        finally:
            with contextlib.suppress(OSError):
                await finished_in_thread(turn.path.unlink)
            await _end_of(before)  # so that who waits for this one waits for that one too

    async def _hear(self, turn: Turn, config: SessionConfig) -> Transcript:
        """What the worker hears; one that died before a word was told is asked again."""
        told: list[Segment] = []
        try:
            return await self._follow(turn, config, told)
        except WorkerDied:
            if told:
                raise
            await asyncio.sleep(RETRY_SECONDS)
        return await self._follow(turn, config, told)

    async def _follow(self, turn: Turn, config: SessionConfig, told: list[Segment]) -> Transcript:
        """What the worker hears; the segments of a turn that is whole are told as they come."""
        heard: Transcript | None = None
        events = self._backend.transcribe(turn, _vad_of(config), config.decode)
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, Transcript):
                    heard = event
                elif isinstance(event, Segment) and turn.is_whole:
                    told.append(placed(event, turn))
                    await self._tell(turn, told[-1])
        if heard is None:
            raise RuntimeError("a transcription ended without a transcript")
        return replace(heard, segments=tuple(told)) if turn.is_whole else heard

    async def _tell(self, turn: Turn, segment: Segment) -> None:
        for body in server_events.heard(turn, segment):
            await self._send(body)


async def _end_of(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await asyncio.wait([task])


def _vad_of(config: SessionConfig) -> VadOptions:
    """What finds the speech inside a turn: nothing, when the VAD has made the turn."""
    options = config.vad_options
    return options if config.turn_detection is None else replace(options, kind="off")
