"""The kept recording of a job, prepared once and then cut, drawn and played.

Everything that reads a recording runs in child processes with limits on CPU time and memory. The
first request for a recording starts its preparation (`asr.audio.prepared`). It continues when the
client leaves, and a request that comes too early is told to come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from asr.audio.prepared import AUDIO, PRELOAD, Info, read_info, read_peaks, read_span
from asr.audio.recording import blame
from asr.config import check
from asr.errors import AudioError, StoreUnavailable, WorkerDied
from asr.service.errors import NotFound
from asr.service.files import temporary_folder
from asr.service.http.problems import Problem
from asr.service.jobs.request import JobRequest
from asr.service.page.ranged import Content, of_bytes, of_file
from asr.service.threads import FairPlaces, FairThreads
from asr.workers.call import call
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import numpy as np

    from asr.service.jobs.rows import Job
    from asr.service.jobs.service import Jobs
    from asr.settings import Settings

logger = logging.getLogger(__name__)

PATIENCE: Final = 20.0
"""Seconds that a request waits for the preparation."""
AGAIN_SECONDS: Final = 3
BEING_PREPARED: Final = "recording_being_prepared"
"""The code of an answer that is no failure of the server."""
MAX_PREPARING: Final = 2
MAX_QUICK: Final = 4
MAX_REMEMBERED: Final = 256
"""Recordings that could not be prepared. They are not decoded again for each request."""
MAX_POINTS: Final = 360_000
"""Points of peaks in one answer: ten per second for ten hours."""
QUICK: Final = ProcessLimits(cpu_seconds=60, memory_bytes=4 << 30)
QUICK_SECONDS: Final = 120.0


class Media:
    """The recordings of jobs in one API process.

    Args:
        jobs: all jobs.
        settings: of the service.
        run_dir: a folder for files of one request.
        incoming: a folder on the file system of the recordings.
    """

    def __init__(self, jobs: Jobs, settings: Settings, run_dir: Path, incoming: Path) -> None:
        self._jobs = jobs
        self._settings = settings
        self._run_dir = run_dir
        self._incoming = incoming
        preload = (*PRELOAD, "asr.pictures.span", "asr.service.jobs.edit_check")
        self.pool = ProcessPool(preload, MAX_QUICK)
        self._painters = ProcessPool(("asr.pictures.mel_image:warm",), 2)
        self._preparing: dict[str, asyncio.Task[Info]] = {}
        self._places = asyncio.Semaphore(MAX_PREPARING)
        self._owners = FairPlaces(1)
        self._cutters = FairPlaces(2)
        self._threads = FairThreads("media", 4, 2)
        self._failed: dict[str, AudioError] = {}

    async def close(self) -> None:
        """End all children."""
        for task in self._preparing.values():
            task.cancel()
        await asyncio.gather(*self._preparing.values(), return_exceptions=True)
        await asyncio.gather(self.pool.close(), self._painters.close())

    # --- what clients get -----------------------------------------------------------------------

    async def peaks(self, job: Job, points_per_second: int) -> tuple[int, np.ndarray]:
        """The samples per point and the peaks; see `read_peaks`.

        Raises:
            NotFound: the recording was not kept.
            AudioError: it cannot be decoded.
            Problem: 503, it is being prepared.
        """
        folder, _ = await self.prepared(job)
        read = read_peaks
        return await self._threads.run(job.owner, read, folder, points_per_second, MAX_POINTS)

    async def whole(self, job: Job) -> Content:
        """The whole recording in a format that every browser plays.

        Raises:
            NotFound, AudioError, Problem: as `peaks`.
        """
        folder, info = await self.prepared(job)
        source, kind = folder / AUDIO, "audio/flac"
        if info.played_as:
            source, kind = self._jobs.recordings.path(job.id), info.played_as
        return await self._threads.run(job.owner, of_file, source, kind)

    async def clip(self, job: Job, start: float, end: float, kind: str) -> bytes:
        """A span as a file.

        Args:
            job: the job.
            start: seconds.
            end: seconds; the recording may end earlier.
            kind: one of `asr.pictures.span.SUBTYPES`.

        Raises:
            InvalidOption: the recording ends before the start, or the server lacks the extra.
            NotFound, AudioError, Problem: as `peaks`.
        """
        request = {"start": start, "end": end, "format": kind}
        return await self._made(self.pool, "asr.pictures.span:clip_job", job, request)

    async def picture(self, job: Job, start: float, end: float, size: tuple[int, int]) -> bytes:
        """The mel spectrogram of a span as a PNG of a width and a height.

        Raises:
            InvalidOption, NotFound, AudioError, Problem: as `clip`.
        """
        width, height = size
        request = {"start": start, "end": end, "width": width, "height": height}
        return await self._made(self._painters, "asr.pictures.mel_image:draw_job", job, request)

    async def samples(self, job: Job, start: float, end: float) -> np.ndarray:
        """The int16 samples of a span.

        Raises:
            NotFound, AudioError, Problem: as `peaks`.
        """
        folder, _ = await self.prepared(job)
        return await self._threads.run(job.owner, read_span, folder, start, end)

    async def _made(
        self, pool: ProcessPool, function: str, job: Job, request: dict[str, Any]
    ) -> bytes:
        """The file that a child writes for a span of a recording."""
        folder, info = await self.prepared(job)
        left = round(info.seconds, 3) - round(
            request["start"], 3
        )  # less than 1 ms may be no sample
        check(left > 0, "start", f"the recording has {info.seconds:.3f} s")
        async with self._cutters.place(job.owner), temporary_folder(self._run_dir) as own:
            files = {"folder": str(folder), "target": str(own / "made")}
            try:
                await call(pool, function, request | files, b"", QUICK, QUICK_SECONDS)
            except TimeoutError:
                raise WorkerDied("a helper process was too slow") from None
            return await asyncio.to_thread((own / "made").read_bytes)

    # --- preparation ----------------------------------------------------------------------------

    async def prepared(self, job: Job, patience: float = PATIENCE) -> tuple[Path, Info]:
        """The folder of a prepared recording, and what is known about it.

        Args:
            job: the job.
            patience: seconds to wait for it.

        Raises:
            NotFound: the recording was not kept.
            AudioError: it cannot be decoded.
            Problem: 503, it is being prepared.
        """
        folder = self._jobs.recordings.made(job.id)
        if not job.keeps_recording:
            raise not_kept()
        info = await asyncio.to_thread(read_info, folder)
        if info is None:
            info = await self._wait(job, patience)
        return folder, info

    async def _wait(self, job: Job, patience: float) -> Info:
        if job.id in self._failed:
            raise self._failed[job.id]
        task = self._preparing.get(job.id)
        if task is None:
            task = self._preparing[job.id] = asyncio.create_task(self._prepare(job))
            task.add_done_callback(lambda done: self._forget(job.id, done))
        await asyncio.wait([task], timeout=patience)
        if not task.done():
            message = "the recording is being prepared; ask again"
            raise Problem(503, message, BEING_PREPARED, None, AGAIN_SECONDS)
        return task.result()

    def _forget(self, job: str, done: asyncio.Task[Info]) -> None:
        del self._preparing[job]
        error = None if done.cancelled() else done.exception()
        if isinstance(error, AudioError):
            while len(self._failed) >= MAX_REMEMBERED:
                del self._failed[next(iter(self._failed))]
            self._failed[job] = error
        elif error is not None:
            logger.warning("the recording of job %s is not prepared: %s", job, error)

    async def _prepare(self, job: Job) -> Info:
        async with (
            self._owners.place(job.owner),
            self._places,
            self._decoded(job) as (draft, info),
        ):
            return await self._adopt(job, draft, info)

    @contextlib.asynccontextmanager
    async def _decoded(self, job: Job) -> AsyncGenerator[tuple[Path, Info]]:
        asked = JobRequest.unpack(job.request)
        source = self._jobs.recordings.path(job.id)
        if not await asyncio.to_thread(source.exists):
            raise not_kept()
        limits = self._settings.limits
        guard = ProcessLimits(limits.max_cpu_seconds, limits.max_memory_bytes)
        async with temporary_folder(self._incoming) as draft:
            request = {
                "source": str(source),
                "folder": str(draft),
                "limits": asdict(limits),
                "split": asked.channels == "split",
                "track": asked.track,
            }
            try:
                function = "asr.audio.prepared:prepare_job"
                async with self.pool.job(function, request, b"", guard, patient=True) as child:
                    info = Info(**await child.result())
            except WorkerDied as error:
                raise blame(error, limits) from error
            yield draft, info

    async def _adopt(self, job: Job, draft: Path, info: Info) -> Info:
        """Move a prepared recording to its place, unless the job was deleted meanwhile."""
        recordings = self._jobs.recordings
        n_bytes = await asyncio.to_thread(_move, draft, recordings.made(job.id))
        if not await asyncio.to_thread(recordings.path(job.id).exists):
            await asyncio.to_thread(recordings.remove, job.id)
            raise not_kept()
        with contextlib.suppress(StoreUnavailable):
            await self._jobs.store.set_kept_bytes(job.id, job.n_bytes + n_bytes)
        return info


def not_kept() -> NotFound:
    """The error for a job without a recording."""
    message = "this job has no recording: create it with keep_recording=true"
    return NotFound(message, "recording_not_kept", "id")


def _move(draft: Path, target: Path) -> int:
    """Move a folder, unless another process was faster; returns the bytes in it."""
    n_bytes = sum(path.stat().st_size for path in draft.iterdir())
    with contextlib.suppress(FileExistsError, OSError):
        draft.rename(target)
        return n_bytes
    if read_info(target) is None:
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    return n_bytes


def content_of(data: bytes, digest: str, kind: str) -> Content:
    """Bytes that were made for a request as a content."""
    return of_bytes(data, f'"{digest[:32]}"', kind)
