"""The job runner with a fake worker: which errors end a job, and which only delay it."""

import asyncio
import contextlib
import errno
import json
import os
import signal
import time
from dataclasses import dataclass, field, replace

import pytest

from asr.config import (
    AudioLimits,
    ChunkOptions,
    DecodeOptions,
    Options,
    SubtitleOptions,
    VadOptions,
)
from asr.errors import (
    DamagedAudio,
    EngineFailed,
    EngineTimeout,
    EngineUnavailable,
    StoreUnavailable,
    TooMuchMissing,
    UnsupportedAudio,
    WorkerDied,
    WorkerLost,
)
from asr.service.jobs import attempt, runner
from asr.service.jobs.leases import Leases
from asr.service.jobs.recordings import ORPHAN_SECONDS
from asr.service.jobs.request import JobRequest
from asr.service.jobs.rows import NewJob
from asr.service.jobs.service import Jobs
from asr.service.jobs.suspicion import MAX_FAILURES
from asr.service.litserve.client import WorkerClient
from asr.service.litserve.messages import (
    ChunkDone,
    ChunkFailed,
    Control,
    EngineState,
    Failed,
    Started,
    Transcribe,
)
from asr.settings import Settings
from asr.types import Segment, Transcript

REQUEST = JobRequest(VadOptions(), ChunkOptions(), DecodeOptions(), SubtitleOptions()).pack()
JOB, OTHER = "a" * 32, "b" * 32
TRANSCRIPT = Transcript((), "en", 1.0, 0.0, 1.0, "fake engine", None)
MANY = MAX_FAILURES + 2


def at_chunk(error, index=0):
    error.chunk_index = index
    return error


@dataclass
class Worker:
    """Fails on `JOB`, and transcribes other jobs.

    Attributes:
        error: the error; none after `n_failures` attempts.
        works: whether it recognises noise.
        dies: the error is the death of the worker process.
        progress: each attempt first finishes a chunk.
    """

    error: Exception
    n_failures: float = float("inf")
    works: bool = True
    dies: bool = False
    progress: bool = False
    attempts: int = 0
    number: int = 0
    controls: list = field(default_factory=list)

    async def submit(self, command):
        if isinstance(command, Control):
            self.controls.append(command)
            yield EngineState("fake", "fake", ready=self.works)
        if not isinstance(command, Transcribe):
            return
        yield Started(self.number)
        if not command.id.startswith(JOB):
            yield ChunkDone(0, 0, 1.0, "{}")
            yield TRANSCRIPT
            return
        self.attempts += 1
        if self.attempts > self.n_failures:
            yield TRANSCRIPT
            return
        if self.progress:
            yield ChunkDone(0, self.attempts, 1.0, "{}")
        if self.dies:
            self.number += 1
            raise self.error
        yield Failed(self.error)


@contextlib.asynccontextmanager
async def jobs_of(folder, worker, *ids):
    """Jobs that `worker` works on."""
    settings = Settings(data_dir=str(folder), work_dir=str(folder))
    jobs = Jobs(
        client=WorkerClient(worker.submit),
        settings=settings,
        run_dir=folder / "run",
        incoming=folder / "run",
        uploads=None,
    )
    jobs.recordings.open()
    await jobs.store.open()
    for job in ids:
        jobs.recordings.path(job).write_bytes(b"audio")
        await jobs.store.create(NewJob(job, "", REQUEST, job, "0" * 64, 1))
    async with jobs.working():
        yield jobs


async def job_after(folder, worker, is_done):
    """The job after `is_done(job)`, while the worker works on it."""
    async with jobs_of(folder, worker, JOB) as jobs, asyncio.timeout(60):
        while not is_done(job := await jobs.store.find("", JOB)):
            await asyncio.sleep(0.005)
            jobs.runner.wake()
    return job


@pytest.fixture
def no_delay(monkeypatch):
    monkeypatch.setattr(attempt, "MAX_DELAY", 0.0)


SERVER = [
    *(
        OSError(number, os.strerror(number))
        for number in (
            errno.EMFILE,
            errno.ENFILE,
            errno.ENOMEM,
            errno.EIO,
            errno.EROFS,
            errno.ENOSPC,
            errno.EDQUOT,
            errno.ENOENT,
            errno.ESTALE,
            errno.EACCES,
            errno.EAGAIN,
        )
    ),
    MemoryError(),
    RuntimeError("can't start new thread"),
    EOFError(),
    WorkerDied("a helper process failed", errno=errno.ENOSPC),
    WorkerDied("the decoder was killed", signal=signal.SIGKILL),
    EngineUnavailable("it loads"),
    StoreUnavailable("the database is down"),
]


@pytest.mark.usefixtures("no_delay")
@pytest.mark.parametrize("error", SERVER, ids=repr)
def test_trouble_of_the_server_never_ends_a_job(tmp_path, error):
    """The control succeeds all the time, and the job succeeds when the trouble is over."""
    worker = Worker(error, n_failures=MANY)
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts, job.stalls) == ("succeeded", MANY + 1, 0)
    assert not worker.controls


CHUNK = [
    WorkerDied("a recogniser was killed", signal=signal.SIGKILL),
    EngineFailed("it refused"),
    EngineTimeout("too slow"),
    RuntimeError("a bug"),
]


@pytest.mark.usefixtures("no_delay")
@pytest.mark.parametrize("error", CHUNK, ids=repr)
def test_a_chunk_that_fails_again_and_again_ends_its_job(tmp_path, error):
    worker = Worker(at_chunk(error))
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("failed", MAX_FAILURES)
    assert '"job_gave_up"' in job.error
    assert len(worker.controls) == MAX_FAILURES


@pytest.mark.usefixtures("no_delay")
@pytest.mark.parametrize("error", CHUNK, ids=repr)
def test_no_chunk_is_at_fault_while_nothing_succeeds(tmp_path, error):
    worker = Worker(at_chunk(error), n_failures=MANY, works=False)
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("succeeded", MANY + 1)


@pytest.mark.usefixtures("no_delay")
def test_failures_of_different_chunks_are_not_added(tmp_path):
    class Wandering(Worker):
        async def submit(self, command):
            self.error = at_chunk(EngineTimeout("too slow"), self.attempts)
            async for report in super().submit(command):
                yield report

    worker = Wandering(None, n_failures=MANY)
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("succeeded", MANY + 1)


@pytest.mark.usefixtures("no_delay")
def test_new_chunks_do_not_clear_the_one_that_fails(tmp_path):
    worker = Worker(at_chunk(EngineTimeout("too slow")), progress=True)
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("failed", MAX_FAILURES)
    assert not worker.controls


@pytest.mark.usefixtures("no_delay")
def test_two_chunks_that_take_turns_end_their_job(tmp_path):
    class Alternating(Worker):
        async def submit(self, command):
            self.error = at_chunk(EngineTimeout("too slow"), self.attempts % 2)
            async for report in super().submit(command):
                yield report

    job = asyncio.run(job_after(tmp_path, Alternating(None), lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("failed", 2 * MAX_FAILURES - 1)


@pytest.mark.usefixtures("no_delay")
def test_a_new_chunk_clears_a_recording_in_workers_that_die(tmp_path):
    worker = Worker(WorkerLost("it died"), n_failures=MANY, dies=True, progress=True)
    job = asyncio.run(among_others(tmp_path, worker))
    assert (job.state, job.attempts) == ("succeeded", MANY + 1)


@pytest.mark.usefixtures("no_delay")
def test_dead_workers_alone_never_end_a_job(tmp_path):
    worker = Worker(WorkerLost("it died"), n_failures=MANY, dies=True)
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("succeeded", MANY + 1)
    assert not worker.controls


async def among_others(folder, worker):
    """The job, while another job succeeds during each of its attempts."""
    async with jobs_of(folder, worker, JOB) as jobs, asyncio.timeout(60):
        while not (job := await jobs.store.find("", JOB)).is_finished:
            jobs.runner._client.n_succeeded += 1
            await asyncio.sleep(0.001)
            jobs.runner.wake()
    return job


@pytest.mark.usefixtures("no_delay")
def test_a_recording_that_kills_workers_while_others_succeed_ends_its_job(tmp_path):
    class Slow(Worker):
        async def submit(self, command):
            await asyncio.sleep(0.02)
            async for report in super().submit(command):
                yield report

    worker = Slow(WorkerLost("it died"), dies=True)
    job = asyncio.run(among_others(tmp_path, worker))
    assert (job.state, job.attempts) == ("failed", MAX_FAILURES)
    assert '"job_gave_up"' in job.error


@pytest.mark.usefixtures("no_delay")
def test_workers_that_die_without_a_recording_clear_it(tmp_path):
    class Dying(Worker):
        async def submit(self, command):
            await asyncio.sleep(0.02)
            self.number += 1  # another worker has died meanwhile
            async for report in super().submit(command):
                yield report

    worker = Dying(WorkerLost("it died"), n_failures=MANY, dies=True)
    job = asyncio.run(among_others(tmp_path, worker))
    assert (job.state, job.attempts) == ("succeeded", MANY + 1)


@pytest.mark.parametrize("error", [UnsupportedAudio("no audio"), DamagedAudio("cut off")], ids=repr)
def test_an_error_of_the_recording_ends_the_job(tmp_path, error):
    job = asyncio.run(job_after(tmp_path, Worker(error), lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("failed", 1)
    assert '"invalid_request_error"' in job.error


def test_the_delay_grows_up_to_a_limit(tmp_path, monkeypatch):
    delays, release = [], Leases.release

    async def record(self, job, lease, delay, n_failures=None):
        delays.append(delay)
        await release(self, job, lease, 0, n_failures)

    monkeypatch.setattr(Leases, "release", record)
    worker = Worker(OSError(errno.EMFILE, "too many open files"), n_failures=7)
    asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert delays[:7] == [1, 2, 4, 8, 16, 30, 30]  # a shutdown may release it once more


# --- chunks that become gaps --------------------------------------------------------------------


@dataclass
class Gappy:
    """Fails on some chunks of `JOB`, by channel and index, until they are given up.

    Attributes:
        errors: how often each of these chunks fails.
        works: whether it recognises noise.
        crashes: the error that ends an attempt, in place of a chunk's error.
    """

    errors: dict
    works: bool = True
    crashes: Exception | None = None
    attempts: int = 0
    controls: int = 0
    kept: list = field(default_factory=list)
    options: set = field(default_factory=set)

    async def submit(self, command):
        if isinstance(command, Control):
            self.controls += 1
            yield EngineState("fake", "fake", ready=self.works)
        if not isinstance(command, Transcribe):
            return
        yield Started(0)
        self.attempts += 1
        self.options.add(command.options.on_error)
        self.kept.append(command.kept.read_text().split())
        failed = []
        for place, n_times in self.errors.items():
            record = f"{place[0]}-{place[1]}"
            if record not in self.kept[-1] and self.attempts <= n_times:
                failed.append(place)
                yield ChunkFailed(ChunkDone(*place, 1.0, record))
        if self.crashes and failed:
            yield Failed(self.crashes)
        elif failed:
            error = EngineFailed("it refused", failed[0][1])
            error.channel = failed[0][0]
            yield Failed(error)
        else:
            yield TRANSCRIPT


ALWAYS = float("inf")


@pytest.mark.usefixtures("no_delay")
def test_chunks_that_fail_again_and_again_are_given_up_together(tmp_path):
    worker = Gappy({(0, 2): ALWAYS, (0, 3): ALWAYS, (0, 7): MAX_FAILURES - 1})
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts, job.stalls) == ("succeeded", MAX_FAILURES + 1, 0)
    assert worker.kept == [[]] * MAX_FAILURES + [["0-2", "0-3"]]
    assert worker.controls == MAX_FAILURES
    assert worker.options == {"gap"}


@pytest.mark.usefixtures("no_delay")
def test_chunks_of_two_channels_are_counted_apart(tmp_path):
    """Each fails too rarely to be given up, but both together fail often enough."""

    class Sides(Gappy):
        async def submit(self, command):
            if isinstance(command, Transcribe):
                self.errors = {(self.attempts % 2, 1): 2 * MAX_FAILURES - 2}
            async for report in super().submit(command):
                yield report

    worker = Sides({})
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, worker.kept[-1]) == ("succeeded", [])


@pytest.mark.usefixtures("no_delay")
def test_no_chunk_is_given_up_while_the_engine_fails_on_noise(tmp_path):
    worker = Gappy({(0, 2): MANY, (0, 3): MANY}, works=False)
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, worker.kept[-1]) == ("succeeded", [])


@pytest.mark.usefixtures("no_delay")
@pytest.mark.parametrize(
    "error", [EngineUnavailable("it loads"), OSError(errno.ENOSPC, "the disk is full")], ids=repr
)
def test_trouble_of_the_server_gives_no_chunk_up(tmp_path, error):
    worker = Gappy({(0, 2): MANY}, crashes=error)
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, worker.kept[-1], worker.controls) == ("succeeded", [], 0)


@pytest.mark.usefixtures("no_delay")
def test_an_error_without_a_chunk_fails_the_job(tmp_path):
    """In each attempt another chunk fails, too, which gives none of them up."""

    class Late(Gappy):
        async def submit(self, command):
            if isinstance(command, Transcribe):
                self.errors = {(0, self.attempts): ALWAYS}
            async for report in super().submit(command):
                yield report

    worker = Late({}, crashes=WorkerDied("a bug of the decoder"))
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("failed", MAX_FAILURES)
    assert '"job_gave_up"' in job.error


def test_too_much_missing_ends_the_job(tmp_path):
    worker = Worker(TooMuchMissing("51% of the recording could not be transcribed"))
    job = asyncio.run(job_after(tmp_path, worker, lambda job: job.is_finished))
    assert (job.state, job.attempts) == ("failed", 1)
    assert '"too_much_missing"' in job.error
    assert "51%" in job.error


def test_replayed_segments_do_not_show_that_the_engine_works(tmp_path):
    """They come from the checkpoint. Other segments are new."""
    said = Segment(0, 0.0, 1.0, "x", (), None)

    async def submit(command):
        if isinstance(command, Transcribe):
            yield said

    async def count(kept):
        client = WorkerClient(submit)
        command = Transcribe("a", tmp_path, tmp_path, Options(), kept=kept)
        assert [event async for event in client.transcribe(command)] == [said]
        return client.n_succeeded

    assert asyncio.run(count(tmp_path)) == 0
    assert asyncio.run(count(None)) == 1


def test_options_of_a_job_accept_gaps_unless_they_say_otherwise():
    made = JobRequest(VadOptions(), ChunkOptions(), DecodeOptions(), SubtitleOptions())
    strict = replace(made, on_error="fail")
    assert made.with_limits(AudioLimits()).on_error == "gap"
    assert JobRequest.unpack(strict.pack()) == strict
    assert strict.fingerprint("", "", "") != made.fingerprint("", "", "")
    body = json.loads(made.pack())
    del body["on_error"]  # as an earlier version stored it
    assert JobRequest.unpack(json.dumps(body)) == made


def test_a_job_that_has_just_succeeded_removes_its_recording(tmp_path, monkeypatch):
    """It has no lease any more, which a renewal may notice before its last write returns."""
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.005)
    renewed = asyncio.Event()

    async def run():
        async with jobs_of(tmp_path, Worker(None, n_failures=0), JOB) as jobs, asyncio.timeout(60):
            leases = jobs.runner._leases
            succeed, renew = leases.succeed, leases.renew

            async def succeed_slowly(*arguments):
                await succeed(*arguments)
                renewed.clear()
                await renewed.wait()

            async def renew_and_tell(*arguments):
                held = await renew(*arguments)
                asyncio.get_running_loop().call_soon(renewed.set)
                return held

            leases.succeed, leases.renew = succeed_slowly, renew_and_tell
            while jobs.recordings.path(JOB).exists():
                await asyncio.sleep(0.002)
            return await jobs.store.find("", JOB)

    assert asyncio.run(run()).state == "succeeded"


# --- lost folders and recordings ----------------------------------------------------------------


@pytest.mark.usefixtures("no_delay")
def test_a_job_waits_for_a_folder_of_recordings_that_is_gone(tmp_path):
    """A network disk may be missing for a while."""
    worker = Worker(None, n_failures=0)

    async def run():
        async with jobs_of(tmp_path, worker) as jobs, asyncio.timeout(60):
            folder = tmp_path / "recordings"
            folder.rename(tmp_path / "away")
            await jobs.store.create(NewJob(JOB, "", REQUEST, JOB, "0" * 64, 1))
            while (await jobs.store.find("", JOB)).attempts < MANY:
                jobs.runner.wake()
                await asyncio.sleep(0.002)
            folder.mkdir(exist_ok=True)  # a new, empty folder is not the right one either
            (folder / OTHER).write_bytes(b"of a job that was created after the disk was lost")
            while (await jobs.store.find("", JOB)).attempts < 2 * MANY:
                jobs.runner.wake()
                await asyncio.sleep(0.002)
            (folder / JOB).write_bytes(b"audio")
            while not (job := await jobs.store.find("", JOB)).is_finished:
                jobs.runner.wake()
                await asyncio.sleep(0.002)
        return job

    assert asyncio.run(run()).state == "succeeded"


def test_a_recording_that_is_gone_among_older_ones_ends_its_job(tmp_path):
    async def run():
        async with jobs_of(tmp_path, Worker(None)) as jobs, asyncio.timeout(60):
            jobs.recordings.path(OTHER).write_bytes(b"audio")
            before = time.time() - ORPHAN_SECONDS / 2  # the sweep lets it live
            os.utime(jobs.recordings.path(OTHER), (before, before))
            await jobs.store.create(NewJob(JOB, "", REQUEST, JOB, "0" * 64, 1))
            while not (job := await jobs.store.find("", JOB)).is_finished:
                await asyncio.sleep(0.005)
        return job

    job = asyncio.run(run())
    assert job.state == "failed"
    assert '"recording_missing"' in job.error
