"""Partial results: the text of a turn while someone is still talking.

At a cadence, the audio of the unfinished turn is recognised again (an interim request, with the
engine alone), and the words on which successive hypotheses agree are sent as a delta. At most one
interim request of a session is in progress, so the cadence adapts to the engine: a slow one gets
fewer requests. If a request fails or a guard objects to its answer, it is ignored.

Deltas are never taken back, so they must not skip words either. Where partial results cannot
continue without a gap (the engine is too slow, or the speech before a pause was not recognised),
they stop until the turn ends. The final transcript does not depend on them.

The audio that is recognised again is the *window*. When it grows beyond `LONG_SECONDS`, it is cut
at a quiet place in its middle. The part before the cut is recognised once more, which shows how
many of the sent words it contains. So long speech costs a constant share of the engine.

Where a speech region is cut into two turns, the window and the agreement go on. If all words before
the cut were sent, the item of the first turn has exactly the words that were sent. Otherwise
its final transcript has further words, and the deltas of the next turn wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asr.pcm import to_float32
from asr.pipeline.chunking import quietest
from asr.service.live import server_events
from asr.service.live.agreement import Agreed, Agreement
from asr.service.live.partial_text import PartialText
from asr.service.live.word_match import bare, match_prefix
from asr.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asr.service.live.backend import Backend
    from asr.service.live.client_events import SessionConfig
    from asr.service.live.delay import Delay
    from asr.service.live.input_buffer import RecentAudio
    from asr.service.live.turns import OpenTurn, Turn

logger = logging.getLogger(__name__)

LONG_SECONDS: Final = 10.0
"""A longer window is cut."""
SHORT_SECONDS: Final = 0.8
"""A shorter window is not recognised: there is hardly a whole word in it."""
TRAIL_SECONDS: Final = 0.8
"""The window ends at most this long after the last voiced frame, so that silence costs nothing."""
REST: Final = 0.5
"""Pause after an interim request, as a fraction of the time that it took."""
FAILED_SECONDS: Final = 2.0
"""Pause after an interim request that failed."""


class Partials:
    """The partial results of one session. Belongs to one event loop.

    Args:
        backend: the service.
        recent: the last seconds of the session.
        send: sends an event to the client.
    """

    def __init__(
        self,
        backend: Backend,
        recent: RecentAudio,
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self._backend = backend
        self._recent = recent
        self._send = send
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._item: PartialText | None = None
        self._forget()

    def _forget(self) -> None:
        """Begin a new speech region."""
        self._agreement: Agreement | None = None
        self._start: int | None = None  # of the window
        self._looked = 0  # end of the last window
        self._n_ended = 0  # stretches of speech that are done
        self._is_lost = False  # until the turn ends
        self._before: PartialText | None = None  # the deltas wait until this item is completed

    def grow(self, turn: OpenTurn | None, end_sample: int, config: SessionConfig) -> None:
        """The session has more audio.

        Args:
            turn: the unfinished turn.
            end_sample: the end of the session so far.
            config: the settings of the turn.
        """
        if turn is None or config.partials is None:
            return
        self._turn, self._end = turn, end_sample
        if self._item is None or self._item.item_id != turn.item_id:
            self._item = PartialText(turn.item_id)
        if self._task is None:
            self._task = asyncio.create_task(self._run(config, config.partials))
        self._grown.set()

    async def end(self, turn: Turn) -> PartialText:
        """The turn has ended: cancel the interim request, and return what was sent."""
        await self._stop()
        item = self._item
        if item is None or item.item_id != turn.item_id:
            item = PartialText(turn.item_id)
        self._item = None
        if not turn.tail:
            self._forget()
            return item
        self._is_lost = self._is_lost or self._before is not None or self._agreement is None
        if self._agreement is not None and item.words:
            item.is_exact = self._agreement.sent_until() >= turn.end_sample
        self._before = None if item.is_exact else item
        return item

    async def discard(self) -> None:
        """Forget the unfinished turn."""
        await self._stop()
        self._item = None
        self._forget()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def _run(self, config: SessionConfig, delay: Delay) -> None:
        try:
            await self._follow(config, delay)
        except Exception:
            logger.exception("the partial results of a turn stopped")

    async def _follow(self, config: SessionConfig, delay: Delay) -> None:
        if self._agreement is None:
            self._agreement = Agreement(delay.n_hypotheses)
        while True:
            window = self._next_window(delay)
            if window is None:
                self._grown.clear()
                await self._grown.wait()
                continue
            started = time.monotonic()
            is_answered = await self._look(self._agreement, window, config)
            took = time.monotonic() - started
            await asyncio.sleep(REST * took if is_answered else FAILED_SECONDS)

    def _next_window(self, delay: Delay) -> _Window | None:
        """The window to recognise next, or None if there is too little new audio."""
        if self._is_lost:
            return None
        if self._n_ended < len(self._turn.ended):
            region = self._turn.ended[self._n_ended]
            start = region.start_sample if self._start is None else self._start
            return _Window(start, region.end_sample, is_ended=True)
        if self._turn.current is None:
            return None
        region = self._turn.current
        start = region.start_sample if self._start is None else self._start
        end = min(self._end, region.end_sample + round(TRAIL_SECONDS * SAMPLE_RATE))
        is_due = end - max(start, self._looked) >= delay.cadence * SAMPLE_RATE
        return (
            _Window(start, end) if is_due and end - start >= SHORT_SECONDS * SAMPLE_RATE else None
        )

    async def _look(self, agreement: Agreement, window: _Window, config: SessionConfig) -> bool:
        """Recognise a window and send the words that are new and certain.

        Returns:
            Whether the engine answered and no guard objected.
        """
        text = await self._recognise(window, config)
        self._start, self._looked = window.start, window.end
        if text is None:
            self._is_lost = self._is_lost or window.is_ended
            return False
        self._resume(agreement)
        if window.is_ended:
            agreed = agreement.close(text)
        elif text:
            agreed = agreement.add(text, window.end)
        else:  # an engine that is not sure enough says nothing
            agreed = Agreed([])
        if agreed.words and self._before is None:
            agreement.seen += agreed.words
            await self._send_delta(agreed)
        if window.is_ended:
            self._n_ended, self._start = self._n_ended + 1, None
            agreement.restart(len(agreement.seen))
        elif window.seconds > LONG_SECONDS:
            await self._shorten(agreement, window, config)
        return True

    def _resume(self, agreement: Agreement) -> None:
        """Let the deltas continue after the previous item, if it is completed now."""
        before = self._before
        if before is not None and before.final is not None:
            agreement.seen += before.final[len(before.words) :]
            self._before = None

    async def _send_delta(self, agreed: Agreed) -> None:
        item = self._item
        if item is None:
            return
        body = server_events.delta(item.item_id, item.extend(agreed))
        # It counts as sent now, so it is sent even if the turn ends meanwhile.
        self._sending = asyncio.ensure_future(self._send(body))
        await asyncio.shield(self._sending)

    async def _shorten(self, agreement: Agreement, window: _Window, config: SessionConfig) -> None:
        """Move the start of the window to a quiet place after words that were sent."""
        third = (window.end - window.start) // 3
        earliest = window.start + third
        samples = self._recent.read(earliest, window.end - third)
        if samples is None:
            return
        cut = earliest + quietest(Audio(to_float32(samples)))
        text = await self._recognise(_Window(window.start, cut), config)
        n_before = None if text is None else _n_heard(text.split(), agreement.seen)
        if n_before is not None:
            agreement.restart(n_before)
            self._start = self._looked = cut

    async def _recognise(self, window: _Window, config: SessionConfig) -> str | None:
        samples = self._recent.read(window.start, window.end)
        if samples is None:
            self._is_lost = True
            return None
        return await self._backend.recognise_interim(samples, config.decode)


@dataclass(frozen=True, slots=True)
class _Window:
    """Samples of the session. `is_ended` says that a pause follows, so the window will not grow."""

    start: int
    end: int
    is_ended: bool = False

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SAMPLE_RATE


def _n_heard(heard: Sequence[str], seen: Sequence[str]) -> int | None:
    """How many of the words in `seen` are in the audio in which `heard` was recognised.

    None if they differ too much to tell, or if that audio has words after those in `seen`.
    """
    match = match_prefix(heard, seen)
    equal = [
        j is not None and bare(word) == bare(seen[j])
        for word, j in zip(heard, match.counterparts, strict=True)
    ]
    is_within = match.n_used < len(seen) or all(equal[-1:])
    return match.n_used if is_within and 3 * sum(equal) >= 2 * len(heard) else None
