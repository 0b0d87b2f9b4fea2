"""Limits of keys that hold for all servers of one database together.

Each server writes what it counts for a key into the database, as totals, so that writing twice
changes nothing. It reads what the others wrote, once a second and before each request of a key
with limits. The tokens of a key's rate are in the database only: a request takes one in a
transaction. While the database is away, each server counts for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from asr.errors import StoreUnavailable
from asr.service.access.limits import KeyUse, Meter, Meters, check_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from asr.service.access.keys import Key
    from asr.service.clock import SharedClock

logger = logging.getLogger(__name__)

SYNC_SECONDS: Final = 1.0
"""How old the counts of the other servers may be."""
PAUSE_SECONDS: Final = 0.05
"""Between two exchanges, however much happens."""
PATIENCE_SECONDS: Final = 1.0
"""A request waits this long for the database."""
RETRY_SECONDS: Final = 5.0
"""After the database did not answer, requests do not ask it for this long."""


class UsageStore(Protocol):
    """The counts of all servers."""

    async def exchange(
        self, own: Mapping[str, KeyUse], n_open: Callable[[str], int]
    ) -> tuple[float, dict[str, KeyUse]]:
        """Write what this server counts for each owner, and read what the others count.

        Args:
            own: what this server counts.
            n_open: the open requests of an owner, asked when no `take` of this server can write.
                Called in another thread.

        Returns:
            The time in seconds since 1970, and the counts of the others by owner.

        Raises:
            StoreUnavailable: the database is unavailable.
        """

    async def take(
        self, owner: str, rate: float | None, own: KeyUse, check: Callable[[KeyUse, float], None]
    ) -> float:
        """Take a place and a token for one request.

        Args:
            owner: the name of the key.
            rate: requests per minute, or None.
            own: what this server counts, with the new request.
            check: gets the counts of the others and the tokens; if it raises, nothing is taken.

        Returns:
            The tokens that are left.

        Raises:
            StoreUnavailable: the database is unavailable.
        """


class SharedMeters(Meters):
    """Meters that know what the other servers count.

    Args:
        clock: is set to the time of the database.

    Attributes:
        store: the counts of all servers; None while this server counts for itself only.
    """

    def __init__(self, clock: SharedClock) -> None:
        super().__init__(clock.now)
        self.store: UsageStore | None = None
        self._clock = clock
        self._elsewhere: dict[str, KeyUse] = {}
        self._written: dict[str, KeyUse] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._taking: set[str] = set()
        self._wake = asyncio.Event()
        self._away_until = 0.0

    def of(self, key: Key) -> Meter:
        """The meter of a key, with its current limits."""
        is_new = key.name not in self._meters
        meter = super().of(key)
        if is_new:
            meter.elsewhere = self._elsewhere.get(key.name, meter.elsewhere)
        return meter

    @contextlib.asynccontextmanager
    async def place(self, meter: Meter) -> AsyncGenerator[None]:
        """Hold a place for one request during the block.

        Raises:
            LimitReached: a limit is reached.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._wake.set)
            # One at a time, so that the next request sees this one in the meter.
            async with self._locks.setdefault(meter.key.name, asyncio.Lock()):
                self._taking.add(meter.key.name)
                try:
                    has_token = await self._take(meter)
                    stack.enter_context(meter.request(has_token=has_token))
                finally:
                    self._taking.discard(meter.key.name)
            yield

    async def _take(self, meter: Meter) -> bool:
        """Take a place in the database; returns whether a token was taken there, too.

        Raises:
            LimitReached: a limit is reached.
        """
        key, here = meter.key, meter.here
        is_away = time.monotonic() < self._away_until
        if self.store is None or is_away or not _is_limited(key):
            return False
        own = KeyUse(here.day, here.n_bytes, here.audio_seconds, here.n_open + 1)

        def check(elsewhere: KeyUse, tokens: float) -> None:
            meter.elsewhere = elsewhere
            meter.check_place()
            if key.requests_per_minute is not None:
                check_tokens(tokens, key.requests_per_minute)

        # Also if we never learn that it was written: then the next exchange corrects it.
        self._written[key.name] = own
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                tokens = await self.store.take(key.name, key.requests_per_minute, own, check)
        except (StoreUnavailable, TimeoutError) as error:
            self._away_until = time.monotonic() + RETRY_SECONDS
            logger.warning("the limits of keys are counted by this server alone: %s", error)
            return False
        meter.set_tokens(tokens)
        return True

    async def run(self) -> None:
        """Exchange counts with the other servers until cancelled. Then close our places."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SYNC_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
                await self.exchange()
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await self.exchange()

    async def exchange(self) -> None:
        """Write what has changed here, and read what the others count."""
        if self.store is None:
            return
        own = {name: meter.here for name, meter in self._meters.items() if _is_limited(meter.key)}
        # Open requests are written each time, because the others forget them after a while.
        changed = {
            name: use for name, use in own.items() if use.n_open or use != self._written.get(name)
        }
        meters = {name: self._meters[name] for name in changed}

        def n_open(name: str) -> int:
            # A request that takes its place counts already, lest we write over what it wrote.
            n_open = meters[name].n_open + (name in self._taking)
            changed[name] = replace(changed[name], n_open=n_open)
            return n_open

        try:
            now, self._elsewhere = await self.store.exchange(changed, n_open)
        except StoreUnavailable:
            return
        self._clock.set_to(now)
        self._written |= changed
        for name, meter in self._meters.items():
            meter.elsewhere = self._elsewhere.get(name, KeyUse())
            if name in meters and meter.n_open != changed[name].n_open:
                self._wake.set()


def _is_limited(key: Key) -> bool:
    limits: tuple[Any, ...] = (
        key.requests_per_minute,
        key.concurrency,
        key.bytes_per_day,
        key.audio_hours_per_day,
    )
    return any(limit is not None for limit in limits)
