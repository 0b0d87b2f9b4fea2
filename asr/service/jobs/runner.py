"""Claims jobs from the database and has the worker transcribe them.

There is one runner in each API process. It may die at any moment: the results it wrote remain, and
another runner continues from there when the lease has expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import uuid
from typing import TYPE_CHECKING, Any, Final

from asr.errors import (
    AsrError,
    EngineTimeout,
    EngineUnavailable,
    StoreUnavailable,
    WorkerDied,
)
from asr.service.errors import GivenUp
from asr.service.files import finished_in_thread, temporary_folder
from asr.service.jobs.attempt import Attempt
from asr.service.jobs.leases import LeaseLost
from asr.service.jobs.request import JobRequest
from asr.service.litserve.messages import Transcribe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asr.service.jobs.leases import Leases
    from asr.service.jobs.recordings import Recordings
    from asr.service.jobs.rows import Job
    from asr.service.litserve.client import WorkerClient
    from asr.settings import Settings

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
MAX_STALLS: Final = 10
"""After this many attempts in a row without a new chunk, the job fails, because the cause must be
in the job itself."""
MAX_POSTPONE_SECONDS: Final = 300.0
"""After this time the job is claimed again, even if its owner's day has not ended. The limit may
have been raised, or another server may still have audio left for the owner."""

_TRANSIENT = (EngineUnavailable, EngineTimeout, WorkerDied)


class JobRunner:
    """Works on up to ``max_active_jobs`` jobs at once.

    Args:
        leases: claims jobs and writes results.
        recordings: of the jobs.
        client: sends commands to the worker.
        settings: of the service.
        run_dir: a folder for decoded audio.
        weight_of: an owner's share of the engine.
        audio_wait: seconds until an owner may use more audio; 0 means now.
        error_body: OpenAI's error object for an error.
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
        error_body: Callable[[Exception], dict[str, Any]],
    ) -> None:
        self._leases = leases
        self._recordings = recordings
        self._client = client
        self._settings = settings
        self._run_dir = run_dir
        self._weight_of = weight_of
        self._audio_wait = audio_wait
        self._error_body = error_body
        self._name = uuid.uuid4().hex[:12]
        self._n_claims = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by lease
        self._lease_of: dict[str, str] = {}  # by job
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Work on jobs until cancelled. Then release them."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renew_leases())
                group.create_task(self._claim_jobs())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def wake(self) -> None:
        """Look for a job now."""
        self._wake.set()

    def stop(self, job: str) -> None:
        """Stop working on a job that was cancelled, if this runner works on it."""
        if job in self._lease_of:
            self._tasks[self._lease_of[job]].cancel()

    async def _claim_jobs(self) -> None:
        while True:
            if len(self._tasks) >= self._settings.max_active_jobs or not await self._claim_one():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                self._wake.clear()

    async def _claim_one(self) -> bool:
        """Claim a job and start a task for it. Returns whether there was one."""
        self._n_claims += 1
        lease = f"{self._name}-{self._n_claims}"
        try:
            job = await self._leases.claim(lease, self._settings.job_lease)
        except StoreUnavailable as error:
            logger.warning("no jobs are claimed: %s", error)
            return False
        if job is None:
            return False
        task = asyncio.create_task(self._work(job, lease))
        self._tasks[lease], self._lease_of[job.id] = task, lease
        task.add_done_callback(lambda _: self._forget(job.id, lease))
        return True

    def _forget(self, job: str, lease: str) -> None:
        del self._tasks[lease]
        if self._lease_of.get(job) == lease:
            del self._lease_of[job]
        self.wake()

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(min(POLL_SECONDS, self._settings.job_lease / 4))
            ours = list(self._tasks)
            if not ours:
                continue
            # While the database is unavailable, no other runner can claim the jobs either.
            with contextlib.suppress(StoreUnavailable):
                held = await self._leases.renew(ours, self._settings.job_lease)
                for lease in set(ours) - held:
                    if lease in self._tasks:
                        self._tasks[lease].cancel()

    async def _work(self, job: Job, lease: str) -> None:
        attempt = Attempt(self._leases, job, lease)
        try:
            if wait := self._audio_wait(job.owner):
                await attempt.postpone(min(wait, MAX_POSTPONE_SECONDS))
                return
            await self._transcribe(job, attempt)
            # `_renew_leases` may cancel this task now, because the job has no lease any more.
            await finished_in_thread(self._recordings.remove, job.id)
        except LeaseLost:
            logger.info("job %s was cancelled or claimed by another runner", job.id)
        except asyncio.CancelledError:
            # The service is shutting down, or the lease is lost. In the second case, `release`
            # raises LeaseLost.
            with contextlib.suppress(LeaseLost, StoreUnavailable):
                await self._leases.release(job.id, lease, 0, counts=False)
            raise
        except Exception as error:
            await self._end(job, attempt, error)
            if not isinstance(error, AsrError):
                logger.exception("job %s failed", job.id)

    async def _transcribe(self, job: Job, attempt: Attempt) -> None:
        logger.info("job %s: attempt %d", job.id, job.attempts)
        if job.stalls > MAX_STALLS:
            raise GivenUp(f"given up after {MAX_STALLS} attempts", "job_gave_up")
        source = self._recordings.path(job.id)
        if not source.exists():
            raise GivenUp("the recording of this job is gone", "recording_missing")
        async with temporary_folder(self._run_dir) as folder:
            records = await attempt.finished_chunks()
            kept = await asyncio.to_thread(_write_lines, folder / "kept", records)
            options = JobRequest.unpack(job.request).with_limits(self._settings.limits)
            weight = self._weight_of(job.owner)
            command = Transcribe(
                attempt.id, source, folder, options, kept=kept, owner=job.owner, weight=weight
            )
            async with contextlib.aclosing(self._client.transcribe(command)) as events:
                await attempt.follow(events)

    async def _end(self, job: Job, attempt: Attempt, error: Exception) -> None:
        """After a failed attempt, release the job if the error is transient; otherwise end it."""
        is_disk_full = _is_disk_full(error)
        if isinstance(error, _TRANSIENT) or is_disk_full:
            # An unavailable engine or a full disk is not the job's fault: retry without limit.
            counts = not isinstance(error, EngineUnavailable) and not is_disk_full
            await attempt.release(error, counts=counts)
        else:
            body = self._error_body(error)
            logger.warning("job %s failed: %s", job.id, body["code"])
            if await attempt.fail(json.dumps(body)):  # nobody can try a failed job again
                await finished_in_thread(self._recordings.remove, job.id)


def _write_lines(path: Path, lines: list[str]) -> Path:
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def _is_disk_full(error: Exception) -> bool:
    """Whether the disk was full, in this process or in a helper process."""
    code = error.errno if isinstance(error, OSError | WorkerDied) else None
    return code in (errno.ENOSPC, errno.EDQUOT)
