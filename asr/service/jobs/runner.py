"""Takes jobs from the database, has the worker transcribe them, writes down what comes out.

One runner in each API process. It may die at any moment: what was written stays, and another
runner goes on from there when the lease has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from asr.errors import (
    AsrError,
    EngineTimeout,
    EngineUnavailable,
    StoreUnavailable,
    WorkerDied,
)
from asr.pipeline.checkpoint import pack_segment, pack_summary
from asr.pipeline.run import Progress
from asr.service.files import temporary_folder
from asr.service.http.problems import Problem, problem_of
from asr.service.jobs.leases import Advance, LeaseLost
from asr.service.jobs.request import JobRequest
from asr.service.litserve.messages import ChunkDone, Transcribe
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from asr.service.jobs.leases import Leases
    from asr.service.jobs.recordings import Recordings
    from asr.service.jobs.rows import Job
    from asr.service.litserve.client import WorkerClient
    from asr.service.litserve.messages import WorkerEvent
    from asr.settings import Settings

T = TypeVar("T")

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
STORE_RETRY_SECONDS: Final = 0.5
MAX_STALLS: Final = 10
"""Attempts without a new chunk after which a job has itself to blame."""
MAX_DELAY: Final = 60.0
MAX_PUT_OFF: Final = 300.0
"""Then the owner is asked for again: a limit may have been raised, another server have room."""

_TRANSIENT = (EngineUnavailable, EngineTimeout, WorkerDied)


class JobRunner:
    """Works on up to ``max_active_jobs`` jobs at once.

    Args:
        leases: who works on which job.
        recordings: what they transcribe.
        client: the way to the worker.
        settings: of the service.
        run_dir: where decoded audio lies meanwhile.
        weight_of: the share of the engine that an owner has now.
        audio_wait: seconds until an owner may have audio again; 0 means now.
    """

    def __init__(
        self,
        *,
        leases: Leases,
        recordings: Recordings,
        client: WorkerClient,
        settings: Settings,
        run_dir: Path,
        weight_of: Callable[[str], float],
        audio_wait: Callable[[str], float],
    ) -> None:
        self._leases = leases
        self._recordings = recordings
        self._client = client
        self._settings = settings
        self._run_dir = run_dir
        self._weight_of = weight_of
        self._audio_wait = audio_wait
        self._name = uuid.uuid4().hex[:12]
        self._n_claims = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by their leases
        self._jobs: dict[str, str] = {}  # their leases
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; then give the jobs back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_leases())
                group.create_task(self._take_jobs())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def wake(self) -> None:
        """Look for a job now."""
        self._news.set()

    def stop(self, job: str) -> None:
        """Free the engine of a job that was cancelled, if it is in work here."""
        if job in self._jobs:
            self._tasks[self._jobs[job]].cancel()

    async def _take_jobs(self) -> None:
        while True:
            if len(self._tasks) >= self._settings.max_active_jobs or not await self._take_one():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._news.wait()
                self._news.clear()

    async def _take_one(self) -> bool:
        """Claim a job and begin; whether there was one."""
        self._n_claims += 1
        lease = f"{self._name}-{self._n_claims}"
        try:
            job = await self._leases.claim(lease, self._settings.job_lease)
        except StoreUnavailable as error:
            logger.warning("no jobs are taken: %s", error)
            return False
        if job is None:
            return False
        task = asyncio.create_task(self._work(job, lease))
        self._tasks[lease], self._jobs[job.id] = task, lease
        task.add_done_callback(lambda _: self._forget(job.id, lease))
        return True

    def _forget(self, job: str, lease: str) -> None:
        del self._tasks[lease]
        if self._jobs.get(job) == lease:
            del self._jobs[job]
        self.wake()

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(min(POLL_SECONDS, self._settings.job_lease / 4))
            mine = list(self._tasks)
            if not mine:
                continue
            # While the database is away nobody else can claim them either.
            with contextlib.suppress(StoreUnavailable):
                held = await self._leases.hold(mine, self._settings.job_lease)
                for lease in set(mine) - held:
                    if lease in self._tasks:
                        self._tasks[lease].cancel()

    async def _work(self, job: Job, lease: str) -> None:
        attempt = _Attempt(self._leases, job, lease)
        try:
            if wait := self._audio_wait(job.owner):
                await attempt.put_off(min(wait, MAX_PUT_OFF))
                return
            await self._transcribe(job, attempt)
            await asyncio.to_thread(self._recordings.remove, job.id)
        except LeaseLost:
            logger.info("job %s was cancelled or taken over", job.id)
        except asyncio.CancelledError:
            # The end of the service, or of this job alone; the store knows which.
            with contextlib.suppress(LeaseLost, StoreUnavailable):
                await self._leases.give_back(job.id, lease, 0, counts=False)
            raise
        except Exception as error:
            await attempt.ended_by(error)
            if not isinstance(error, (AsrError, Problem)):
                logger.exception("job %s failed", job.id)

    async def _transcribe(self, job: Job, attempt: _Attempt) -> None:
        logger.info("job %s: attempt %d", job.id, job.attempts)
        if job.stalls > MAX_STALLS:
            raise Problem(500, f"given up after {MAX_STALLS} attempts", "job_gave_up")
        source = self._recordings.path(job.id)
        if not source.exists():
            raise Problem(500, "the recording of this job is gone", "recording_missing")
        async with temporary_folder(self._run_dir) as folder:
            kept = await asyncio.to_thread(_write_lines, folder / "kept", await attempt.kept())
            options = JobRequest.unpack(job.request).with_limits(self._settings.limits)
            weight = self._weight_of(job.owner)
            command = Transcribe(
                attempt.id, source, folder, options, kept=kept, owner=job.owner, weight=weight
            )
            async with contextlib.aclosing(self._client.transcribe(command)) as events:
                await attempt.follow(events)


def _write_lines(path: Path, lines: list[str]) -> Path:
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def _is_disk_full(error: Exception) -> bool:
    """Whether the disk was full, here or in a helper process, of which only the words come."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return error.errno in codes
    return any(os.strerror(code) in str(error) for code in codes)


class _Attempt:
    """One attempt at one job: gathers what comes, and writes it down as fast as the disk allows."""

    def __init__(self, leases: Leases, job: Job, lease: str) -> None:
        self.id = f"{job.id}-{lease}"
        self._leases = leases
        self._stalls = job.stalls
        self._mine = (job.id, lease)
        self._owner = job.owner
        self._chunks: list[ChunkDone] = []
        self._segments: list[tuple[int, str]] = []
        self._progress: tuple[float, float, float | None] | None = None
        self._since = time.monotonic()
        self._n_segments = 0
        self._dirty = asyncio.Event()
        self._is_over = False
        self._transcript: Transcript | None = None

    async def kept(self) -> list[str]:
        """The records of earlier attempts."""
        return await self._patiently(partial(self._leases.kept, self._mine[0]))

    async def put_off(self, wait: float) -> None:
        """It is not begun, because its owner has used up what there is for a day."""
        logger.info("jobs of %s wait: its hours of audio are used up", self._owner)
        await self._patiently(partial(self._leases.put_off, *self._mine, self._owner, wait))

    async def follow(self, events: AsyncGenerator[WorkerEvent]) -> None:
        """Write everything down until the transcript is."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                group.create_task(self._gather(events))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        transcript = self._transcript
        if transcript is None:
            raise WorkerDied("the recogniser process ended without a transcript")
        summary, rest, n = pack_summary(transcript), self._gathered(), self._n_segments
        await self._patiently(partial(self._leases.succeed, *self._mine, rest, n, summary))
        logger.info("job %s: %.1f s of audio transcribed", self._mine[0], transcript.duration)

    async def _gather(self, events: AsyncGenerator[WorkerEvent]) -> None:
        async for event in events:
            self._take(event)
        self._is_over = True
        self._dirty.set()

    def _take(self, event: WorkerEvent) -> None:
        match event:
            case ChunkDone():
                self._chunks.append(event)
            case Segment():
                self._segments.append((event.id, pack_segment(event)))
                self._n_segments = max(self._n_segments, event.id + 1)
            case Progress():
                self._progress = (event.decoded, event.transcribed, event.total)
            case Transcript():
                self._transcript = event
            case _:
                return
        self._dirty.set()

    async def _write(self) -> None:
        """What comes while one transaction is under way goes into the next."""
        await self._dirty.wait()
        while not self._is_over:
            await self._patiently(partial(self._leases.record, *self._mine, self._gathered()))
            await self._dirty.wait()

    def _gathered(self) -> Advance:
        """What came since the last time."""
        seconds = time.monotonic() - self._since
        advance = Advance(self._chunks, self._segments, self._progress, seconds)
        self._chunks, self._segments = [], []
        self._since += seconds
        self._dirty.clear()
        return advance

    async def ended_by(self, error: Exception) -> None:
        """Write down that this attempt failed, and whether there will be another."""
        job, _ = self._mine
        with contextlib.suppress(LeaseLost):
            if isinstance(error, _TRANSIENT) or _is_disk_full(error):
                delay = min(2.0 ** min(self._stalls, 6), MAX_DELAY)
                logger.warning("job %s waits %.0f s: %s", job, delay, error)
                # For an engine that is away and for room on the disk it waits without end.
                counts = not isinstance(error, EngineUnavailable) and not _is_disk_full(error)
                give_back = partial(self._leases.give_back, *self._mine, delay, counts=counts)
                await self._patiently(give_back)
            else:
                problem = problem_of(error)
                logger.warning("job %s failed: %s", job, problem.code)
                body = json.dumps(problem.body["error"])
                await self._patiently(partial(self._leases.fail, *self._mine, body))

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it again until the database is there; the lease says whether it is still ours."""
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                logger.warning("job %s: %s", self._mine[0], error)
                await asyncio.sleep(STORE_RETRY_SECONDS)
