"""Watches the processes of the service, from the main process.

LitServe replaces a worker that dies. It does not notice the death of the API process or of its
manager, and then connections were accepted and never answered. The main process waits for the end
of the service in `ProcessWatch.wait`, so that is where it looks.

- The API process is started again. The main process still has the listening socket, so clients that
  connect meanwhile wait a moment.
- Without the manager, no other process can talk to another, and its queue is lost. So the service
  ends with an error, and systemd or Docker starts it again. Accepted jobs are in the database.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

logger = logging.getLogger(__name__)

WATCH_SECONDS: Final = 0.5
"""How often the processes are checked."""
DRAIN_SECONDS: Final = 1.5
"""Pause before a dead API process is replaced. Its last call for a report ends within a second in
the manager. Until then it could swallow a report to the new process."""
SHORT_LIFE: Final = 5.0
MAX_SHORT_LIVES: Final = 3
"""The service ends after this many API processes in a row that lived for less than SHORT_LIFE
seconds: it cannot start."""
WORKER_SECONDS: Final = 120.0
"""The service ends when there was no worker process for this long. LitServe replaces it within a
second, unless the system refuses to start processes."""


class ProcessLost(Exception):
    """A process died that cannot be replaced."""


class ProcessWatch(threading.Event):
    """The event for which LitServe's main process waits: the end of the service.

    Args:
        manager: the manager process.
        apis: the API processes by their number. Replaced ones are put there.
        workers: returns the worker processes.
        start_api: starts an API process.
    """

    def __init__(
        self,
        manager: BaseProcess,
        apis: dict[int, BaseProcess],
        workers: Callable[[], list[BaseProcess]],
        start_api: Callable[[], BaseProcess],
    ) -> None:
        super().__init__()
        self._manager = manager
        self._apis = apis
        self._workers = workers
        self._start_api = start_api
        self._n_short = 0
        self._api_started = self._worker_seen = time.monotonic()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the service shall end, and replace processes meanwhile.

        Raises:
            ProcessLost: a process died that cannot be replaced.
        """
        if timeout is not None:
            return super().wait(timeout)
        while not super().wait(WATCH_SECONDS):
            self.check()
        return True

    def check(self) -> None:
        """Look at all processes once.

        Raises:
            ProcessLost: a process died that cannot be replaced.
        """
        if not self._manager.is_alive():
            raise ProcessLost("the manager process died")
        if any(worker.is_alive() for worker in self._workers()):
            self._worker_seen = time.monotonic()
        elif time.monotonic() - self._worker_seen > WORKER_SECONDS:
            raise ProcessLost("no recogniser process can be started")
        for number, api in list(self._apis.items()):
            if not api.is_alive():
                self._replace(number, api)

    def _replace(self, number: int, api: BaseProcess) -> None:
        lived = time.monotonic() - self._api_started
        self._n_short = self._n_short + 1 if lived < SHORT_LIFE else 0
        if self._n_short >= MAX_SHORT_LIVES:
            raise ProcessLost(f"the API process ends again and again, last with {api.exitcode}")
        logger.error("the API process died (%s) and is started again", api.exitcode)
        if not super().wait(DRAIN_SECONDS):
            self._apis[number] = self._start_api()
            self._api_started = time.monotonic()
