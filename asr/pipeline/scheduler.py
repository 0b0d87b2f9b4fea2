"""Who may use the engine next: a fixed number of slots, shared fairly by keys and by jobs.

With a plain semaphore, which is first come first served, a ten-hour recording that has a hundred
chunks waiting keeps a ten-second one waiting for a hundred grants. Here a slot that becomes free
goes to the share (a key of the service) whose turn it is, within it to the job whose turn it is,
and within that to the chunk that has waited longest.

The turns of shares are deficit round robin (Shreedhar and Varghese, 1995): each may use as much of
the engine as its weight says, so long chunks count for more than short ones. Jobs take a chunk
each. What comes anew goes first and what stays is served in the order of the rounds, as in
FQ-CoDel (RFC 8290): a short recording is answered at once, and no share gains by coming and going.
Of what comes anew, the shortest chunk goes first: where ten long recordings arrive together with a
short one, all are new, and only their chunks tell which of them can be done soon.
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
    """Whose work it is, and how much of the engine that may use beside others."""

    name: Hashable = None
    weight: float = 1.0


NOBODY = Share()
QUANTUM = 0.1
"""Small beside the cost of a long chunk: shares then alternate instead of coming in bursts."""


@dataclass(slots=True)
class _Turn:
    """A chunk that waits; `cost` is 1 for the longest."""

    granted: asyncio.Future[None]
    cost: float


class _Waiting(Protocol):
    """What waits in a flow."""

    def due(self) -> _Turn | None: ...

    def pop(self) -> _Turn: ...


W = TypeVar("W", bound=_Waiting)


class _Queue:
    """Chunks of one job, first come first served."""

    def __init__(self) -> None:
        self.turns: deque[_Turn] = deque()

    def due(self) -> _Turn | None:
        while self.turns and self.turns[0].granted.done():  # cancelled while it waited
            self.turns.popleft()
        return self.turns[0] if self.turns else None

    def pop(self) -> _Turn:
        return self.turns.popleft()


class _Flow(Generic[W]):
    """A share or a job, with what waits in it and what it may still use in this round."""

    def __init__(self, key: Hashable, waiting: W) -> None:
        self.key = key
        self.waiting = waiting
        self.weight = 1.0
        self.credit = 0.0


class _Rounds(Generic[W]):
    """Flows that take turns.

    Args:
        make: makes what waits in a flow that comes anew.
        quantum: what a flow of weight 1 may use in a round, or None for one chunk of any length.
    """

    def __init__(self, make: Callable[[], W], quantum: float | None = None) -> None:
        self._make = make
        self._quantum = quantum
        self._flows: dict[Hashable, _Flow[W]] = {}
        self._new: list[_Flow[W]] = []
        self._old: deque[_Flow[W]] = deque()

    def at(self, key: Hashable, weight: float = 1.0) -> W:
        """What waits in the flow of a key."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(key, self._make())
            flow.credit = (self._quantum or 1.0) * weight
            self._new.append(flow)
        flow.weight = weight
        return flow.waiting

    def due(self) -> _Turn | None:
        """The turn that comes next."""
        flow = self._due()
        return None if flow is None else flow.waiting.due()

    def pop(self) -> _Turn:
        """Take the turn that is due; there must be one."""
        flow = self._due()
        if flow is None:
            raise IndexError("nothing waits")
        turn = flow.waiting.pop()
        flow.credit -= 1.0 if self._quantum is None else turn.cost
        return turn

    def _due(self) -> _Flow[W] | None:
        """The flow whose turn it is; those that used up their credit go behind the others."""
        for flow in [flow for flow in self._new if not _may_go(flow)]:
            self._new.remove(flow)
            self._step_back(flow, is_new=True)
        if self._new:
            return min(self._new, key=_cost)  # the first of equals
        while self._old:
            if _may_go(self._old[0]):
                return self._old[0]
            self._step_back(self._old.popleft(), is_new=False)
        return None

    def _step_back(self, flow: _Flow[W], *, is_new: bool) -> None:
        """Put a flow behind the others, or forget it."""
        if flow.waiting.due() is not None:
            flow.credit += (self._quantum or 1.0) * flow.weight
            self._old.append(flow)
        elif is_new and (self._new or self._old):
            self._old.append(flow)  # else it could leave, come anew and be first for ever
        else:
            del self._flows[flow.key]


def _may_go(flow: _Flow[W]) -> bool:
    return flow.credit > 0 and flow.waiting.due() is not None


def _cost(flow: _Flow[W]) -> float:
    turn = flow.waiting.due()
    return 0.0 if turn is None else turn.cost


def _jobs() -> _Rounds[_Queue]:
    return _Rounds(_Queue)


class FairSlots:
    """`n_slots` slots that shares, and within them jobs, take in turns. Belongs to one event loop.

    Attributes:
        n_free: slots that nobody holds; while there are any, nobody waits.
        n_waiting: how many wait for a slot.
    """

    def __init__(self, n_slots: int) -> None:
        if n_slots < 1:
            raise ValueError(f"{n_slots} slots are none")
        self.n_free = n_slots
        self.n_waiting = 0
        self._shares: _Rounds[_Rounds[_Queue]] = _Rounds(_jobs, QUANTUM)

    @contextlib.asynccontextmanager
    async def slot(
        self, job: Hashable, share: Share = NOBODY, cost: float = 1.0
    ) -> AsyncGenerator[None]:
        """Hold a slot.

        Args:
            job: takes turns with the other jobs of its share.
            share: takes turns with the others, by its weight.
            cost: of the work, 1 at the most: chunks of half the length count for half.
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
            else:  # it was granted in the same moment and nobody will use it
                self._release()
            raise

    def _release(self) -> None:
        """Hand a slot to whose turn it is, or keep it free."""
        if self._shares.due() is None:
            self.n_free += 1
            return
        self._shares.pop().granted.set_result(None)
        self.n_waiting -= 1
