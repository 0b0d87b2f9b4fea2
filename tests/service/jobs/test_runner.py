"""The job runner with a fake worker: which errors count as a stall of the job."""

import asyncio
import errno

import pytest

from asr.config import ChunkOptions, DecodeOptions, SubtitleOptions, VadOptions
from asr.errors import EngineUnavailable, UnsupportedAudio, WorkerDied
from asr.service.jobs.request import JobRequest
from asr.service.jobs.rows import NewJob
from asr.service.jobs.service import Jobs
from asr.settings import Settings

REQUEST = JobRequest(VadOptions(), ChunkOptions(), DecodeOptions(), SubtitleOptions()).pack()
JOB = "a" * 32


class Failing:
    """A worker that always raises the same error."""

    def __init__(self, error):
        self.error = error

    async def transcribe(self, command):
        raise self.error
        yield


async def job_after(folder, error):
    """Run a job once with a worker that raises `error`, and return the job."""
    settings = Settings(data_dir=str(folder), work_dir=str(folder))
    jobs = Jobs(
        client=Failing(error), settings=settings, run_dir=folder, incoming=folder, uploads=None
    )
    jobs.recordings.open()
    jobs.recordings.path(JOB).write_bytes(b"audio")
    await jobs.store.open()
    await jobs.store.create(NewJob(JOB, "", REQUEST, JOB, "0" * 64, 1))
    async with jobs.working():
        while (job := await jobs.store.find("", JOB)).attempts == 0 or job.state == "running":
            await asyncio.sleep(0.005)
    return job


@pytest.mark.parametrize(
    ("error", "stalls"),
    [
        (OSError(errno.ENOSPC, "no space"), 0),
        (OSError(errno.EDQUOT, "no quota"), 0),
        (WorkerDied("a helper process failed", errno=errno.ENOSPC), 0),
        (EngineUnavailable("it loads"), 0),
        (WorkerDied("a helper process failed", errno=errno.EACCES), 1),
        (WorkerDied("the recogniser process died"), 1),
    ],
    ids=repr,
)
def test_a_job_is_retried_and_a_full_disk_is_no_stall(tmp_path, error, stalls):
    job = asyncio.run(job_after(tmp_path, error))
    assert (job.state, job.stalls, job.error) == ("queued", stalls, None)


def test_an_error_of_the_recording_ends_the_job(tmp_path):
    job = asyncio.run(job_after(tmp_path, UnsupportedAudio("no audio")))
    assert job.state == "failed"
    assert '"unsupported_audio"' in job.error
