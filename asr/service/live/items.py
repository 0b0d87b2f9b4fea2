"""Transcribes the turns of a session, several at a time.

Each turn is an item of OpenAI's "conversation". `Items.add` waits while too many turns are being
transcribed. So a client that is faster than the engine cannot fill the memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from asr.errors import AsrError, WorkerDied
from asr.service.files import finished_in_thread
from asr.service.live import server_events
from asr.service.live.speech import Speech, in_session_time
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asr.config import VadOptions
    from asr.service.live.backend import Backend
    from asr.service.live.client_events import SessionConfig
    from asr.service.live.turns import Turn

logger = logging.getLogger(__name__)

MAX_PENDING: Final = 8
"""Turns of a session that are transcribed at the same time. `Items.add` makes further turns wait.
Meanwhile the session does not read its socket."""
RETRY_SECONDS: Final = 1.0
"""Pause before a second attempt after the worker died. A new worker starts in this time."""


class Items:
    """The items of one session.

    Args:
        backend: the service.
        send: sends an event to the client.
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
        """Make a turn an item, and start its transcription with the current settings."""
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
        previous: asyncio.Task[None] | None,
    ) -> None:
        """Transcribe a turn. `previous` transcribes the turn before it in the same speech region.

        The segments of a turn that was cut are sent after those of the turn before it.
        """
        try:
            transcript = await self._recognise(turn, config)
            if not turn.is_whole:
                await _wait_for(previous)
                transcript = speech.add(turn, transcript)
                for segment in transcript.segments:
                    await self._send_segment(turn, segment)
            await asyncio.to_thread(self._backend.keep, turn, transcript)
            await self._send(server_events.completed(turn, transcript))
        except Exception as error:  # noqa: BLE001  # sent to the client, and the session continues
            reason = error if isinstance(error, AsrError | OSError) else type(error).__name__
            logger.warning("%s was not transcribed: %s", turn.item_id, reason)
            await self._send(server_events.failed(turn, error))
        finally:
            with contextlib.suppress(OSError):
                await finished_in_thread(turn.path.unlink)
            # Waiting for this task then includes the earlier tasks of the speech region.
            await _wait_for(previous)

    async def _recognise(self, turn: Turn, config: SessionConfig) -> Transcript:
        """The transcript of a turn. If the worker dies before a segment was sent, try once more."""
        sent: list[Segment] = []
        try:
            return await self._follow(turn, config, sent)
        except WorkerDied:
            if sent:
                raise
            await asyncio.sleep(RETRY_SECONDS)
        return await self._follow(turn, config, sent)

    async def _follow(self, turn: Turn, config: SessionConfig, sent: list[Segment]) -> Transcript:
        """The transcript of a turn. Segments of a whole turn are sent as they arrive."""
        transcript: Transcript | None = None
        events = self._backend.transcribe(turn, _vad_of(config), config.decode)
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, Transcript):
                    transcript = event
                elif isinstance(event, Segment) and turn.is_whole:
                    sent.append(in_session_time(event, turn))
                    await self._send_segment(turn, sent[-1])
        if transcript is None:
            raise RuntimeError("a transcription ended without a transcript")
        return replace(transcript, segments=tuple(sent)) if turn.is_whole else transcript

    async def _send_segment(self, turn: Turn, segment: Segment) -> None:
        for body in server_events.segment_events(turn, segment):
            await self._send(body)


async def _wait_for(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await asyncio.wait([task])


def _vad_of(config: SessionConfig) -> VadOptions:
    """The VAD options of a turn: off if the server VAD found the turn, which is all speech then."""
    options = config.vad_options
    return options if config.turn_detection is None else replace(options, kind="off")
