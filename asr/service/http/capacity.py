"""How many connections the API process holds, so that descriptors remain for its own work.

Each connection takes a descriptor, and a client needs no key to open one. Files, the database and
the queue need descriptors, too. So connections get only a part of them. When that part is used up,
idle connections are closed, the longest idle first. If none is idle, new connections are refused.
"""

from __future__ import annotations

import functools
import resource
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LIMIT: Final = 1 << 16
"""The limit on descriptors is raised to at most this number."""
MIN_RESERVE: Final = 256
"""Descriptors for the service's own work. It has about 40 open when idle, and each of its 80 or so
requests at once needs up to two."""
RESERVED_SHARE: Final = 4
"""One in this many descriptors is reserved, if that is more."""
MIN_CONNECTIONS: Final = 16
CLOSED_SHARE: Final = 50
"""One in this many idle connections is closed at once, because the search for them takes time."""
REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"content-length: 0\r\nretry-after: 5\r\nx-should-retry: true\r\nconnection: close\r\n\r\n"
)


def raise_limit() -> None:
    """Raise this process's limit on descriptors as far as allowed, up to `MAX_LIMIT`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_LIMIT if hard == resource.RLIM_INFINITY else min(hard, MAX_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@functools.cache
def reserve() -> int:
    """Descriptors that connections do not get."""
    return max(_limit() // RESERVED_SHARE, MIN_RESERVE)


@functools.cache
def max_connections() -> int:
    """Connections at once."""
    return max(_limit() - reserve(), MIN_CONNECTIONS)


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_LIMIT if soft == resource.RLIM_INFINITY else soft


def backlog() -> int:
    """Connections that the kernel accepts before the process does. It takes all of them at once."""
    return min(2048, reserve() // 2)


def make_room(connections: Iterable[Any]) -> bool:
    """Close the longest idle connections if there are too many.

    Args:
        connections: all of this process. Those with an `idle_deadline` that is not None are idle.

    Returns:
        Whether there is room for the newest one.
    """
    every = list(connections)
    if len(every) <= max_connections():
        return True
    idle = [(deadline, n) for n, it in enumerate(every) if (deadline := _deadline(it)) is not None]
    for _, number in sorted(idle)[: 1 + len(every) // CLOSED_SHARE]:
        every[number].transport.close()
    return bool(idle)


def _deadline(connection: Any) -> float | None:
    transport = getattr(connection, "transport", None)
    if transport is None or transport.is_closing():
        return None
    found: float | None = getattr(connection, "idle_deadline", None)
    return found
