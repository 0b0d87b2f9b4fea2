"""Many HTTP requests at once, spread over clients of a few connections each.

For every request the pool of an httpx client compares all its connections with one another: with
256 of them that is most of what a request costs (benchmarks/client.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

REQUESTS_EACH: Final = 8
"""That one client has in flight when all are busy."""


class Connections:
    """Clients for up to `n_requests` at once.

    Args:
        n_requests: the most that are in flight.
        make: a client whose pool sets no bound of its own.
    """

    def __init__(self, n_requests: int, make: Callable[[], httpx.AsyncClient]) -> None:
        self._clients = [make() for _ in range(-(-n_requests // REQUESTS_EACH))]
        self._busy = [0] * len(self._clients)

    async def post(self, url: str, content: bytes, timeout: httpx.Timeout) -> httpx.Response:
        """Send by the client that has the least to do, and read the whole answer."""
        place = self._busy.index(min(self._busy))
        self._busy[place] += 1
        try:
            return await self._clients[place].post(url, content=content, timeout=timeout)
        finally:
            self._busy[place] -= 1

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(client.aclose() for client in self._clients))
