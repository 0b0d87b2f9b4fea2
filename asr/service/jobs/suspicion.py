"""Whether chunks that fail again and again are at fault, or the server.

A chunk is at fault when it fails in `MAX_FAILURES` attempts while the rest of the service works.
The rest of the service works if another chunk succeeded during the attempt. If there was no other
chunk, a control is recognised: noise, by the same engine. Each chunk of each channel has its own
count, because several may be at fault.

When the worker process itself dies, all recordings in it are suspects. A recording is cleared when
the worker also dies without it, because then something else kills the worker. There is no control
for the death of the worker, because the worker is gone when the control could run. A new chunk
clears the recording.

The memory of a `Suspicions` is that of one API process. The number of failures is in the database.
After a restart, it counts for the chunk that fails first.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from asr.errors import WorkerLost
from asr.service.faults import place_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from asr.service.faults import Place
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
        self._worker: dict[str, int] = {}  # by job: the number of the worker at its last failure
        self._counts: dict[str, Counter[Place | None]] = {}  # by job: the failures of each chunk

    def n_succeeded(self) -> int:
        """Chunks that have succeeded in this API process until now."""
        return self._client.n_succeeded

    def forget(self, job: str) -> None:
        """Forget a job that has ended."""
        self._worker.pop(job, None)
        self._counts.pop(job, None)

    async def count(
        self,
        job: str,
        error: Exception,
        n_before: int,
        n_succeeded: int,
        failed: Collection[Place] = (),
    ) -> dict[Place | None, int]:
        """Return how often each chunk has failed now, for reasons that must lie in the recording.

        Args:
            job: its id.
            error: why the attempt ended.
            n_before: the largest number that was returned before; 0 if a chunk succeeded since.
            n_succeeded: the method of this name, when the attempt started.
            failed: chunks that failed in the attempt, besides the one that the error names.

        Returns:
            The number of failures by chunk. The key None stands for an unknown chunk.
        """
        if isinstance(error, WorkerLost):
            others_succeeded = self._client.n_succeeded > n_succeeded
            return {None: self._count_worker(job, n_before, others_succeeded)}
        places: list[Place | None] = list(dict.fromkeys([*failed, place_of(error)]))
        counts = self._counts.setdefault(job, Counter({places[0]: n_before}))
        if self._client.n_succeeded > n_succeeded or await self._client.control():
            counts.update(places)
        return {place: counts[place] for place in places}

    def _count_worker(self, job: str, n_before: int, others_succeeded: bool) -> int:
        worker = self._client.worker
        last, self._worker[job] = self._worker.get(job, worker), worker
        if worker > last + 1:
            return 0  # a worker died in which this recording was not
        return n_before + others_succeeded
