"""Transcribes the turns of a session, several at a time.

The transcripts are sent in the order of the turns, although OpenAI promises no order: LiveKit and
OpenAI's agents SDK join the texts as they arrive.

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
from asr.pipeline.missing import reason_of
from asr.service.errors import NotFound
from asr.service.files import finished_in_thread
from asr.service.live import server_events
from asr.service.live.partial_text import PartialText
from asr.service.live.reconcile import reconcile
from asr.service.live.speech import Speech, in_session_time
from asr.types import Gap, Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asr.config import VadOptions
    from asr.service.live.backend import Backend
    from asr.service.live.session_config import SessionConfig
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
        self._ids: set[str] = set()
        self._places = asyncio.Semaphore(MAX_PENDING)
        self._pending: set[asyncio.Task[None]] = set()
        self._speech = Speech()
        self._last: asyncio.Task[None] | None = None

    async def add(
        self, turn: Turn, config: SessionConfig, partial: PartialText | None = None
    ) -> None:
        """Make a turn an item, and start its transcription with the current settings.

        Args:
            turn: the turn.
            config: the settings of the session.
            partial: the partial results of the turn; `final` is set when the item is completed.
        """
        for body in server_events.committed(turn, self._previous):
            await self._send(body)
        self._previous = turn.item_id
        self._ids.add(turn.item_id)
        await self._places.acquire()
        if not turn.lead:
            self._speech = Speech()
        is_next = self._last is None or self._last.done()
        item = Item(turn, config, partial or PartialText(turn.item_id), is_next=is_next)
        task = asyncio.create_task(self._transcribe(item, self._speech, self._last))
        self._last = task
        self._pending.add(task)
        task.add_done_callback(self._done)

    async def retrieve(self, item_id: str) -> tuple[str, str | None]:
        """The id of an item, and its transcript, which is None while it is being made.

        Raises:
            NotFound: there is no such item.
        """
        self._check(item_id, "retrieve")
        return item_id, await asyncio.to_thread(self._backend.text_of, item_id)

    async def delete(self, item_id: str) -> None:
        """Forget the transcript of an item, also one that is still being made.

        Raises:
            NotFound: there is no such item.
        """
        self._check(item_id, "delete")
        self._ids.remove(item_id)
        if item_id == self._previous:
            self._previous = None
        await asyncio.to_thread(self._backend.forget, item_id)

    def _check(self, item_id: str, what: str) -> None:
        if item_id not in self._ids:
            message = "this session has no such item, or it was deleted"
            raise NotFound(message, f"item_{what}_invalid_item_id", "item_id")

    async def finish(self) -> None:
        """Wait for the last transcript."""
        if self._pending:
            await asyncio.wait(self._pending)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._pending.discard(task)
        self._places.release()

    async def _transcribe(
        self, item: Item, speech: Speech, previous: asyncio.Task[None] | None
    ) -> None:
        """Transcribe a turn. `previous` transcribes the previous one, which is sent first."""
        turn = item.turn
        try:
            try:
                transcript = await self._recognise(item)
            finally:
                await _wait_for(previous)
            if not turn.is_whole:
                transcript = speech.add(turn, transcript, item.partial)
            if not item.sends_early:
                sent = item.partial.words
                segments = await asyncio.to_thread(
                    reconcile, sent, transcript.segments, turn.start, turn.end
                )
                transcript = replace(transcript, segments=segments)
                for segment in segments:
                    await self._send_segment(item, segment)
            item.partial.final = tuple(transcript.text.split())
            await asyncio.to_thread(self._backend.keep, turn, transcript)
            await self._send(item.completed(transcript))
        except Exception as error:  # noqa: BLE001  # sent to the client, and the session continues
            await self._fail(turn, error)
        finally:
            item.partial.final = item.partial.final or ()
            with contextlib.suppress(OSError):
                await finished_in_thread(turn.path.unlink)

    async def _fail(self, turn: Turn, error: Exception) -> None:
        """Report a turn that was not transcribed, and keep it as a gap."""
        reason = error if isinstance(error, AsrError | OSError) else type(error).__name__
        logger.warning("%s was not transcribed: %s", turn.item_id, reason)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._backend.keep, turn, _missing(turn, error))
        await self._send(server_events.failed(turn, error))

    async def _recognise(self, item: Item) -> Transcript:
        """The transcript of a turn. If the worker dies before a segment was sent, retry once."""
        segments: list[Segment] = []
        try:
            return await self._follow(item, segments)
        except WorkerDied:
            if segments and item.sends_early:
                raise
            segments.clear()
            await asyncio.sleep(RETRY_SECONDS)
        return await self._follow(item, segments)

    async def _follow(self, item: Item, segments: list[Segment]) -> Transcript:
        """The transcript of a turn. The segments of a whole turn are in session time.

        They are sent as they arrive, unless they must first be reconciled with partial results.
        """
        turn, config = item.turn, item.config
        transcript: Transcript | None = None
        events = self._backend.transcribe(turn, _vad_of(config), config.decode, config.speakers)
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, Transcript):
                    transcript = event
                elif isinstance(event, Segment) and turn.is_whole:
                    segments.append(in_session_time(event, turn))
                    if item.sends_early:
                        await self._send_segment(item, segments[-1])
        if transcript is None:
            raise RuntimeError("a transcription ended without a transcript")
        return replace(transcript, segments=tuple(segments)) if turn.is_whole else transcript

    async def _send_segment(self, item: Item, segment: Segment) -> None:
        turn = item.turn
        if text := item.unsent(segment):
            await self._send(server_events.delta(turn.item_id, text))
        await self._send(server_events.segment(turn, segment))


class Item:
    """A turn that is being transcribed.

    Args:
        turn: the turn.
        config: the settings of the session when the turn ended.
        partial: the partial results of the turn.
        is_next: whether all earlier items are finished.

    Attributes:
        sends_early: whether segments are sent as they arrive, before the transcript is complete.
    """

    def __init__(
        self, turn: Turn, config: SessionConfig, partial: PartialText, *, is_next: bool = True
    ) -> None:
        self.turn = turn
        self.config = config
        self.partial = partial
        self.sends_early = is_next and turn.is_whole and not partial.words
        self._n_sent = len(partial.text)
        self._n_letters = 0  # length of the texts of the segments so far

    def completed(self, transcript: Transcript) -> dict[str, Any]:
        """The event with the whole text."""
        wants_logprobs = self.config.include_logprobs
        return server_events.completed(self.turn, transcript, logprobs=wants_logprobs)

    def unsent(self, segment: Segment) -> str:
        """The part of the text that no delta contained. Call it once for each segment, in order."""
        if not segment.text:
            return ""
        text = f" {segment.text}" if self._n_letters else segment.text
        begin = max(0, self._n_sent - self._n_letters)
        self._n_letters += len(text)
        return text[begin:]


def _missing(turn: Turn, error: Exception) -> Transcript:
    """The transcript of a turn that failed: a gap, in session time."""
    gap = Gap(turn.start, turn.end, reason_of(error) or "engine_failed")
    seconds = turn.end - turn.start
    return Transcript((), "und", seconds, seconds, 0.0, "", gaps=(gap,))


async def _wait_for(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await asyncio.wait([task])


def _vad_of(config: SessionConfig) -> VadOptions:
    """The VAD options of a turn: off if the server VAD found the turn, which is all speech then."""
    options = config.vad_options
    return options if config.turn_detection is None else replace(options, kind="off")
