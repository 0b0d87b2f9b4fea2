"""One live session: receives the client's events, sends its turns to the worker, sends transcripts.

It reads the socket one message at a time. It stops reading while too many turns wait for their
transcripts. When the client leaves, audio that it sent before is still transcribed and kept.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asr.errors import AsrError, InvalidOption
from asr.service.errors import Conflict, Expired, LimitReached, TooLarge
from asr.service.live import server_events
from asr.service.live.beta import translated
from asr.service.live.client_events import (
    Append,
    Clear,
    Commit,
    Delete,
    Retrieve,
    Update,
    event_id_of,
    parse_event,
)
from asr.service.live.input_buffer import InputBuffer
from asr.service.live.items import Items
from asr.service.live.partials import Partials
from asr.service.live.session_config import warnings_of
from asr.service.live.turns import SpeechStarted, SpeechStopped, Turn
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asr.service.live.backend import Backend
    from asr.service.live.client_events import ClientEvent
    from asr.service.live.session_config import SessionConfig
    from asr.service.live.socket import ClientSocket
    from asr.service.live.turns import InputEvent

logger = logging.getLogger(__name__)

MAX_APPEND_BYTES: Final = 15 << 20
"""OpenAI's limit for the audio of one event."""
SMALL_TEXT: Final = 64 << 10
"""A longer event is parsed in a thread, so that it does not block the event loop."""
BASE64_STEP: Final = 1 << 20
"""Characters that are decoded at once; a multiple of 4."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """When the server ends a session.

    Attributes:
        idle_seconds: the longest time without a message.
        max_seconds: of audio or of wall time, whichever comes first.
    """

    idle_seconds: float
    max_seconds: float


class Ended(Exception):
    """The session ends. The client gets `reason`, which is None if the client left."""

    def __init__(self, reason: Exception | None = None) -> None:
        super().__init__("the session ends")
        self.reason = reason


class LiveSession:
    """Serves one socket.

    Args:
        session_id: as the client sees it.
        socket: accepted already.
        backend: the service.
        config: the settings at the start.
        folder: for the files of turns; the caller deletes it.
        limits: when the server ends the session.
    """

    def __init__(
        self,
        session_id: str,
        socket: ClientSocket,
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
        self._input = InputBuffer(config, folder)
        self._items = Items(backend, self._send)
        self._partials = Partials(backend, self._input.recent, self._send)
        self._ending: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def end(self, reason: Exception) -> None:
        """End the session soon. Audio that was received is still transcribed."""
        if not self._ending.done():
            self._ending.set_result(reason)

    async def run(self) -> Exception | None:
        """Serve until the client leaves or the session ends. Then wait for the last transcripts.

        Returns:
            Why the session ended, or None when the client left.
        """
        loop = asyncio.get_running_loop()
        limit = loop.call_later(self._limits.max_seconds, lambda: self.end(self._expired()))
        reason: Exception | None = None
        try:
            await self._send(server_events.created(self._config, self._id))
            while True:
                await self._serve(await self._next())
        except Ended as ended:
            reason = ended.reason
        except OSError as error:  # for example a full disk
            reason = error
        limit.cancel()
        await self._flush()
        await self._items.finish()
        if reason is not None:
            await self._send(server_events.error_event(reason))
        return reason

    async def _flush(self) -> None:
        """Commit the unfinished turn when the session ends, so that it is not lost."""
        try:
            events = await asyncio.to_thread(self._input.commit)
            await self._handle(events)
        except OSError as error:
            logger.warning("the end of a live session could not be written: %r", error)
        await self._partials.discard()
        with contextlib.suppress(OSError):  # closes the file of a turn too short for a commit
            await asyncio.to_thread(self._input.clear)

    async def _next(self) -> str:
        """The next message.

        Raises:
            Ended: the session ends.
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
        raise Ended(Expired(f"nothing was sent for {seconds:g} s", "idle_timeout"))

    async def _serve(self, text: str) -> None:
        """Handle one event of the client. An invalid event does not end the session."""
        try:
            event = await _in_thread_if_large(len(text), parse_event, text)
        except AsrError as error:
            await self._send(server_events.error_event(error, event_id_of(text)))
            return
        del text  # may take 20 MB
        try:
            await self._carry_out(event)
        except AsrError as error:
            await self._send(server_events.error_event(error, event.event_id))

    async def _carry_out(self, event: ClientEvent) -> None:
        match event:
            case Append():
                await self._append(event)
            case Commit():
                await self._commit()
            case Clear():
                await self._clear()
            case Update():
                await self._update(event)
            case Retrieve(item_id=item_id):
                await self._send(server_events.retrieved(*await self._items.retrieve(item_id)))
            case Delete(item_id=item_id):
                await self._items.delete(item_id)
                await self._send(server_events.deleted(item_id))

    async def _append(self, event: Append) -> None:
        data = await _in_thread_if_large(len(event.audio), _decode_base64, event.audio)
        event.audio = ""  # free it, because the rest may take long
        self._count(len(data))
        events = await asyncio.to_thread(self._input.append, data)
        del data
        self._socket.processed()
        await self._handle(events)
        self._partials.grow(self._input.open_turn, self._input.n_samples, self._config)
        if self._input.n_samples >= self._limits.max_seconds * SAMPLE_RATE:
            raise Ended(self._expired())

    def _expired(self) -> Expired:
        message = f"a session lasts {self._limits.max_seconds:g} s at the most"
        return Expired(message, "session_expired")

    def _count(self, n_bytes: int) -> None:
        try:
            self._backend.count_bytes(n_bytes)
        except LimitReached as error:
            raise Ended(error) from error

    async def _commit(self) -> None:
        events = await asyncio.to_thread(self._input.commit)
        if not any(isinstance(event, Turn) for event in events):
            message = "the input audio buffer holds less than 100 ms of audio, or no speech"
            raise Conflict(message, "input_audio_buffer_commit_empty")
        await self._handle(events)

    async def _clear(self) -> None:
        await self._partials.discard()
        await asyncio.to_thread(self._input.clear)
        await self._send(server_events.cleared())

    async def _update(self, event: Update) -> None:
        changed = self._config.updated(event.session)
        if changed.input_settings != self._config.input_settings:
            await self._handle(await asyncio.to_thread(self._input.commit))
            await self._partials.discard()
            await asyncio.to_thread(self._input.configure, changed)
        self._config = changed
        warnings = warnings_of(event.session, changed)
        await self._send(server_events.updated(event.type, changed, self._id, warnings))

    async def _handle(self, events: list[InputEvent]) -> None:
        for event in events:
            match event:
                case SpeechStarted(item_id=item_id, sample=sample):
                    await self._send(server_events.speech_started(item_id, sample))
                case SpeechStopped(item_id=item_id, sample=sample):
                    await self._send(server_events.speech_stopped(item_id, sample))
                case Turn():
                    partial = await self._partials.end(event)
                    await self._items.add(event, self._config, partial)

    async def _send(self, event: dict[str, Any]) -> None:
        body = translated(event) if self._config.is_beta else event
        if body is None:
            return
        with contextlib.suppress(ConnectionError):  # the client left; `_next` will notice it, too
            await self._socket.send(body)


def _decode_base64(audio: str) -> bytes:
    n_bytes = len(audio) * 3 // 4 - audio.count("=", -2)
    if n_bytes > MAX_APPEND_BYTES:
        message = f"audio: {n_bytes} bytes; an event takes {MAX_APPEND_BYTES} at the most"
        raise TooLarge(message, "too_large", "audio")
    if audio.find("=", 0, -2) >= 0:  # `b64decode` sees only the padding of each step
        raise InvalidOption("audio", "not base64: padding before the end")
    data = bytearray()
    try:
        # In steps, so that other threads run in between.
        for start in range(0, len(audio), BASE64_STEP):
            data += base64.b64decode(audio[start : start + BASE64_STEP], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidOption("audio", f"not base64: {error}") from error
    return bytes(data)


async def _in_thread_if_large(size: int, work: Callable[[str], T], text: str) -> T:
    return work(text) if size < SMALL_TEXT else await asyncio.to_thread(work, text)
