"""Limits how many requests are in progress and how many wait. Others are told to retry later."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from asr.service.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


class Admission:
    """Counts requests from their first byte to their last.

    Args:
        max_active: the most requests in progress.
        max_waiting: the most requests that upload or wait for a turn.
    """

    def __init__(self, max_active: int, max_waiting: int) -> None:
        self._places = max_active + max_waiting
        self._n_open = self._n_active = 0
        self._turns = asyncio.Semaphore(max_active)
        self._mean_seconds = 5.0

    @contextlib.contextmanager
    def place(self) -> Generator[None]:
        """Hold a place during the block. Take it before reading the body.

        Raises:
            LimitReached: all places are taken.
        """
        if self._places <= 0:
            wait = max(1, round(self._mean_seconds))
            message = "too many requests are in progress"
            raise LimitReached(message, "too_many_requests", retry_after=wait)
        self._places -= 1
        self._n_open += 1
        try:
            yield
        finally:
            self._places += 1
            self._n_open -= 1

    def counts(self) -> dict[str, float]:
        """Recordings by state: active, or waiting, which includes those that upload."""
        return {"active": self._n_active, "waiting": self._n_open - self._n_active}

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, and hold it during the block."""
        loop = asyncio.get_running_loop()
        async with self._turns:
            started = loop.time()
            self._n_active += 1
            try:
                yield
            finally:
                self._n_active -= 1
                # A moving mean of the length of a turn, for Retry-After.
                self._mean_seconds += 0.2 * (loop.time() - started - self._mean_seconds)
