"""What the routes of jobs share in one API process, and how a request becomes a job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from typing import TYPE_CHECKING, Final

from asr.errors import AsrError, StoreUnavailable
from asr.service.errors import ShuttingDown
from asr.service.files import temporary_folder
from asr.service.http.body import drain, receive_body
from asr.service.http.middleware import owner_of
from asr.service.http.problems import Problem
from asr.service.jobs.database import Database
from asr.service.jobs.leases import Leases
from asr.service.jobs.recordings import Recordings, is_id
from asr.service.jobs.request import JobRequest, mark_of
from asr.service.jobs.rows import NewJob
from asr.service.jobs.runner import JobRunner
from asr.service.jobs.store import JobStore, KeyReused, QueueFull
from asr.service.jobs.watch import Watch
from asr.service.jobs.webhooks import Webhooks, check_address
from asr.service.transcriptions.form import parse_fields

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from starlette.requests import Request

    from asr.service.jobs.rows import Job
    from asr.service.litserve.client import WorkerClient
    from asr.service.uploads.store import Uploads
    from asr.settings import Settings

logger = logging.getLogger(__name__)

MAX_KEY_LENGTH: Final = 255
SWEEP_SECONDS: Final = 600.0
RESTART_SECONDS: Final = 5.0
_OURS: Final = ("upload_id", "callback_url")
_NO_EFFECT: Final = ("response_format", "stream", "timestamp_granularities")

Pairs = list[tuple[str, str]]


class Jobs:
    """Jobs in one API process.

    Args:
        client: the way to the worker.
        settings: of the service.
        run_dir: where decoded audio lies.
        incoming: where bodies arrive; in the file system of the data directory.
        uploads: what ``upload_id`` may name.
        weight_of: the share of the engine that an owner has now.
        audio_wait: seconds until an owner may have audio again; 0 means now.
    """

    def __init__(
        self,
        *,
        client: WorkerClient,
        settings: Settings,
        run_dir: Path,
        incoming: Path,
        uploads: Uploads,
        weight_of: Callable[[str], float] = lambda _: 1.0,
        audio_wait: Callable[[str], float] = lambda _: 0.0,
    ) -> None:
        database = Database(settings.database)
        self.store = JobStore(database)
        self.watch = Watch(self.store)
        self.recordings = Recordings(settings.data_path / "recordings")
        self.runner = JobRunner(
            leases=Leases(database),
            recordings=self.recordings,
            client=client,
            settings=settings,
            run_dir=run_dir,
            weight_of=weight_of,
            audio_wait=audio_wait,
        )
        self.webhooks = Webhooks(self.store, settings)
        self._settings = settings
        self._incoming = incoming
        self._uploads = uploads
        self.is_closing = False
        self._work: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Work on jobs in this block; the first requests find the tables, if there is a way to."""
        with contextlib.suppress(StoreUnavailable):
            await self.store.open()
        self._work = asyncio.create_task(self._run())
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Refuse new jobs and give back those in work."""
        self.is_closing = True
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})
        await self.store.close()

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.recordings.open)
                await self._open()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.runner.run())
                    group.create_task(self.webhooks.run())
                    group.create_task(self._sweep())
            except Exception:  # whatever it was, jobs must not stand still until someone looks
                logger.exception("jobs stopped, and start again in %.0f s", RESTART_SECONDS)
                await asyncio.sleep(RESTART_SECONDS)

    async def _open(self) -> None:
        while True:
            try:
                await self.store.open()
            except StoreUnavailable as error:
                logger.warning("%s", error)
                await asyncio.sleep(1)
            else:
                return

    async def _sweep(self) -> None:
        while True:
            try:
                for job in await self.store.expire(self._settings.job_ttl):
                    self.recordings.remove(job)
                old = await asyncio.to_thread(self.recordings.old)
                for job in set(old) - await self.store.unfinished():
                    self.recordings.remove(job)
            except (StoreUnavailable, OSError) as error:
                logger.warning("old jobs are not removed: %s", error)
            await asyncio.sleep(min(SWEEP_SECONDS, max(1.0, self._settings.job_ttl / 4)))

    # --- one request ----------------------------------------------------------------------------

    async def create(self, request: Request) -> tuple[Job, bool]:
        """Take a recording to disk and make a job of it; whether it is a new one.

        Raises:
            Problem: the request is malformed, or there is no room for it.
        """
        try:
            key = await self._admit(request)
        except (Problem, AsrError):
            await drain(request)
            raise
        async with temporary_folder(self._incoming) as folder:
            pairs, arrived = await self._receive(request, folder)
            return await self._keep(owner_of(request), arrived, pairs, key)

    async def _admit(self, request: Request) -> str | None:
        if self.is_closing:
            raise ShuttingDown
        key = request.headers.get("idempotency-key")
        if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
            message = f"Idempotency-Key: must have 1 to {MAX_KEY_LENGTH} characters"
            raise Problem(400, message, "invalid_value", "Idempotency-Key")
        if await self.store.n_waiting() >= self._settings.max_waiting_jobs:
            raise _queue_full()
        return key

    async def _receive(self, request: Request, folder: Path) -> tuple[Pairs, Path]:
        """The fields, and where the recording lies."""
        target = folder / "body"
        body = await receive_body(request, target, self._settings.max_upload_bytes)
        pairs = body.fields
        upload_id = dict(pairs).get("upload_id", "")
        if body.has_file:
            if upload_id:
                message = "upload_id: send it or a file, not both"
                raise Problem(400, message, "invalid_value", "upload_id")
            return pairs, target
        if not upload_id:
            message = "file: send the recording, or the upload_id of a finished upload"
            raise Problem(400, message, "invalid_value", "file")
        target = folder / "upload"
        await asyncio.to_thread(self._uploads.take, upload_id, owner_of(request), target)
        return pairs, target

    async def _keep(
        self, owner: str, arrived: Path, pairs: Pairs, key: str | None
    ) -> tuple[Job, bool]:
        callback = dict(pairs).get("callback_url", "")
        sent = [
            (name, value)
            for name, value in pairs
            if name not in _OURS and name.partition("[")[0] not in _NO_EFFECT
        ]
        asked = JobRequest.of(parse_fields(sent, self._settings.vad, self._settings.limits))
        if callback:
            check_address(callback, self._settings)
        job = uuid.uuid4().hex
        digest, n_bytes = await asyncio.to_thread(self.recordings.adopt, arrived, job)
        engine = f"{self._settings.engine_name} {self._settings.vllm_url}"
        mark = asked.fingerprint(owner, digest, engine)
        new = NewJob(job, owner, asked.pack(), mark, digest, n_bytes)
        ticket = (uuid.uuid4().hex, callback) if callback else None
        # When the database does not answer, the job may be there all the same: its recording
        # stays, and `_sweep` looks again later.
        try:
            made, is_new = await self.store.create(
                new, key, ticket, self._settings.max_waiting_jobs, mark_of(digest, sent)
            )
        except KeyReused:
            self.recordings.remove(job)
            message = "Idempotency-Key: it came with another recording or other options before"
            raise Problem(422, message, "idempotency_key_reused", "Idempotency-Key") from None
        except QueueFull:  # by requests that came while this one was received
            self.recordings.remove(job)
            raise _queue_full() from None
        if not is_new:
            self.recordings.remove(job)
        self.runner.wake()
        return made, is_new

    async def end(self, owner: str, job: str, *, forget: bool) -> Job:
        """Cancel a job or, if that is wished, forget it, whatever its state.

        Returns:
            The job as it is now, or was when it was forgotten.

        Raises:
            Problem: 404, the owner has no such job.
        """
        check_id(job)
        ended = await (self.store.delete if forget else self.store.cancel)(owner, job)
        if ended is None:
            raise no_such_job()
        self.runner.stop(job)
        await asyncio.to_thread(self.recordings.remove, job)
        return ended


def check_id(job: str) -> None:
    """Let nothing pass that is no id, which a database might choke on.

    Raises:
        Problem: 404.
    """
    if not is_id(job):
        raise no_such_job()


def _queue_full() -> Problem:
    return Problem(429, "too many jobs are waiting", "too_many_jobs", None, 30)


def no_such_job() -> Problem:
    """For jobs that are not there and for those of others alike."""
    return Problem(404, "there is no job with this id", "no_such_job", "id")
