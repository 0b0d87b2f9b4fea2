"""Who may use the engine next: a fixed number of slots, granted fairly between jobs.

With a plain semaphore, which is first come first served, a ten-hour recording that has a hundred
chunks waiting keeps a ten-second one waiting for a hundred grants. Here the jobs take turns: a
slot that becomes free goes to the job whose turn is longest due, and within a job to the chunk
that has waited longest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Hashable


class FairSlots:
    """`n_slots` slots that jobs take in turns. Belongs to one event loop.

    Attributes:
        n_free: slots that nobody holds; while there are any, nobody waits.
    """

    def __init__(self, n_slots: int) -> None:
        if n_slots < 1:
            raise ValueError(f"{n_slots} slots are none")
        self.n_free = n_slots
        # In the order of their turns; a job is in it while one of its chunks waits.
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    @property
    def n_waiting(self) -> int:
        """How many wait for a slot."""
        return sum(len(queue) for queue in self._waiting.values())

    @contextlib.asynccontextmanager
    async def slot(self, job: Hashable) -> AsyncGenerator[None]:
        """Hold a slot on behalf of `job`, which takes turns with the others."""
        await self._acquire(job)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, job: Hashable) -> None:
        if self.n_free:
            self.n_free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(job, turn)
            else:  # it was granted in the same moment and nobody will use it
                self._release()
            raise

    def _forget(self, job: Hashable, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(job)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[job]

    def _release(self) -> None:
        """Hand a slot to whose turn it is, or keep it free."""
        while self._waiting:
            job = next(iter(self._waiting))
            queue = self._waiting.pop(job)
            turn = queue.popleft()
            if queue:
                self._waiting[job] = queue  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self.n_free += 1
