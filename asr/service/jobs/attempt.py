"""One attempt at one job: collects the worker's results and writes them to the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from asr.errors import StoreUnavailable, WorkerLost
from asr.pipeline.checkpoint import pack_segment, pack_summary
from asr.pipeline.run import Progress
from asr.service.jobs.leases import LeaseLost, NewResults
from asr.service.litserve.messages import ChunkDone, ChunkFailed
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection

    from asr.service.faults import Place
    from asr.service.jobs.leases import Leases
    from asr.service.jobs.rows import Job
    from asr.service.litserve.messages import WorkerEvent

T = TypeVar("T")

logger = logging.getLogger(__name__)

STORE_RETRY_SECONDS: Final = 0.5
MAX_DELAY: Final = 30.0
"""Seconds. A job waits at most this long before the next attempt."""


class Attempt:
    """One attempt at one job.

    Every method waits while the database is unavailable. `postpone` and `follow` raise `LeaseLost`
    when the job was cancelled, deleted or claimed by another runner. `release` and `fail` do not.

    Args:
        leases: where results are written.
        job: the claimed job.
        lease: the token of the claim.

    Attributes:
        failed: the chunks that failed in this attempt, each with the report that gives it up.
    """

    def __init__(self, leases: Leases, job: Job, lease: str) -> None:
        self.id = f"{job.id}-{lease}"
        self._leases = leases
        self._n_failures = job.stalls
        self._job_and_lease = (job.id, lease)
        self._owner = job.owner
        self.failed: dict[Place, ChunkDone] = {}
        self._chunks: list[ChunkDone] = []
        self._segments: list[tuple[int, str]] = []
        self._progress: tuple[float, float, float | None] | None = None
        self._last_write = time.monotonic()
        self._n_segments = 0
        self._has_news = asyncio.Event()
        self._is_over = False
        self._has_progressed = False
        self._transcript: Transcript | None = None
        self._is_provisional = False

    async def finished_chunks(self) -> list[str]:
        """The records of the chunks that earlier attempts finished."""
        job, _ = self._job_and_lease
        return await self._until_available(partial(self._leases.finished_chunks, job))

    async def postpone(self, seconds: float) -> None:
        """Postpone all jobs of the owner, who has used up the hours of audio for today."""
        logger.info("jobs of %s wait: the owner's hours of audio are used up", self._owner)
        postpone = partial(self._leases.postpone, *self._job_and_lease, self._owner, seconds)
        await self._until_available(postpone)

    async def follow(self, events: AsyncGenerator[WorkerEvent]) -> None:
        """Write the results of the worker as they arrive, and finally the transcript.

        Raises:
            WorkerLost: the events ended without a transcript.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                group.create_task(self._collect(events))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        transcript = self._transcript
        if transcript is None:
            raise WorkerLost("the recogniser process ended without a transcript")
        summary, rest, n = pack_summary(transcript), self._take_results(), self._n_segments
        succeed = partial(self._leases.succeed, *self._job_and_lease, rest, n, summary)
        await self._until_available(succeed)
        job, _ = self._job_and_lease
        logger.info("job %s: %.1f s of audio transcribed", job, transcript.duration)

    async def _collect(self, events: AsyncGenerator[WorkerEvent]) -> None:
        async for event in events:
            self._add(event)
        self._is_over = True
        self._has_news.set()

    def _add(self, event: WorkerEvent) -> None:
        match event:
            case ChunkDone():
                self._chunks.append(event)
                self._n_failures = 0
                self._has_progressed = True
            case ChunkFailed(done=done):
                self.failed[done.channel, done.index] = done
                return
            case Segment():
                self._is_provisional = self._is_provisional or event.is_provisional
                self._segments.append((event.id, pack_segment(event)))
                self._n_segments = max(self._n_segments, event.id + 1)
            case Progress():
                self._progress = (event.decoded, event.transcribed, event.total)
            case Transcript():
                self._transcript = event
                by_voice = (it.speaker_confidence is not None for it in event.segments)
                if self._is_provisional or any(by_voice):
                    # The final speakers, with other cuts.
                    self._segments = [(it.id, pack_segment(it)) for it in event.segments]
                    self._n_segments = len(event.segments)
            case _:
                return
        self._has_news.set()

    async def _write(self) -> None:
        """Write new results at once. Results that arrive during a transaction go into the next."""
        await self._has_news.wait()
        while not self._is_over:
            results = self._take_results()
            record = partial(self._leases.record, *self._job_and_lease, results)
            await self._until_available(record)
            await self._has_news.wait()

    def _take_results(self) -> NewResults:
        """The results since the last call."""
        seconds = time.monotonic() - self._last_write
        results = NewResults(self._chunks, self._segments, self._progress, seconds)
        self._chunks, self._segments = [], []
        self._last_write += seconds
        self._has_news.clear()
        return results

    @property
    def n_failures(self) -> int:
        """Failures since the last new chunk that only the recording explains."""
        return self._n_failures

    @property
    def is_ending(self) -> bool:
        """Whether only the last write is left, which checks the lease itself."""
        return self._transcript is not None

    @property
    def is_stalled(self) -> bool:
        """Whether no new chunk was recognised."""
        return not self._has_progressed

    async def give_up(self, places: Collection[Place | None]) -> None:
        """Leave a gap in place of each of these chunks, which must be among `failed`."""
        self._chunks += [done for place, done in self.failed.items() if place in places]
        record = partial(self._leases.record, *self._job_and_lease, self._take_results())
        job, _ = self._job_and_lease
        logger.warning("job %s: %d chunks are given up and leave a gap", job, len(places))
        with contextlib.suppress(LeaseLost):
            await self._until_available(record)

    async def release(self, error: Exception, n_repeats: int, n_failures: int | None) -> None:
        """Let the job be claimed again after a delay.

        Args:
            error: why this attempt ended.
            n_repeats: attempts in a row that ended without a new chunk. The delay doubles with
                each, up to `MAX_DELAY`.
            n_failures: as for `Leases.release`.
        """
        delay = min(2.0 ** min(n_repeats, 10), MAX_DELAY)
        job, _ = self._job_and_lease
        logger.warning("job %s waits %.0f s: %s", job, delay, error)
        release = partial(self._leases.release, *self._job_and_lease, delay, n_failures)
        with contextlib.suppress(LeaseLost):
            await self._until_available(release)

    async def fail(self, error: str) -> bool:
        """End the job as failed. Returns whether it did: another runner may have claimed the job.

        Args:
            error: OpenAI's error object as JSON.
        """
        with contextlib.suppress(LeaseLost):
            await self._until_available(partial(self._leases.fail, *self._job_and_lease, error))
            return True
        return False

    async def _until_available(self, work: Callable[[], Awaitable[T]]) -> T:
        """Repeat `work` until the database is available.

        The lease may be lost meanwhile. Then a write raises `LeaseLost`.
        """
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                logger.warning("job %s: %s", self._job_and_lease[0], error)
                await asyncio.sleep(STORE_RETRY_SECONDS)
