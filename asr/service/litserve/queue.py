"""The queue of commands to the worker. A command survives the death of a worker.

LitServe uses a `queue.Queue` in its manager process, where a thread waits in `get()` on behalf of
the worker. LitServe 0.2.19 calls ``get(1.0)``, which means ``block=1.0`` and no timeout, so the
thread outlives a worker that dies. It takes the next command and has no worker to give it to: the
first request after the death of a worker was never answered.

Our queue keeps a command until the worker asks for the next one, which proves that the worker
received it. When a worker dies without that proof, its replacement gets the command. A worker that
was replaced gets no more commands.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from queue import Empty
from typing import Any, Final

MAX_HANDED: Final = 2
"""A command is handed out at most this many times, because the command may kill its workers."""


class CommandQueue:
    """Commands in order, for one worker after another. Lives in the manager process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Any, int]] = deque()  # with the number of times handed out
        self._handed: tuple[Any, int] | None = None
        self._worker = 0

    def put(self, command: Any) -> None:
        """Append a command."""
        with self._changed:
            self._waiting.append((command, 0))
            self._changed.notify_all()

    def get(self, worker: int, timeout: float) -> Any:
        """Hand out the next command. The call proves that the worker received the previous one.

        Args:
            worker: the number of the worker that asks.
            timeout: seconds to wait for a command.

        Raises:
            Empty: no command came, or the worker was replaced.
        """
        with self._changed:
            if worker == self._worker:
                self._handed = None
            self._changed.wait_for(lambda: self._waiting or worker != self._worker, timeout)
            if worker != self._worker or not self._waiting:
                raise Empty
            command, n_handed = self._waiting.popleft()
            self._handed = command, n_handed + 1
            return command

    def renew(self) -> int:
        """Replace the worker, which died, and return the number of the next one."""
        with self._changed:
            self._worker += 1
            if self._handed is not None and self._handed[1] < MAX_HANDED:
                self._waiting.appendleft(self._handed)
            self._handed = None
            self._changed.notify_all()
            return self._worker


@dataclass(frozen=True, slots=True)
class Commands:
    """A `CommandQueue` with the interface of LitServe's request queue, for one worker.

    Attributes:
        queue: the queue, usually the manager's proxy for it.
        worker: the number of the worker, for `get`.
    """

    queue: CommandQueue
    worker: int = 0

    def put(self, command: Any) -> None:
        """Append a command."""
        self.queue.put(command)

    def get(self, timeout: float) -> Any:
        """Wait up to `timeout` seconds for the next command.

        Raises:
            Empty: no command came.
        """
        return self.queue.get(self.worker, timeout)

    def renewed(self) -> Commands:
        """The same queue for the worker that replaces a dead one."""
        return Commands(self.queue, self.queue.renew())


def register() -> None:
    """Let managers that start from now on create a `CommandQueue`."""
    SyncManager.register("CommandQueue", CommandQueue, exposed=("put", "get", "renew"))
