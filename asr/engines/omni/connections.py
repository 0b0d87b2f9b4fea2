"""Spread many concurrent HTTP requests over several httpx clients.

httpcore's pool scans all its connections whenever a request is added or removed. With hundreds of
requests in flight, these scans cost more CPU time than the rest of the request. Each client here
has its own small pool.

Measured with httpx 0.28.1 and httpcore 1.0.9 on two cores that other work kept busy, medians of
three alternating runs of `python -m benchmarks.client --slots 64 256 512 --delay 1`. "One client"
is this class with `REQUESTS_PER_CLIENT` above the number of slots:

    in flight   CPU ms per chunk             chunks/s
                one client   spread          one client   spread
    64          5.0          4.6             48           49
    256         10.6         4.7             60           121
    512         12.5         4.8             65           113
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

REQUESTS_PER_CLIENT: Final = 8
"""Requests that each client has in flight when all slots are in use."""


class Connections:
    """Clients that together serve up to `n_requests` at once.

    Args:
        n_requests: the largest number of requests in flight.
        make_client: returns a client whose pool has no limit of its own.
    """

    def __init__(self, n_requests: int, make_client: Callable[[], httpx.AsyncClient]) -> None:
        n_clients = -(-n_requests // REQUESTS_PER_CLIENT)
        self._clients = [make_client() for _ in range(n_clients)]
        self._in_flight = [0] * n_clients

    async def post(self, url: str, content: bytes, timeout: httpx.Timeout) -> httpx.Response:
        """Send with the client that has the fewest requests in flight; read the whole response."""
        index = self._in_flight.index(min(self._in_flight))
        self._in_flight[index] += 1
        try:
            return await self._clients[index].post(url, content=content, timeout=timeout)
        finally:
            self._in_flight[index] -= 1

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(client.aclose() for client in self._clients))
