"""Claims jobs from the database and has the worker transcribe them.

There is one runner in each API process. It may die at any moment: the results it wrote remain, and
another runner continues from there when the lease has expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from typing import TYPE_CHECKING, Any, Final

from asr.errors import AsrError, StoreUnavailable
from asr.service.errors import GivenUp
from asr.service.faults import Fault, fault_of
from asr.service.files import finished_in_thread, temporary_folder
from asr.service.jobs.attempt import Attempt
from asr.service.jobs.leases import LeaseLost
from asr.service.jobs.request import JobRequest
from asr.service.jobs.suspicion import MAX_FAILURES, Suspicions
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
MAX_POSTPONE_SECONDS: Final = 300.0
"""After this time the job is claimed again, even if its owner's day has not ended. The limit may
have been raised, or another server may still have audio left for the owner."""


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

    Attributes:
        is_paused: claim no more jobs. Those in progress continue.
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
        self.is_paused = False
        self._suspicions = Suspicions(client)
        self._attempts: dict[str, Attempt] = {}
        self._repeats: dict[str, int] = {}  # by job: attempts in a row without a new chunk
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
        self._forget_failures(job)
        if job in self._lease_of:
            self._tasks[self._lease_of[job]].cancel()

    async def _claim_jobs(self) -> None:
        while True:
            if not self._has_room() or not await self._claim_one():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                self._wake.clear()

    def _has_room(self) -> bool:
        return not self.is_paused and len(self._tasks) < self._settings.max_active_jobs

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
        self._attempts[lease] = Attempt(self._leases, job, lease)
        task = asyncio.create_task(self._work(job, lease))
        self._tasks[lease], self._lease_of[job.id] = task, lease
        task.add_done_callback(lambda _: self._forget(job.id, lease))
        return True

    def _forget(self, job: str, lease: str) -> None:
        del self._tasks[lease], self._attempts[lease]
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
                    if lease in self._tasks and not self._attempts[lease].is_ending:
                        self._tasks[lease].cancel()

    async def _work(self, job: Job, lease: str) -> None:
        attempt = self._attempts[lease]
        n_succeeded = self._suspicions.n_succeeded()
        try:
            if wait := self._audio_wait(job.owner):
                await attempt.postpone(min(wait, MAX_POSTPONE_SECONDS))
                return
            await self._transcribe(job, attempt)
            self._forget_failures(job.id)
            await self._remove_recording(job)
        except LeaseLost:
            self._forget_failures(job.id)
            logger.info("job %s was cancelled or claimed by another runner", job.id)
        except asyncio.CancelledError:
            # The service is shutting down, or the lease is lost. In the second case, `release`
            # raises LeaseLost.
            with contextlib.suppress(LeaseLost, StoreUnavailable):
                await self._leases.release(job.id, lease, 0)
            raise
        except Exception as error:
            if not isinstance(error, AsrError | OSError):
                logger.exception("job %s: attempt %d failed", job.id, job.attempts)
            await self._end(job, attempt, error, n_succeeded)

    async def _transcribe(self, job: Job, attempt: Attempt) -> None:
        logger.info("job %s: attempt %d", job.id, job.attempts)
        source = self._recordings.path(job.id)
        await asyncio.to_thread(self._recordings.check, job.id, job.created)
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

    async def _end(self, job: Job, attempt: Attempt, error: Exception, n_succeeded: int) -> None:
        """After a failed attempt, end the job or return it to the queue."""
        fault = fault_of(error)
        n_failures = None
        if fault is Fault.CHUNK:
            counts = await self._suspicions.count(
                job.id, error, attempt.n_failures, n_succeeded, attempt.failed
            )
            n_failures = max(counts.values())
            hopeless = {place for place, n in counts.items() if n >= MAX_FAILURES}
            if gaps := hopeless & attempt.failed.keys():  # none if the job accepts no gaps
                await attempt.give_up(gaps)
                n_failures = max((counts[place] for place in counts.keys() - gaps), default=0)
                self._repeats.pop(job.id, None)
            elif hopeless:
                error, fault = _given_up(error), Fault.RECORDING
        if fault is Fault.RECORDING:
            self._forget_failures(job.id)
            body = self._error_body(error)
            logger.warning("job %s failed: %s", job.id, body["code"])
            if await attempt.fail(json.dumps(body)):  # nobody can try a failed job again
                await self._remove_recording(job)
            return
        n_repeats = self._repeats.get(job.id, 0) if attempt.is_stalled else 0
        self._repeats[job.id] = n_repeats + 1
        await attempt.release(error, n_repeats, n_failures)

    def _forget_failures(self, job: str) -> None:
        self._repeats.pop(job, None)
        self._suspicions.forget(job)

    async def _remove_recording(self, job: Job) -> None:
        # `_renew_leases` may cancel this task now, because the job has no lease any more.
        if not job.keeps_recording:
            await finished_in_thread(self._recordings.remove, job.id)


def _given_up(error: Exception) -> GivenUp:
    message = f"given up: the recording failed {MAX_FAILURES} times while others succeeded"
    detail = f" ({error})" if isinstance(error, AsrError) else ""
    return GivenUp(message + detail, "job_gave_up")


def _write_lines(path: Path, lines: list[str]) -> Path:
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path
