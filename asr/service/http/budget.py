"""One budget of memory for the large messages of all WebSockets.

Each connection may hold `FREE_BYTES` of a message without asking. For more it needs one of
`N_PLACES` places, which it holds until its message has been processed. While it waits for a place,
the server does not read from it. Places go to the API key that holds the fewest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

FREE_BYTES: Final = 1 << 20
"""16 s of audio at 24 kHz. Clients that send live audio stay far below this."""
N_PLACES: Final = 2
HOLD_SECONDS: Final = 20.0
"""A large message must arrive within this time while others wait for a place."""


class Claimant(Protocol):
    """A connection that needs a place."""

    @property
    def owner(self) -> str:
        """The name of its API key."""
        ...

    @property
    def is_arriving(self) -> bool:
        """Whether the server still waits for bytes of its message."""
        ...

    def grant(self) -> None:
        """Called when it gets the place."""
        ...

    def evict(self) -> None:
        """Called when it loses the place, because its message arrives too slowly."""
        ...


class Budget:
    """The places of one server.

    Args:
        loop: the event loop of the connections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Claimant, None] = {}  # in the order of their arrival
        self._holding: dict[Claimant, float] = {}  # with the time of the grant
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, claimant: Claimant) -> None:
        """Ask for a place, which may be granted at once. Asking again has no effect."""
        if claimant not in self._holding:
            self._waiting.setdefault(claimant)
            self._share_out()

    def leave(self, claimant: Claimant) -> None:
        """Give a place back, or stop waiting for one."""
        self._waiting.pop(claimant, None)
        if self._holding.pop(claimant, None) is not None:
            self._share_out()

    def holds(self, claimant: Claimant) -> bool:
        """Whether the connection has a place."""
        return claimant in self._holding

    def _share_out(self) -> None:
        while self._waiting and len(self._holding) < N_PLACES:
            claimant = min(self._waiting, key=self._n_held)
            del self._waiting[claimant]
            self._holding[claimant] = time.monotonic()
            self._loop.call_soon(claimant.grant)
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(HOLD_SECONDS / 4, self._evict_slow)

    def _n_held(self, claimant: Claimant) -> int:
        return sum(holder.owner == claimant.owner for holder in self._holding)

    def _evict_slow(self) -> None:
        self._timer = None
        latest = time.monotonic() - HOLD_SECONDS
        slow = [one for one, since in self._holding.items() if since < latest and one.is_arriving]
        for claimant in slow if self._waiting else ():
            claimant.evict()
            self.leave(claimant)
        self._share_out()
