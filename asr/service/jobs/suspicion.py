"""Whether a chunk that fails again and again is at fault, or the server.

A chunk is at fault when it fails `MAX_FAILURES` times in a row while the rest of the service works.
The rest of the service works if another chunk succeeded during the attempt. If there was no other
chunk, a control is recognised: noise, by the same engine.

When the worker process itself dies, all recordings in it are suspects. A recording is cleared when
the worker also dies without it, because then something else kills the worker. There is no control
for the death of the worker, because the worker is gone when the control could run.

The memory of a `Suspicions` is that of one API process. The number of failures is in the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asr.errors import WorkerLost
from asr.service.faults import chunk_of

if TYPE_CHECKING:
    from asr.service.litserve.client import WorkerClient

MAX_FAILURES: Final = 5
"""A chunk that fails this often, while others succeed, is at fault."""


class Suspicions:
    """Counts the failures of a job that only its recording can explain.

    Args:
        client: knows what else succeeds.
    """

    def __init__(self, client: WorkerClient) -> None:
        self._client = client
        self._last: dict[str, tuple[int | None, int]] = {}  # by job: chunk, number of the worker

    def n_succeeded(self) -> int:
        """Chunks that have succeeded in this API process until now."""
        return self._client.n_succeeded

    def forget(self, job: str) -> None:
        """Forget a job that has ended."""
        self._last.pop(job, None)

    async def count(self, job: str, error: Exception, n_before: int, n_succeeded: int) -> int:
        """Return how often the job has failed now, for reasons that must lie in its recording.

        Args:
            job: its id.
            error: why the attempt ended.
            n_before: the number that was returned before; 0 if a chunk succeeded since.
            n_succeeded: the method of this name, when the attempt started.
        """
        chunk, worker = chunk_of(error), self._client.worker
        last_chunk, last_worker = self._last.get(job, (chunk, worker))
        self._last[job] = chunk, worker
        is_worker_lost = isinstance(error, WorkerLost)
        if is_worker_lost and worker > last_worker + 1:
            return 0  # a worker died in which this recording was not
        if chunk != last_chunk:
            n_before = 0
        others_succeed = self._client.n_succeeded > n_succeeded
        if not others_succeed and not is_worker_lost:
            others_succeed = await self._client.control()
        return n_before + others_succeed
