"""Shares the event loop between connections that have much to parse and everything else.

Some bytes are costly: 4 KB can hold 200 requests or 680 WebSocket frames. Connections do such work
in small pieces, in turn. All of them together get `SLICE_SECONDS` per round of the event loop.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.server import ServerState

SLICE_SECONDS: Final = 0.002

_slices: weakref.WeakKeyDictionary[ServerState, Slices] = weakref.WeakKeyDictionary()


def slices_of(server: ServerState, loop: asyncio.AbstractEventLoop) -> Slices:
    """The slices of a server, shared by all its connections."""
    return _slices.setdefault(server, Slices(loop))


class Slices:
    """Runs pieces of work in turn.

    Args:
        loop: the event loop of the server.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Callable[[], bool], Callable[[], None]]] = deque()
        self._is_scheduled = False
        self._until = 0.0

    def add(self, work: Callable[[], bool], give_up: Callable[[], None]) -> None:
        """Call `work` soon, and then again as long as it returns true.

        If it raises, `give_up` is called, and the event loop's handler of exceptions logs it.
        """
        self._waiting.append((work, give_up))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def end(self) -> None:
        """End this round, because a piece has started a task that costs more than a slice."""
        self._until = 0.0

    def _run(self) -> None:
        self._until = time.monotonic() + SLICE_SECONDS
        try:
            while self._waiting and time.monotonic() < self._until:
                work, give_up = self._waiting.popleft()
                try:
                    if work():
                        self._waiting.append((work, give_up))
                except BaseException:
                    give_up()
                    raise
        finally:  # if a piece of work fails, the others go on
            self._is_scheduled = bool(self._waiting)
            if self._is_scheduled:
                self._loop.call_soon(self._run)
