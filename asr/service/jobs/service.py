"""`Jobs`: all parts of the package in one API process, and their background tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from asr.errors import StoreUnavailable
from asr.service.clock import CautiousClock, wall_time
from asr.service.errors import NotFound, ShuttingDown
from asr.service.http.body import drain
from asr.service.http.problems import problem_of
from asr.service.jobs.callbacks import CallbackQueue
from asr.service.jobs.creation import JobCreation
from asr.service.jobs.database import Database
from asr.service.jobs.edits import Edits
from asr.service.jobs.key_usage import KeyUsage
from asr.service.jobs.leases import Leases
from asr.service.jobs.recordings import Recordings, is_id
from asr.service.jobs.runner import JobRunner
from asr.service.jobs.store import JobStore
from asr.service.jobs.tables import UNFINISHED
from asr.service.jobs.troubles import described
from asr.service.jobs.watch import Watch
from asr.service.jobs.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from starlette.requests import Request

    from asr.service.jobs.rows import Job
    from asr.service.litserve.client import WorkerClient
    from asr.service.speakers.known import KnownSpeakers
    from asr.service.uploads.store import Uploads
    from asr.settings import Settings

logger = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 600.0
RESTART_SECONDS: Final = 5.0


class Jobs:
    """Jobs in one API process.

    Args:
        client: sends commands to the worker.
        settings: of the service.
        run_dir: a folder for decoded audio.
        incoming: a folder for request bodies while they arrive. It must be on the file system of
            the data directory.
        uploads: those to which ``upload_id`` may refer.
        known: finds the voices that a request names; None if none can be named.
        weight_of: an owner's share of the engine.
        audio_wait: seconds until an owner may use more audio; 0 means now.

    Attributes:
        store: the jobs of all owners.
        edits: their corrected transcripts.
        key_usage: what all servers count for the limits of keys.
        watch: news of jobs for clients that follow them.
        is_closing: whether `close` was called: new jobs are refused, and streams of events end.
    """

    def __init__(
        self,
        *,
        client: WorkerClient,
        settings: Settings,
        run_dir: Path,
        incoming: Path,
        uploads: Uploads,
        known: KnownSpeakers | None = None,
        weight_of: Callable[[str], float] = lambda _: 1.0,
        audio_wait: Callable[[str], float] = lambda _: 0.0,
    ) -> None:
        self._database = database = Database(settings.database)
        self._clock = CautiousClock(settings.data_path / "clock")
        self.store = JobStore(database)
        self.edits = Edits(database)
        self.watch = Watch(self.store)
        self.key_usage = KeyUsage(database)
        self.recordings = Recordings(settings.data_path / "recordings")
        self.runner = JobRunner(
            leases=Leases(database),
            recordings=self.recordings,
            client=client,
            settings=settings,
            run_dir=run_dir,
            weight_of=weight_of,
            audio_wait=audio_wait,
            error_body=_error_body,
        )
        self.webhooks = Webhooks(CallbackQueue(database), settings)
        self._creation = JobCreation(
            store=self.store,
            recordings=self.recordings,
            settings=settings,
            incoming=incoming,
            uploads=uploads,
            known=known,
        )
        self._settings = settings
        self.is_closing = False
        self._work: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Work on jobs in this block. Create the tables first, if the database is available."""
        with contextlib.suppress(StoreUnavailable):
            await self.store.open()
        self._work = asyncio.create_task(self._run())
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Refuse new jobs and release the running ones."""
        self.is_closing = True
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})
        await self.store.close()

    async def _run(self) -> None:
        while True:
            try:
                with contextlib.suppress(OSError):  # `check` tells, and new jobs try again
                    await asyncio.to_thread(self.recordings.open)
                await self._open()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.runner.run())
                    group.create_task(self.webhooks.run())
                    group.create_task(self._sweep())
            except Exception:  # jobs must continue after any error, even an unforeseen one
                logger.exception("jobs stopped, and start again in %.0f s", RESTART_SECONDS)
                await asyncio.sleep(RESTART_SECONDS)

    async def _open(self) -> None:
        said = ""
        while True:
            try:
                await self.store.open()
            except StoreUnavailable as error:
                if said != (said := described(error)):
                    logger.warning("jobs are not available: %s", said)
                await asyncio.sleep(1)
            else:
                return

    async def _sweep(self) -> None:
        """Delete old jobs, and recordings that no job needs."""
        while True:
            try:
                # While the clock may be wrong, jobs are kept for longer.
                lag = await asyncio.to_thread(lambda: self._clock.lag)
                for job in await self.store.expire(self._settings.job_ttl + lag):
                    await asyncio.to_thread(self.recordings.remove, job)
                await self._sweep_recordings(wall_time() - lag)
                await self.key_usage.forget()
            except (StoreUnavailable, OSError) as error:
                logger.warning("old jobs are not removed: %s", error)
            await asyncio.sleep(min(SWEEP_SECONDS, max(1.0, self._settings.job_ttl / 4)))

    async def _sweep_recordings(self, now: float) -> None:
        """Remove the recordings of ended jobs, which a killed process left, and old orphans."""
        # In this order and with one query: a job may be created at any moment. Its recording is
        # stored first, and is young then.
        found = await asyncio.to_thread(self.recordings.stored, now)
        states = await self.store.states_of(found)
        kept = await self.store.keeping(found)  # a job that keeps its recording does so always
        for job, is_old in found.items():
            state = states.get(job)
            if is_old if state is None else state not in UNFINISHED and job not in kept:
                await asyncio.to_thread(self.recordings.remove, job)

    async def check(self) -> None:
        """Check whether jobs can be accepted.

        Raises:
            StoreUnavailable: the database is unavailable.
            OSError: no recording can be stored.
        """
        await self.store.n_waiting()
        await asyncio.to_thread(self.recordings.probe)

    # --- one request ----------------------------------------------------------------------------

    async def create(self, request: Request) -> tuple[Job, bool]:
        """Create a job from a request. Returns the job, and whether it is new.

        Raises:
            ShuttingDown: the service ends.
            AsrError, Problem: as `JobCreation.create`.
        """
        if self.is_closing:
            await drain(request)
            raise ShuttingDown
        job, is_new = await self._creation.create(request)
        self.runner.wake()
        return job, is_new

    async def find(self, owner: str, job: str) -> Job:
        """A job by its id.

        Raises:
            NotFound: the owner has no such job.
        """
        _check_id(job)
        return _found(await self.store.find(owner, job))

    async def cancel(self, owner: str, job: str) -> Job:
        """Cancel a job, unless it has ended; returns it as it is now.

        Raises:
            NotFound: the owner has no such job.
        """
        _check_id(job)
        found = _found(await self.store.cancel(owner, job))
        self.runner.stop(found.id)
        if not found.keeps_recording:
            await asyncio.to_thread(self.recordings.remove, found.id)
        return found

    async def delete(self, owner: str, job: str) -> Job:
        """Delete a job in any state; returns it as it was.

        Raises:
            NotFound: the owner has no such job.
        """
        _check_id(job)
        found = _found(await self.store.delete(owner, job))
        self.runner.stop(found.id)
        await asyncio.to_thread(self.recordings.remove, found.id)
        return found


def _error_body(error: Exception) -> dict[str, Any]:
    body: dict[str, Any] = problem_of(error).body["error"]
    return body


def _found(job: Job | None) -> Job:
    if job is None:
        # Jobs of other owners get the same answer, so that clients cannot find out which ids exist.
        raise NotFound("there is no job with this id", "no_such_job", "id")
    return job


def _check_id(job: str) -> None:
    """Refuse text that is not an id: the database may raise an error for some characters."""
    if not is_id(job):
        _found(None)
