"""Limits how many requests are in progress and how many wait. Others are told to retry later.

Both limits are fair among owners. An owner with few requests gets a place although the requests of
others have taken all. The next turn goes to the owner with the fewest requests in progress.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.service.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


RESERVED_SHARE: Final = 20
"""When all places are taken, each owner may still have one in this many."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    owner: str
    turn: asyncio.Future[None]


class Admission:
    """Counts requests from their first byte to their last.

    Args:
        max_active: the most requests in progress.
        max_waiting: the most requests that upload or wait for a turn.
    """

    def __init__(self, max_active: int, max_waiting: int) -> None:
        self._max_active = max_active
        self._max_open = max_active + max_waiting
        self._open: Counter[str] = Counter()  # by owner
        self._active: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []  # in the order of their arrival
        self._mean_seconds = 5.0

    @contextlib.contextmanager
    def place(self, owner: str = "") -> Generator[None]:
        """Hold a place during the block. Take it before reading the body.

        Raises:
            LimitReached: all places are taken, and the owner has more than a few of them.
        """
        is_full = self._open.total() >= self._max_open
        if is_full and self._open[owner] >= self._max_open // RESERVED_SHARE:
            wait = max(1, round(self._mean_seconds))
            message = "too many requests are in progress"
            raise LimitReached(message, "too_many_requests", retry_after=wait)
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open -= Counter([owner])  # drops an owner without requests

    def counts(self) -> dict[str, float]:
        """Recordings by state: active, or waiting, which includes those that upload."""
        n_active = self._active.total()
        return {"active": n_active, "waiting": self._open.total() - n_active}

    @contextlib.asynccontextmanager
    async def turn(self, owner: str = "") -> AsyncGenerator[None]:
        """Wait for a turn, and hold it during the block."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(owner, loop.create_future())
        self._waiting.append(waiting)
        self._share_out()
        try:
            await waiting.turn
            started = loop.time()
            try:
                yield
            finally:
                # A moving mean of the length of a turn, for Retry-After.
                self._mean_seconds += 0.2 * (loop.time() - started - self._mean_seconds)
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self._active -= Counter([owner])
                self._share_out()

    def _share_out(self) -> None:
        while self._waiting and self._active.total() < self._max_active:
            following = min(self._waiting, key=lambda it: self._active[it.owner])
            self._waiting.remove(following)
            self._active[following.owner] += 1
            if not following.turn.cancelled():
                following.turn.set_result(None)
