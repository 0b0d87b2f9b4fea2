"""The queue of commands to the worker, which loses none when the worker dies.

LitServe's own is a `queue.Queue` in its manager process, where a thread waits in `get()` for the
worker. It outlives the worker (LitServe 0.2.19 asks with ``get(1.0)``, which is ``block=1.0`` and
no timeout), takes the next command, and has nobody to give it to: the request that came first after
the death of a worker was never answered.

Here a command that was handed out is kept until the worker asks for another, which proves that it
has it. What a dead worker did not prove to have goes to the next one, and a worker that was
replaced gets no more.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from queue import Empty
from typing import Any, Final, Protocol

MAX_HANDED: Final = 2
"""A command that was handed out so often may be what kills the workers."""


class CommandQueue:
    """Commands in their order, for one worker after another. Lives in the manager process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Any, int]] = deque()  # and how often it was handed out
        self._handed: tuple[Any, int] | None = None
        self._worker = 0

    def put(self, command: Any) -> None:
        """Append a command."""
        with self._changed:
            self._waiting.append((command, 0))
            self._changed.notify_all()

    def get(self, worker: int, patience: float) -> Any:
        """Hand out the next command; the one before it was received.

        Args:
            worker: who asks.
            patience: seconds to wait for a command.

        Raises:
            Empty: none came, or the worker was replaced.
        """
        with self._changed:
            if worker == self._worker:
                self._handed = None
            self._changed.wait_for(lambda: self._waiting or worker != self._worker, patience)
            if worker != self._worker or not self._waiting:
                raise Empty
            command, n_handed = self._waiting.popleft()
            self._handed = command, n_handed + 1
            return command

    def renew(self) -> int:
        """The number of the next worker; the one before it is dead."""
        with self._changed:
            self._worker += 1
            if self._handed is not None and self._handed[1] < MAX_HANDED:
                self._waiting.appendleft(self._handed)
            self._handed = None
            self._changed.notify_all()
            return self._worker


class _Shared(Protocol):
    """A `CommandQueue` in another process."""

    def put(self, command: Any) -> None: ...

    def get(self, worker: int, patience: float) -> Any: ...

    def renew(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Commands:
    """What LitServe takes for its request queue: both ends, of which the worker has but one.

    Attributes:
        queue: in the manager process.
        worker: whose end this is.
    """

    queue: _Shared
    worker: int = 0

    def put(self, command: Any) -> None:
        """Append a command."""
        self.queue.put(command)

    def get(self, patience: float) -> Any:
        """The next command.

        Raises:
            Empty: none came within `patience` seconds.
        """
        return self.queue.get(self.worker, patience)

    def renewed(self) -> Commands:
        """The same commands for the worker after one that died."""
        return Commands(self.queue, self.queue.renew())


def register() -> None:
    """Let managers that start from now on make `CommandQueue`."""
    SyncManager.register("CommandQueue", CommandQueue, exposed=("put", "get", "renew"))
