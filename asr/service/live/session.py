"""One live session: the client's events in, its turns to the worker, what was heard back.

Reads the socket one message at a time, and nothing more while `Items` has too many turns in work.
When the client leaves, what it had said is still transcribed and kept for `Transcripts`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asr.errors import AsrError
from asr.service.errors import Refused
from asr.service.http.problems import Problem, problem_of
from asr.service.live import server_events
from asr.service.live.audio import Intake
from asr.service.live.client_events import Append, Clear, Commit, Update, parse_event
from asr.service.live.items import Items
from asr.service.live.turns import SpeechStarted, SpeechStopped, Turn
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asr.service.live.base import Backend, SessionLimits, Socket
    from asr.service.live.client_events import SessionConfig
    from asr.service.live.turns import InputEvent

logger = logging.getLogger(__name__)

MAX_APPEND_BYTES: Final = 15 << 20
"""OpenAI's limit for the audio of one event."""
SMALL_TEXT: Final = 64 << 10
"""A longer event is parsed in a thread, beside the event loop."""
T = TypeVar("T")


class Ended(Exception):
    """The session ends, for a reason that is told to the client or for none."""

    def __init__(self, problem: Problem | None = None) -> None:
        super().__init__("the session ends")
        self.problem = problem


class LiveSession:
    """Serves one socket.

    Args:
        session_id: as the client is told.
        socket: accepted already.
        backend: the service.
        config: at the start.
        folder: for the turns, deleted by the caller.
        limits: after which it ends.
    """

    def __init__(
        self,
        session_id: str,
        socket: Socket,
        backend: Backend,
        config: SessionConfig,
        folder: Path,
        limits: SessionLimits,
    ) -> None:
        self._id = session_id
        self._socket = socket
        self._backend = backend
        self._config = config
        self._limits = limits
        self._intake = Intake(config, folder)
        self._items = Items(backend, self._send)
        self._ending: asyncio.Future[Problem] = asyncio.get_running_loop().create_future()

    def end(self, problem: Problem) -> None:
        """Let it end soon: what was said is still transcribed."""
        if not self._ending.done():
            self._ending.set_result(problem)

    async def run(self) -> Problem | None:
        """Serve until the client leaves or the session ends, and to the last transcript.

        Returns:
            Why it ended, or None when the client left.
        """
        loop = asyncio.get_running_loop()
        limit = loop.call_later(self._limits.max_seconds, lambda: self.end(self._expired()))
        ended: Problem | None = None
        try:
            await self._send(server_events.session_event("created", self._config.body(self._id)))
            while True:
                await self._serve(await self._next())
        except Ended as end:
            ended = end.problem
        except OSError as error:  # the disk is full, say
            ended = problem_of(error)
        limit.cancel()
        await self._flush()
        await self._items.finish()
        if ended is not None:
            await self._send(server_events.error_event(ended))
        return ended

    async def _flush(self) -> None:
        """Commit what is there when the session ends: the tail is not lost."""
        try:
            events = await asyncio.to_thread(self._intake.end_turn)
            await self._handle(events)
        except OSError as error:
            logger.warning("the end of a live session could not be written: %r", error)
        with contextlib.suppress(OSError):  # the file of a turn that is too short is still open
            await asyncio.to_thread(self._intake.forget)

    async def _next(self) -> str:
        """The next message.

        Raises:
            Ended: none will come.
        """
        if self._ending.done():
            raise Ended(self._ending.result())
        receiving = asyncio.create_task(self._socket.receive())
        either: set[asyncio.Future[Any]] = {receiving, self._ending}
        seconds = self._limits.idle_seconds
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
        except ConnectionError:
            raise Ended from None
        finally:
            receiving.cancel()
        if self._ending.done():
            raise Ended(self._ending.result())
        message = f"nothing was sent for {seconds:g} s"
        raise Ended(Problem(408, message, "idle_timeout"))

    async def _serve(self, text: str) -> None:
        """Carry out one event of the client; a wrong one is answered and the session goes on."""
        event_id = None
        try:
            event = await _beside(len(text), parse_event, text)
            event_id = event.event_id
            match event:
                case Append(audio=audio):
                    await self._append(audio)
                case Commit():
                    await self._commit()
                case Clear():
                    await self._clear()
                case Update():
                    await self._update(event)
        except (Problem, AsrError) as error:
            await self._send(server_events.error_event(problem_of(error), event_id))

    async def _append(self, audio: str) -> None:
        data = await _beside(len(audio), _decode_base64, audio)
        self._spend(len(data))
        await self._handle(await asyncio.to_thread(self._intake.take, data))
        if self._intake.n_samples >= self._limits.max_seconds * SAMPLE_RATE:
            raise Ended(self._expired())

    def _expired(self) -> Problem:
        message = f"a session lasts {self._limits.max_seconds:g} s at the most"
        return Problem(400, message, "session_expired")

    def _spend(self, n_bytes: int) -> None:
        try:
            self._backend.spend(n_bytes)
        except Refused as error:
            raise Ended(problem_of(error)) from error

    async def _commit(self) -> None:
        events = await asyncio.to_thread(self._intake.end_turn)
        if not any(isinstance(event, Turn) for event in events):
            message = "the input audio buffer holds less than 100 ms of audio, or no speech"
            raise Problem(400, message, "input_audio_buffer_commit_empty")
        await self._handle(events)

    async def _clear(self) -> None:
        await asyncio.to_thread(self._intake.forget)
        await self._send(server_events.cleared())

    async def _update(self, event: Update) -> None:
        changed = self._config.updated(event.session)
        await self._handle(await asyncio.to_thread(self._intake.end_turn))
        await asyncio.to_thread(self._intake.configure, changed)
        self._config = changed
        await self._send(server_events.session_event("updated", changed.body(self._id)))

    async def _handle(self, events: list[InputEvent]) -> None:
        for event in events:
            match event:
                case SpeechStarted(item_id=item_id, sample=sample):
                    await self._send(server_events.speech_started(item_id, sample))
                case SpeechStopped(item_id=item_id, sample=sample):
                    await self._send(server_events.speech_stopped(item_id, sample))
                case Turn():
                    await self._items.add(event, self._config)

    async def _send(self, body: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # it has left; the reader will find out too
            await self._socket.send(body)


def _decode_base64(audio: str) -> bytes:
    try:
        data = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"audio: not base64: {error}"
        raise Problem(400, message, "invalid_value", "audio") from error
    if len(data) > MAX_APPEND_BYTES:
        message = f"audio: {len(data)} bytes; an event takes {MAX_APPEND_BYTES} at the most"
        raise Problem(400, message, "too_large", "audio")
    return data


async def _beside(size: int, work: Callable[[str], T], text: str) -> T:
    """Do `work`, in a thread when there is much of it."""
    return work(text) if size < SMALL_TEXT else await asyncio.to_thread(work, text)
