"""Partial results: the text of a turn while someone is still speaking.

At a fixed cadence, the engine recognises the audio of the unfinished turn again. This is an interim
request; no aligner and no witness take part. The words on which successive hypotheses agree are
sent as a delta. A session has at most one interim request in progress. So a slow engine gets fewer
requests. The answer is ignored if the request fails or a guard objects.

Deltas are never taken back, and they must not skip words. They would skip words if the engine is
too slow, or if the speech before a pause was not recognised. Then they are suspended until the
speech region ends. The final transcript does not depend on them.

The audio of an interim request is its *window* (`window.py`). When the window grows beyond
`LONG_SECONDS`, its start moves to a quiet place in its middle. To find out how many of the sent
words lie before the new start, the part before it is recognised once more. So the cost per second
of speech does not grow.

If a speech region is cut into two turns, the window and the agreement continue in the second turn.
If all words before the cut were sent, the item of the first turn has exactly the sent words.
Otherwise the final transcript of the first item has further words. The deltas of the next turn then
wait for that transcript.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from asr.pcm import to_float32
from asr.pipeline.chunking import quietest
from asr.service.live import server_events
from asr.service.live.agreement import Agreed, Agreement
from asr.service.live.partial_text import PartialText
from asr.service.live.window import Window, Windows
from asr.service.live.word_match import match_prefix
from asr.text.bare import bare
from asr.types import Audio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asr.service.live.backend import Backend
    from asr.service.live.delay import Delay
    from asr.service.live.input_buffer import RecentAudio
    from asr.service.live.session_config import SessionConfig
    from asr.service.live.turns import OpenTurn, Turn

logger = logging.getLogger(__name__)

LONG_SECONDS: Final = 10.0
"""A longer window is cut."""
REST: Final = 0.5
"""Pause after an interim request, as a fraction of the time that the request took."""
FAILED_SECONDS: Final = 2.0
"""Pause after an interim request that failed or to which a guard objected."""


class Partials:
    """The partial results of one session. Belongs to one event loop.

    Args:
        backend: the service.
        recent: the last seconds of the session's audio.
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
        self._begin_region()

    def _begin_region(self) -> None:
        """Forget the speech region, which may have had several turns."""
        self._windows = Windows()
        self._agreement: Agreement | None = None
        self._is_suspended = False  # until the region ends
        self._awaited: PartialText | None = None  # deltas wait until this item is transcribed

    def grow(self, turn: OpenTurn | None, end_sample: int, config: SessionConfig) -> None:
        """Take note that the session has more audio.

        Args:
            turn: the unfinished turn.
            end_sample: the end of the session so far.
            config: the settings of the turn.
        """
        if turn is None or config.partials is None:
            return
        self._windows.grow(turn, end_sample)
        if self._item is None or self._item.item_id != turn.item_id:
            self._item = PartialText(turn.item_id)
        if self._task is None:
            self._task = asyncio.create_task(self._run(config, config.partials))
        self._grown.set()

    async def end(self, turn: Turn) -> PartialText:
        """End a turn: cancel its interim request, and return the text that was sent."""
        await self._stop()
        item = self._item
        if item is None or item.item_id != turn.item_id:
            item = PartialText(turn.item_id)
        self._item = None
        if not turn.tail:
            self._begin_region()
            return item
        if self._agreement is None or self._awaited is not None:
            self._is_suspended = True
        if self._agreement is not None and item.words:
            item.is_exact = self._agreement.sent_until() >= turn.end_sample
        self._awaited = None if item.is_exact else item
        return item

    async def discard(self) -> None:
        """Forget the unfinished turn."""
        await self._stop()
        self._item = None
        self._begin_region()

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
        """Recognise window after window until the task is cancelled."""
        if self._agreement is None:
            self._agreement = Agreement(delay.n_hypotheses)
        while True:
            window = None if self._is_suspended else self._windows.next(delay.cadence)
            if window is None:
                self._grown.clear()
                await self._grown.wait()
                continue
            started = time.monotonic()
            is_answered = await self._update(self._agreement, window, config)
            took = time.monotonic() - started
            await asyncio.sleep(REST * took if is_answered else FAILED_SECONDS)

    async def _update(self, agreement: Agreement, window: Window, config: SessionConfig) -> bool:
        """Recognise a window, and send the words that are new and certain.

        Returns:
            Whether the engine answered and no guard objected.
        """
        text = await self._recognise(window, config)
        self._windows.recognised(window)
        if text is None:
            self._is_suspended = self._is_suspended or window.is_complete
            return False
        self._resume(agreement)
        await self._send_delta(agreement, _agreed(agreement, text, window))
        if window.is_complete:
            self._windows.complete()
            agreement.restart(len(agreement.seen))
        elif window.seconds > LONG_SECONDS:
            await self._cut_window(agreement, window, config)
        return True

    def _resume(self, agreement: Agreement) -> None:
        """Let the deltas continue if the item for which they wait is transcribed."""
        awaited = self._awaited
        if awaited is not None and awaited.final is not None:
            agreement.seen += awaited.final[len(awaited.words) :]
            self._awaited = None

    async def _send_delta(self, agreement: Agreement, agreed: Agreed) -> None:
        if not agreed.words or self._awaited is not None:
            return
        agreement.seen += agreed.words
        item = self._item
        if item is None:
            return
        body = server_events.delta(item.item_id, item.extend(agreed))
        # The words count as sent now. So they must be sent even if the turn ends meanwhile.
        self._sending = asyncio.ensure_future(self._send(body))
        await asyncio.shield(self._sending)

    async def _cut_window(
        self, agreement: Agreement, window: Window, config: SessionConfig
    ) -> None:
        """Move the start of the window to a quiet place, if all words before it were sent."""
        third = (window.end - window.start) // 3
        earliest = window.start + third
        samples = self._recent.read(earliest, window.end - third)
        if samples is None:
            return
        cut = earliest + quietest(Audio(to_float32(samples)))
        text = await self._recognise(Window(window.start, cut), config)
        n_before = None if text is None else _n_contained(text.split(), agreement.seen)
        if n_before is not None:
            agreement.restart(n_before)
            self._windows.cut(cut)

    async def _recognise(self, window: Window, config: SessionConfig) -> str | None:
        samples = self._recent.read(window.start, window.end)
        if samples is None:  # the engine is too slow: the audio is not in memory any more
            self._is_suspended = True
            return None
        return await self._backend.recognise_interim(samples, config.decode)


def _agreed(agreement: Agreement, text: str, window: Window) -> Agreed:
    """The words that are certain after the hypothesis `text`."""
    if window.is_complete:
        return agreement.close(text)
    if not text:  # an empty answer says nothing against the earlier hypotheses
        return Agreed([])
    return agreement.add(text, window.end)


def _n_contained(heard: Sequence[str], seen: Sequence[str]) -> int | None:
    """How many of the words in `seen` are in the audio in which `heard` was recognised.

    None if fewer than two thirds of `heard` are in `seen`, or if the audio has words after `seen`.
    """
    match = match_prefix(heard, seen)
    equal = [
        j is not None and bare(word) == bare(seen[j])
        for word, j in zip(heard, match.counterparts, strict=True)
    ]
    is_within = match.n_used < len(seen) or all(equal[-1:])
    return match.n_used if is_within and 3 * sum(equal) >= 2 * len(heard) else None
