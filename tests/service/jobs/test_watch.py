"""Clients that follow jobs: the events that each receives, and the number of queries for all."""

import asyncio
import contextlib
import json
import threading
import uuid

import sqlalchemy as sa

from asr.config import ChunkOptions, DecodeOptions, SubtitleOptions, VadOptions
from asr.errors import StoreUnavailable
from asr.pipeline.checkpoint import pack_segment, unpack_segment
from asr.service.jobs import stream
from asr.service.jobs.leases import Leases, NewResults
from asr.service.jobs.request import JobRequest
from asr.service.jobs.rows import NewJob
from asr.service.jobs.schemas import job_body
from asr.service.jobs.service import Jobs
from asr.service.jobs.stream import follow
from asr.service.jobs.watch import Watch
from asr.settings import Settings
from asr.types import Segment
from tests.support.serving import until

REQUEST = JobRequest(VadOptions(), ChunkOptions(), DecodeOptions(), SubtitleOptions()).pack()


@contextlib.asynccontextmanager
async def processes(folder, n=1):
    """The jobs of `n` API processes that share a database."""
    settings = Settings(data_dir=str(folder), work_dir=str(folder))
    all_jobs = [
        Jobs(client=None, settings=settings, run_dir=folder, incoming=folder, uploads=None)
        for _ in range(n)
    ]
    for jobs in all_jobs:
        jobs.watch = Watch(jobs.store, poll_seconds=0.02)
        await jobs.store.open()
    yield all_jobs
    for jobs in all_jobs:
        await jobs.store.close()


class Worker:
    """Adds segments to its own job, one by one."""

    def __init__(self, jobs):
        self.store, self.leases = jobs.store, Leases(jobs.store._database)
        self.n_segments = 0

    async def begin(self):
        identity = uuid.uuid4().hex
        await self.store.create(NewJob(identity, "", REQUEST, identity, "0" * 64, 1))
        self.job = await self.leases.claim("lease", 60)
        return self.job

    async def add_segment(self):
        n, self.n_segments = self.n_segments, self.n_segments + 1
        record = pack_segment(Segment(n, n, n + 1, f"said {n}", ()))
        await self.leases.record(self.job.id, "lease", NewResults([], [(n, record)]))

    async def end(self):
        await self.leases.fail(self.job.id, "lease", json.dumps({"code": "it_broke"}))


class Listener:
    """Follows a job in a task, starting behind the first `n_seen` segments."""

    def __init__(self, jobs, job, n_seen=0):
        self.ids, self.names = [], []
        self.task = asyncio.create_task(self._listen(follow(jobs, job, n_seen)))

    async def _listen(self, events):
        async for piece in events:
            for event in piece.strip().split("\n\n"):
                lines = dict(line.split(": ", 1) for line in event.split("\n"))
                self.names.append(lines["event"])
                if lines["event"] == "segment":
                    self.ids.append(int(lines["id"]))


def queries(jobs):
    """A list to which every query of this process is added."""
    asked = []

    @sa.event.listens_for(jobs.store._database._engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_):
        if statement.startswith("SELECT"):
            asked.append(statement)

    return asked


def test_queries_do_not_grow_with_the_listeners(tmp_path, monkeypatch):
    polls, n_asked = [], []

    async def run():
        async with processes(tmp_path) as (jobs,):
            read_many, asked = jobs.store.read_many, queries(jobs)

            async def counted(wanted):
                polls.append(dict(wanted))
                n_asked.append(len(asked))
                return await read_many(wanted)

            monkeypatch.setattr(jobs.store, "read_many", counted)
            worker = Worker(jobs)
            job = await worker.begin()
            listeners = [Listener(jobs, job) for _ in range(200)]
            for _ in range(5):
                await worker.add_segment()
                await until(lambda: all(len(it.ids) == worker.n_segments for it in listeners))
            n_polls = len(polls)
            await until(lambda: len(polls) > n_polls + 10)
            await worker.end()
            await asyncio.gather(*(it.task for it in listeners))
            # 2 queries for each of 10 polls. If each listener polled by itself: 4000.
            assert 18 <= n_asked[n_polls + 10] - n_asked[n_polls] <= 22
            assert all(it.ids == [1, 2, 3, 4, 5] for it in listeners)
            assert all(it.names[-1] == "error" for it in listeners)

    asyncio.run(run())
    assert all(len(wanted) == 1 for wanted in polls)


def test_each_listener_gets_every_segment_after_its_start(tmp_path):
    """Listeners that come late or with a Last-Event-ID, in two processes, to two jobs."""

    async def run():
        async with processes(tmp_path, 2) as (one, other):
            workers = [Worker(one), Worker(other)]
            listeners = []
            for worker in workers:
                await worker.begin()
            for round_ in range(4):
                for worker in workers:
                    await worker.add_segment()
                    for jobs in (one, other):
                        listeners += [
                            (n_seen, Listener(jobs, worker.job, n_seen))
                            for n_seen in range(round_ + 2)
                        ]
                await asyncio.sleep(0.03)
            await asyncio.gather(*(worker.end() for worker in workers))
            await asyncio.gather(*(listener.task for _, listener in listeners))
            for n_seen, listener in listeners:
                assert listener.ids == list(range(n_seen + 1, 5))
                assert listener.names[-1] == "error"

    asyncio.run(run())


def test_listeners_of_long_jobs_leave_the_event_loop_free(tmp_path, monkeypatch):
    """Sixteen listeners to a job of 10,000 segments delayed all other clients by 30 s."""
    threads, n_bodies = set(), 0

    def unpack(record):
        threads.add(threading.current_thread())
        return unpack_segment(record)

    def body(job, prefix):
        nonlocal n_bodies
        n_bodies += 1
        return job_body(job, prefix)

    async def run():
        async with processes(tmp_path) as (jobs,):
            worker = Worker(jobs)
            job = await worker.begin()
            for _ in range(5):
                await worker.add_segment()
            listener = Listener(jobs, job)
            await until(lambda: listener.names[-1:] == ["progress"])
            for _ in range(3):  # polls without news
                await jobs.watch.news(job.id, 5)
            await worker.end()
            await listener.task
            assert listener.ids == [1, 2, 3, 4, 5]
            assert listener.names[-1] == "error"

    monkeypatch.setattr(stream, "N_AT_ONCE", 2)
    monkeypatch.setattr(stream, "unpack_segment", unpack)
    monkeypatch.setattr(stream, "job_body", body)
    asyncio.run(run())
    assert threads
    assert threading.current_thread() not in threads
    assert n_bodies == 2  # as it was at the start, and at its end


def test_a_listener_that_leaves_does_not_disturb_others(tmp_path):
    async def run():
        async with processes(tmp_path) as (jobs,):
            worker = Worker(jobs)
            job = await worker.begin()
            leaving, staying = ([Listener(jobs, job) for _ in range(10)] for _ in range(2))
            await worker.add_segment()
            await until(lambda: all(it.ids for it in leaving + staying))
            for it in leaving:
                it.task.cancel()
            await worker.add_segment()
            await worker.end()
            await asyncio.gather(*(it.task for it in staying))
            assert all(it.ids == [1, 2] for it in staying)

    asyncio.run(run())


def test_polling_continues_after_a_database_failure(tmp_path, monkeypatch):
    async def run():
        async with processes(tmp_path) as (jobs,):
            worker = Worker(jobs)
            job = await worker.begin()
            listeners = [Listener(jobs, job) for _ in range(5)]
            await worker.add_segment()
            await until(lambda: all(it.ids for it in listeners))
            n_tried = 0

            async def away(_):
                nonlocal n_tried
                n_tried += 1
                raise StoreUnavailable("away")

            with monkeypatch.context() as patch:
                patch.setattr(jobs.store, "read_many", away)
                await worker.add_segment()
                await until(lambda: n_tried >= 3)
            await worker.end()
            await asyncio.gather(*(it.task for it in listeners))
            assert all(it.ids == [1, 2] for it in listeners)

    asyncio.run(run())


def test_a_job_that_was_deleted_ends_its_streams(tmp_path):
    async def run():
        async with processes(tmp_path) as (jobs,):
            job = await Worker(jobs).begin()
            listener = Listener(jobs, job)
            await until(lambda: listener.names == ["progress"])
            await jobs.store.delete("", job.id)
            await listener.task
            assert listener.names == ["progress", "error"]

    asyncio.run(run())
