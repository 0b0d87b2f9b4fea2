"""Threads for blocking work, shared fairly among owners."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from asr.service.files import finished

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

P = ParamSpec("P")
T = TypeVar("T")


class FairPlaces:
    """Places for work, of which each owner may use only some at once.

    Further work of an owner waits in this owner's own queue, so it does not delay other owners.

    Args:
        n_per_owner: places of one owner.
    """

    def __init__(self, n_per_owner: int) -> None:
        self._n_per_owner = n_per_owner
        self._places: dict[str, asyncio.Semaphore] = {}
        self._n_users: dict[str, int] = {}

    def __len__(self) -> int:
        """How many owners hold a place or wait for one."""
        return len(self._places)

    @contextlib.asynccontextmanager
    async def place(self, owner: str) -> AsyncGenerator[None]:
        """Wait for a place, and hold it in this block."""
        places = self._places.setdefault(owner, asyncio.Semaphore(self._n_per_owner))
        self._n_users[owner] = self._n_users.get(owner, 0) + 1
        try:
            async with places:
                yield
        finally:
            self._n_users[owner] -= 1
            if not self._n_users[owner]:
                del self._n_users[owner], self._places[owner]


class FairThreads:
    """A pool of threads in which each owner may use only some at once; see `FairPlaces`.

    Args:
        name: of the threads.
        n_threads: in total.
        n_per_owner: of one owner.
    """

    def __init__(self, name: str, n_threads: int, n_per_owner: int) -> None:
        self._pool = ThreadPoolExecutor(n_threads, name)
        self._places = FairPlaces(n_per_owner)

    async def run(self, owner: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread, and wait until it ends, even if the caller is cancelled."""
        async with self._places.place(owner):
            loop = asyncio.get_running_loop()
            return await finished(loop.run_in_executor(self._pool, partial(work, *args, **kwargs)))
