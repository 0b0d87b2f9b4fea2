"""Who may use the engine next: a fixed number of slots, shared fairly by keys and by jobs.

A plain semaphore serves the oldest chunk first. A ten-hour recording that has a hundred chunks
waiting would then keep a ten-second one waiting for a hundred grants. Here a slot that becomes
free goes to one share (a key of the service), within the share to one job, and within the job to
the chunk that has waited longest.

The choice is start-time fair queueing (Goyal, Vin and Cheng, 1996). Each share has a virtual time:
what it has used of the engine, divided by its weight. The share with the smallest virtual time is
served next, so each uses the engine in proportion to its weight and long chunks count for more than
short ones. The jobs of a share are chosen in the same way, but every chunk counts as 1.

A share or job that begins to wait starts at the virtual time of the last grant. No waiting share or
job has a smaller virtual time, so a short recording is answered at once. A share or job that leaves
and returns keeps its virtual time, so leaving gains nothing. Among several new shares or jobs, the
shortest chunk goes first. When ten long recordings arrive together with a short one, only the
lengths of the chunks show which recording can be finished soon.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable


@dataclass(frozen=True, slots=True)
class Share:
    """An owner of work. Its weight sets how much of the engine it gets, relative to the others."""

    name: Hashable = None
    weight: float = 1.0


NOBODY = Share()


@dataclass(slots=True)
class _Turn:
    """A chunk that waits; the longest possible chunk has cost 1."""

    granted: asyncio.Future[None]
    cost: float


class _Waiting(Protocol):
    """The chunks that wait in one share or job."""

    def due(self) -> _Turn | None: ...

    def pop(self) -> _Turn: ...


W = TypeVar("W", bound=_Waiting)


class _Queue:
    """The waiting chunks of one job, first come first served."""

    def __init__(self) -> None:
        self.turns: deque[_Turn] = deque()

    def due(self) -> _Turn | None:
        while self.turns and self.turns[0].granted.done():  # cancelled while it waited
            self.turns.popleft()
        return self.turns[0] if self.turns else None

    def pop(self) -> _Turn:
        return self.turns.popleft()


@dataclass(slots=True)
class _Flow(Generic[W]):
    """A share or a job; `start` is the virtual time at which its next chunk starts."""

    waiting: W
    start: float
    weight: float = 1.0
    last_grant: int = -1  # never served

    def rank(self) -> tuple[float, int, float]:
        """Smallest first: virtual time, then longest without a grant, then the shorter chunk."""
        turn = self.waiting.due()
        return self.start, self.last_grant, 0.0 if turn is None else turn.cost


class _FairQueue(Generic[W]):
    """Shares, or the jobs of one share, that take turns.

    Args:
        make: makes the empty queue of a new flow.
        by_cost: count the cost of a chunk; otherwise each chunk counts as 1.
    """

    def __init__(self, make: Callable[[], W], *, by_cost: bool) -> None:
        self._make = make
        self._by_cost = by_cost
        self._flows: dict[Hashable, _Flow[W]] = {}
        self._now = 0.0  # virtual time of the last grant
        self._n_grants = 0

    def at(self, key: Hashable, weight: float = 1.0) -> W:
        """The queue of a key."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(self._make(), self._now)
        flow.weight = weight
        return flow.waiting

    def due(self) -> _Turn | None:
        """The turn that comes next."""
        flow = self._next()
        return None if flow is None else flow.waiting.due()

    def pop(self) -> _Turn:
        """Take the turn that is due; there must be one."""
        flow = self._next()
        if flow is None:
            raise IndexError("nothing waits")
        turn = flow.waiting.pop()
        self._now = flow.start
        flow.start += (turn.cost if self._by_cost else 1.0) / flow.weight
        flow.last_grant = self._n_grants
        self._n_grants += 1
        return turn

    def _next(self) -> _Flow[W] | None:
        """The flow to serve next. Forgets idle flows that the others have caught up with."""
        waiting = [flow for flow in self._flows.values() if flow.waiting.due() is not None]
        self._flows = {
            key: flow
            for key, flow in self._flows.items()
            if waiting and (flow.start > self._now or flow.waiting.due() is not None)
        }
        return min(waiting, key=_Flow.rank, default=None)


def _jobs() -> _FairQueue[_Queue]:
    return _FairQueue(_Queue, by_cost=False)


class FairSlots:
    """Slots that shares, and within them jobs, take in turns. Use it in one event loop only.

    Attributes:
        n_free: free slots; while there are any, nothing waits.
        n_waiting: chunks that wait for a slot.
    """

    def __init__(self, n_slots: int) -> None:
        if n_slots < 1:
            raise ValueError(f"at least 1 slot is needed, not {n_slots}")
        self.n_free = n_slots
        self.n_waiting = 0
        self._shares: _FairQueue[_FairQueue[_Queue]] = _FairQueue(_jobs, by_cost=True)

    @contextlib.asynccontextmanager
    async def slot(
        self, job: Hashable, share: Share = NOBODY, cost: float = 1.0
    ) -> AsyncGenerator[None]:
        """Hold a slot.

        Args:
            job: takes turns with the other jobs of its share.
            share: takes turns with the other shares, by its weight.
            cost: of the chunk: its length as a fraction of the longest, at most 1.
        """
        await self._acquire(job, share, cost)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, job: Hashable, share: Share, cost: float) -> None:
        if self.n_free:
            self.n_free -= 1
            return
        turn = _Turn(asyncio.get_running_loop().create_future(), cost)
        self._shares.at(share.name, share.weight).at(job).turns.append(turn)
        self.n_waiting += 1
        try:
            await turn.granted
        except asyncio.CancelledError:
            if turn.granted.cancelled():
                self.n_waiting -= 1
            else:  # granted at the same moment: free the slot that nobody will use
                self._release()
            raise

    def _release(self) -> None:
        """Grant the slot to the turn that is due, or keep it free."""
        if self._shares.due() is None:
            self.n_free += 1
            return
        self._shares.pop().granted.set_result(None)
        self.n_waiting -= 1
